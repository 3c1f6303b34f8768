"""The checks of repairers."""

import json

import torch

from goodnet.repair._base import Repairer
from goodnet.testing import defenses
from goodnet.testing._common import HOOKS, Check, quick, require
from goodnet.testing._world import World


def repaired_model_is_a_new_working_one(method: type[Repairer], world: World) -> None:
    """The model is not the caller's, has the same arrays by name and shape, is in eval mode, and answers in numbers."""
    old, new = world.defender.model, defenses.run(quick(method), world).model
    assert old is not None
    require(new is not old, "the caller's own model comes back")
    shapes = [{name: array.shape for name, array in model.state_dict().items()} for model in (old, new)]
    require(shapes[0] == shapes[1], "the arrays of the model have other names or shapes; it cannot be saved")
    shared = {value.data_ptr() for value in old.state_dict().values()}
    require(not shared & {value.data_ptr() for value in new.state_dict().values()}, "arrays are shared with the caller")
    require(not any(module.training for module in new.modules()), "the model is not in eval mode")
    require(all(one.grad is None for one in new.parameters()), "gradients are left over")
    require(not any(getattr(one, hooks) for one in new.modules() for hooks in HOOKS), "hooks are left over")
    with torch.no_grad():
        require(bool(new(world.samples.floats()).isfinite().all()), "the model's answers are not finite")


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
