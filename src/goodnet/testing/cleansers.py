"""The checks of cleansers."""

import json
from dataclasses import replace

import torch

from goodnet.cleanse._base import Cleanser
from goodnet.core.registry import Needs
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.testing import defenses
from goodnet.testing._common import Check, quick, require
from goodnet.testing._world import World


def _training_set(world: World) -> Samples:
    assert world.defender.training_set is not None
    return world.defender.training_set


def every_sample_gets_a_score(method: type[Cleanser], world: World) -> None:
    """One finite float and one decision for each sample; the rule is told, the findings count rightly."""
    held, cleansed = _training_set(world), defenses.run(quick(method), world)
    assert held.labels is not None
    shapes = tuple(cleansed.scores.shape), tuple(cleansed.keep.shape)
    require(shapes == ((len(held),), (len(held),)), f"scores and keep have the shapes {shapes}")
    types = cleansed.scores.dtype, cleansed.keep.dtype
    require(types == (torch.float32, torch.bool), f"scores and keep are {types}")
    require(bool(cleansed.scores.isfinite().all()), "a score is not finite")
    require(bool(cleansed.rule), "it is not said how samples were chosen")
    found = [finding.label for finding in cleansed.per_class]
    require(set(found) <= set(held.labels.tolist()) and len(set(found)) == len(found), "labels twice, or unknown ones")
    for finding in cleansed.per_class:
        mine = held.labels == finding.label
        counted = int(mine.sum()), int((mine & ~cleansed.keep).sum())
        require((finding.count, finding.removed) == counted, f"label {finding.label} counts wrongly")


def removed_samples_score_higher(method: type[Cleanser], world: World) -> None:
    """Within a label nothing is removed that scores lower than what stays: decision and score have one sign."""
    held, cleansed = _training_set(world), defenses.run(quick(method), world)
    assert held.labels is not None
    for label in held.labels.unique():
        mine = held.labels == label
        gone, stays = cleansed.scores[mine & ~cleansed.keep], cleansed.scores[mine & cleansed.keep]
        low_high = bool(len(gone) and len(stays)) and float(gone.min()) < float(stays.max())
        require(not low_high, f"of label {int(label)} samples are removed that score lower than what stays")


def an_unlabeled_training_set_is_refused(method: type[Cleanser], world: World) -> None:
    """Without labels of the training set the run is refused, and the message says so."""
    poorer = replace(world.defender, training_set=_training_set(world).without_labels())
    try:
        quick(method).run(poorer)
    except NotHeld as error:
        require("labels" in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
    else:
        raise AssertionError("runs on a training set without labels")


def ids_say_nothing(method: type[Cleanser], world: World) -> None:
    """Scores do not depend on the samples' ids, in which an order of collection, or of poisoning, may show."""
    held = _training_set(world)
    assert held.ids is not None
    other = replace(world, defender=replace(world.defender, training_set=replace(held, ids=held.ids.flip(0))))
    scores = [defenses.run(quick(method), one).scores for one in (world, other)]
    require(torch.equal(*scores), "scores depend on ids")


def training_set_is_declared(method: type[Cleanser], world: World) -> None:
    """The card says that the training set is needed."""
    require(Needs.TRAINING_SET in method.card.needs, "does not declare the training set that it scores")


def scores_survive_json(method: type[Cleanser], world: World) -> None:
    """Findings, evidence and counts are JSON values."""
    cleansed = defenses.run(quick(method), world)
    details = [dict(finding.details) for finding in cleansed.per_class]
    record = [details, dict(cleansed.evidence), dict(cleansed.provenance.counts)]
    try:
        require(json.loads(json.dumps(record, allow_nan=False)) == record, "the record changes on its way through JSON")
    except (TypeError, ValueError) as error:
        raise AssertionError(f"not JSON: {error}") from None


CHECKS: tuple[Check, ...] = (
    *defenses.CHECKS,
    every_sample_gets_a_score,
    removed_samples_score_higher,
    an_unlabeled_training_set_is_refused,
    ids_say_nothing,
    training_set_is_declared,
    scores_survive_json,
)
