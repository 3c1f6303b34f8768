"""The repairer contract: what a defender holds goes in, a new model comes out, the suspect is untouched."""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, final

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import check_ranges, parameters_of
from goodnet.core.registry import Card, Needs, Registry
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress, Provenance, Run, library_versions, peak_memory_bytes
from goodnet.errors import NotApplicable, NotHeld, ParameterError


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What a method's hook returns; the base class turns it into a Repaired.

    Attributes:
        model: ``defender.model`` itself, changed, or a new one of the same shape.
        notes: numbers worth a column of a table, such as "channels_pruned".
        counts: how many images, epochs, channels ... were used.
        evidence: JSON values for the report.
    """

    model: Classifier
    notes: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """A repairer's answer. Whether it is any good is for ``repair.proof`` and for evaluation to say.

    Attributes:
        model: a new classifier in eval mode, on the suspect's device; its origin's history tells of the repair.
        notes, evidence: see Fixed.
        provenance: method, parameters, seed, cost.
    """

    model: Classifier
    notes: Mapping[str, float]
    evidence: Mapping[str, Any]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Repairer(ABC):
    """Makes a new model of a suspect. A method is a frozen dataclass of hyper-parameters with one hook, ``_fix``.

    The base class checks what the defender holds, works on a private copy of the model, seeds, times, and gives the
    new model its history.
    """

    card: ClassVar[Card]

    def __post_init__(self) -> None:
        check_ranges(self)

    @final
    def run(
        self,
        defender: Defender,
        *,
        seed: int = 0,
        budget: float | None = None,
        progress: Progress | None = None,
    ) -> Repaired:
        """Repair ``defender.model``; the caller's model, images and random generators are untouched.

        Args:
            defender: what is held; see the card's needs, and what it uses where it is held.
            seed: same seed, same machine, same answer.
            budget: seconds after which the best model so far is wanted; None for no limit.
            progress: called with (share done, a few words).

        Raises:
            NotHeld: the defender lacks something that the method needs.
            NotApplicable: the method cannot work on this network, such as one without BatchNorm, or diverged on it.
            ParameterError: ``budget`` is out of its range.
        """
        if budget is not None and not budget > 0:
            raise ParameterError(f"budget must be more than 0 seconds, got {budget!r}")
        mine = defender.restricted_to(self.card.needs, self.card.name, self.card.uses)
        if mine.model is None:
            raise NotHeld(f"{self.card.name} repairs a model; its card must declare Needs.MODEL")
        if Needs.CLEAN in self.card.needs and not len(mine.clean or ()):
            raise NotHeld(f"{self.card.name} needs clean images, and there is none among these")
        started = time.monotonic()
        with isolated_rng(seed) as generator:
            run = Run(generator, None if budget is None else started + budget)
            if progress is not None:
                run.progress = progress
            fixed = self._fix(replace(mine, model=copy.deepcopy(mine.model).eval().requires_grad_(True)), run)
        if not all(value.isfinite().all() for value in fixed.model.state_dict().values()):
            raise NotApplicable(f"{self.card.name} diverged on this network: its weights are no longer numbers")
        provenance = Provenance(
            method=self.card.name,
            version=self.card.version,
            parameters=asdict(self),
            seed=seed,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_memory_bytes(mine.model.device),
            device=str(mine.model.device),
            counts=fixed.counts,
            versions=library_versions(),
            assumes=self.card.assumes,
        )
        return Repaired(
            model=self._finished(fixed.model, seed),
            notes=fixed.notes,
            evidence=fixed.evidence,
            provenance=provenance,
        )

    def _finished(self, model: Classifier, seed: int) -> Classifier:
        """In eval mode, without gradients left over, and with the repair in its history."""
        model.eval().requires_grad_(True).zero_grad(set_to_none=True)
        entry = {"repair": self.card.name, "version": self.card.version, **parameters_of(self), "seed": seed}
        model.origin = replace(model.origin, history=(*model.origin.history, entry))
        return model

    @abstractmethod
    def _fix(self, defender: Defender, run: Run) -> Fixed:
        """Make the new model. ``defender.model`` is a private copy in eval mode that may be changed."""


repairers: Registry[Repairer] = Registry("repairer", "goodnet.repair")
