"""The checks of auditors."""

import json
import math

from goodnet.audit._base import Auditor
from goodnet.errors import GoodnetError
from goodnet.testing import defenses
from goodnet.testing._common import Check, quick, require
from goodnet.testing._world import World


def verdict_is_well_formed(method: type[Auditor], world: World) -> None:
    """Every number is in its range and every trigger has the model's shape."""
    verdict, model = defenses.run(quick(method), world), world.defender.model
    assert model is not None
    labels = set(range(model.num_classes))
    require(not math.isnan(verdict.score), "the score is not a number")
    require(verdict.p_value is None or 0 < verdict.p_value <= 1, f"p-value {verdict.p_value}")
    require(verdict.num_classes == model.num_classes, "num_classes is not the model's")
    require(set(verdict.targets) <= labels and bool(verdict.flagged) == bool(verdict.targets), "wrong targets")
    found = [finding.label for finding in verdict.per_class]
    require(set(found) <= labels and len(set(found)) == len(found), "labels twice, or labels that do not exist")
    require(not any(math.isnan(finding.score) for finding in verdict.per_class), "a label's score is not a number")
    for trigger in verdict.triggers:
        shapes = tuple(trigger.mask.shape), tuple(trigger.pattern.shape)
        require(shapes == (model.input_shape[1:], model.input_shape), f"mask and pattern have the shapes {shapes}")
        for name, value in (("mask", trigger.mask), ("pattern", trigger.pattern)):
            require(bool(((value >= 0) & (value <= 1)).all()), f"a trigger's {name} leaves [0, 1]")
        require(trigger.target in labels and 0 <= trigger.success_rate <= 1, "a trigger's target or success is wrong")


def verdict_survives_json(method: type[Auditor], world: World) -> None:
    """Evidence and counts are JSON values, and the report's record of the verdict is strict JSON."""
    from goodnet.report.json import verdict_to_dict  # here: it takes the report's dependencies with it

    verdict = defenses.run(quick(method), world)
    try:
        json.dumps([dict(verdict.evidence), dict(verdict.provenance.counts)])
        record = verdict_to_dict(verdict, file="model.pt", sha256="")
        require(json.loads(json.dumps(record, allow_nan=False)) == record, "the record changes on the way")
    except (TypeError, ValueError, GoodnetError) as error:
        raise AssertionError(f"not JSON: {error}") from None


CHECKS: tuple[Check, ...] = (*defenses.CHECKS, verdict_is_well_formed, verdict_survives_json)
