"""Defense: what every method has in common that works on what a defender holds, whatever its role."""

import contextlib
import copy
import time
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch

from goodnet.core.defender import Defender
from goodnet.core.params import check_ranges
from goodnet.core.registry import Card
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress, Provenance, Run, library_versions, peak_memory_bytes
from goodnet.errors import ParameterError


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """A frozen dataclass of hyper-parameters with a card. Roles derive from it: each has a ``run`` and one hook."""

    card: ClassVar[Card]

    def __post_init__(self) -> None:
        check_ranges(self)

    def _held(self, defender: Defender) -> Defender:
        """What this method may see.

        Raises:
            NotHeld: something that it needs is missing; the message names it.
        """
        return defender.restricted_to(self.card.needs, self.card.name, self.card.uses)

    @contextlib.contextmanager
    def _running(
        self, held: Defender, *, seed: int, budget: float | None, progress: Progress | None, gradients: bool = False
    ) -> Iterator[tuple[Defender, Run]]:
        """What the hook is given: ``held`` with a private copy of the model in eval mode, and the run.

        Inside, all random generators are seeded; after it, also after an exception, they are as they were.

        Raises:
            ParameterError: ``budget`` is out of its range.
        """
        if budget is not None and not budget > 0:
            raise ParameterError(f"budget must be more than 0 seconds, got {budget!r}")
        with isolated_rng(seed) as generator:
            run = Run(generator, None if budget is None else time.monotonic() + budget)
            if progress is not None:
                run.progress = progress
            if held.model is not None:
                held = replace(held, model=copy.deepcopy(held.model).eval().requires_grad_(gradients))
            yield held, run

    def _provenance(self, held: Defender, run: Run, seed: int, counts: Mapping[str, int]) -> Provenance:
        """How an answer came about, and what it cost until now."""
        device = torch.device("cpu") if held.model is None else held.model.device
        return Provenance(
            method=self.card.name,
            version=self.card.version,
            parameters=asdict(self),
            seed=seed,
            seconds=time.monotonic() - run.started,
            peak_memory_bytes=peak_memory_bytes(device),
            device=str(device),
            counts=counts,
            versions=library_versions(),
            assumes=self.card.assumes,
        )
