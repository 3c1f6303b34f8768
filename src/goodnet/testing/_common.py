"""What checks are made of, and the caller's things that a method must leave alone."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from goodnet.core.classifier import Classifier
from goodnet.testing._world import World

Check = Callable[[type[Any], World], None]


def require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


def quick(method: type[Any], **changes: Any) -> Any:
    """The method with the fast arguments of its card."""
    return method(**{**method.card.quick, **changes})


def _global_state() -> str:
    numpy_state = np.random.get_state(legacy=False)
    return repr(
        (
            random.getstate(),
            [(name, value.tolist() if isinstance(value, np.ndarray) else value) for name, value in _flat(numpy_state)],
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )
    )


def _flat(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(nested, dict):
        for key, value in nested.items():
            yield from _flat(value, f"{name}.{key}")
    else:
        yield name, nested


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Snapshot:
    """The caller's things as they were."""

    world: World
    model: dict[str, torch.Tensor] = field(init=False)
    modes: list[object] = field(init=False)
    samples: list[torch.Tensor] = field(init=False)
    state: str = field(init=False)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self._model().state_dict())
        self.modes, self.samples, self.state = self._modes(), self._tensors(), _global_state()

    def _model(self) -> Classifier:
        assert self.world.defender.model is not None
        return self.world.defender.model

    def _modes(self) -> list[object]:
        modules = [(one.training, [len(getattr(one, hooks)) for hooks in HOOKS]) for one in self._model().modules()]
        return [modules, [(one.requires_grad, one.grad is None) for one in self._model().parameters()]]

    def _tensors(self) -> list[torch.Tensor]:
        held = (self.world.samples, self.world.defender.clean, self.world.defender.training_set)
        values = [getattr(samples, name) for samples in held for name in ("images", "labels", "ids", "sources")]
        return [value.clone() for value in values if value is not None]

    def require_unchanged(self, when: str) -> None:
        now = self._model().state_dict()
        same = now.keys() == self.model.keys() and all(torch.equal(now[name], self.model[name]) for name in now)
        require(same, f"the caller's weights change {when}")
        require(self._modes() == self.modes, f"the caller's mode, hooks, gradients or requires_grad change {when}")
        unchanged = all(torch.equal(one, other) for one, other in zip(self._tensors(), self.samples, strict=True))
        require(unchanged, f"the caller's images, labels or ids change {when}")
        require(_global_state() == self.state, f"a global random state or torch setting changes {when}")


def require_new_and_working(new: Classifier, world: World) -> None:
    """Raise unless a model that was made from the caller's is another one of its kind, and answers in numbers."""
    old = world.defender.model
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
