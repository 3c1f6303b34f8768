"""The checks of repairers."""

import json

from goodnet.repair._base import Repairer
from goodnet.testing import defenses
from goodnet.testing._common import Check, quick, require, require_new_and_working
from goodnet.testing._world import World


def repaired_model_is_a_new_working_one(method: type[Repairer], world: World) -> None:
    """The model is not the caller's, has the same arrays by name and shape, is in eval mode, and answers in numbers."""
    new = defenses.run(quick(method), world).model
    require_new_and_working(new, world)


def repair_is_in_the_history(method: type[Repairer], world: World) -> None:
    """The new model says what was done to it, after what was done to it before."""
    assert world.defender.model is not None
    before, after = world.defender.model.origin.history, defenses.run(quick(method), world, seed=3).model.origin.history
    require(after[: len(before)] == before, "the history from before is lost")
    own = after[len(before) :]
    told = bool(own) and (own[-1].get("repair"), own[-1].get("seed")) == (method.card.name, 3)
    require(told, f"the history says {own}")


def notes_survive_json(method: type[Repairer], world: World) -> None:
    """Notes are finite numbers; evidence and counts are JSON values."""
    repaired = defenses.run(quick(method), world)
    record = [dict(repaired.notes), dict(repaired.evidence), dict(repaired.provenance.counts)]
    try:
        require(json.loads(json.dumps(record, allow_nan=False)) == record, "the notes change on the way through JSON")
    except (TypeError, ValueError) as error:
        raise AssertionError(f"not JSON: {error}") from None


CHECKS: tuple[Check, ...] = (
    *defenses.CHECKS,
    repaired_model_is_a_new_working_one,
    repair_is_in_the_history,
    notes_survive_json,
)
