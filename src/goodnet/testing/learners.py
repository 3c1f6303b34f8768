"""The checks of learners."""

import copy
import json
from dataclasses import replace

import torch

from goodnet.core.registry import Needs
from goodnet.errors import NotHeld
from goodnet.learn._base import Learner
from goodnet.models.untrained import anew
from goodnet.testing import defenses
from goodnet.testing._common import Check, quick, require, require_new_and_working
from goodnet.testing._world import World


def learned_model_is_a_new_working_one(method: type[Learner], world: World) -> None:
    """The model is of the kind that was asked for, shares nothing with the caller's, and answers in numbers."""
    require_new_and_working(defenses.run(quick(method), world).model, world)


def given_weights_say_nothing(method: type[Learner], world: World) -> None:
    """Whatever weights the network comes with, the same is learned: they may be those of a backdoor."""
    assert world.defender.model is not None
    other = replace(world, defender=replace(world.defender, model=anew(world.defender.model, seed=11)))
    states = [defenses.run(quick(method), one).model.state_dict() for one in (world, other)]
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    require(same, "what is learned depends on the weights that the network came with")


def ids_teach_nothing(method: type[Learner], world: World) -> None:
    """What is learned does not depend on the samples' ids, in which an order of poisoning may show."""
    held = world.defender.training_set
    assert held is not None
    assert held.ids is not None
    other = replace(world, defender=replace(world.defender, training_set=replace(held, ids=held.ids.flip(0))))
    states = [defenses.run(quick(method), one).model.state_dict() for one in (world, other)]
    same = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    require(same, "what is learned depends on ids")


def unlabeled_images_teach_nothing(method: type[Learner], world: World) -> None:
    """Without labels of the training set the run is refused, and the message says so."""
    held = world.defender.training_set
    assert held is not None
    try:
        quick(method).run(replace(world.defender, training_set=held.without_labels()))
    except NotHeld as error:
        require("labels" in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
    else:
        raise AssertionError("runs on a training set without labels")


def training_is_declared(method: type[Learner], world: World) -> None:
    """The card says that a training set, a kind of network and training are needed."""
    missing = (Needs.TRAINING_SET | Needs.MODEL | Needs.TRAINING) & ~method.card.needs
    require(not missing, f"does not declare {missing}")


def learning_is_in_the_history(method: type[Learner], world: World) -> None:
    """The model says how it was learned, the seed and the recipe too, and nothing of the network that was asked for."""
    assert world.defender.model is not None
    asked = copy.deepcopy(world.defender.model)
    asked.origin = replace(asked.origin, file="other.pt", history=({"repair": "other"},))
    other = replace(world, defender=replace(world.defender, model=asked))
    origin = defenses.run(quick(method), other, seed=3).model.origin
    first = origin.history[0] if origin.history else {}
    require((first.get("learn"), first.get("seed")) == (method.card.name, 3), f"the history says {origin.history}")
    require("recipe" in first, "the history does not say by which recipe")
    require(not origin.file, "it claims to come from the file of another network")


def told_of_every_sample(method: type[Learner], world: World) -> None:
    """What is told of samples, is told of each; notes are finite numbers; evidence and counts are JSON values."""
    learned, held = defenses.run(quick(method), world), world.defender.training_set
    assert held is not None
    chosen, losses = learned.distrusted, learned.losses
    right = chosen is None or (chosen.dtype == torch.bool and tuple(chosen.shape) == (len(held),))
    require(right, "what is distrusted is no mask of the training set")
    right = losses is None or (losses.ndim == 2 and losses.shape[1] == len(held) and bool(losses.isfinite().all()))
    require(right, "losses are not one finite number for each epoch and sample")
    record = [dict(learned.notes), dict(learned.evidence), dict(learned.provenance.counts)]
    try:
        require(json.loads(json.dumps(record, allow_nan=False)) == record, "the notes change on the way through JSON")
    except (TypeError, ValueError) as error:
        raise AssertionError(f"not JSON: {error}") from None


CHECKS: tuple[Check, ...] = (
    *defenses.CHECKS,
    learned_model_is_a_new_working_one,
    given_weights_say_nothing,
    ids_teach_nothing,
    unlabeled_images_teach_nothing,
    training_is_declared,
    learning_is_in_the_history,
    told_of_every_sample,
)
