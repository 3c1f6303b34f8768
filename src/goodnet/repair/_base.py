"""The repairer contract: what a defender holds goes in, a new model comes out, the suspect is untouched."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.defense import Defense
from goodnet.core.params import parameters_of
from goodnet.core.registry import Needs, Registry
from goodnet.core.run import Progress, Provenance, Run
from goodnet.errors import NotApplicable, NotHeld


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What a method's hook returns; the base class turns it into a Repaired.

    Attributes:
        model: ``defender.model`` itself, changed, or a new one of the same shape.
        notes: numbers worth a column of a table, such as "channels_pruned".
        counts: how many images, epochs, channels ... were used.
        evidence: JSON values for the report.
        second_opinion: where ``model`` is the suspect as it was: a model that was made and thought too bad to take its
            place, and is still of another opinion about triggers; None where there is none.
    """

    model: Classifier
    notes: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    second_opinion: Classifier | None = None


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """A repairer's answer. Whether it is any good is for ``repair.proof`` and for evaluation to say.

    Attributes:
        model: a new classifier in eval mode, on the suspect's device; its origin's history tells of the repair.
        notes, evidence, second_opinion: see Fixed.
        provenance: method, parameters, seed, cost.
    """

    model: Classifier
    notes: Mapping[str, float]
    evidence: Mapping[str, Any]
    provenance: Provenance
    second_opinion: Classifier | None = None


@dataclass(frozen=True, kw_only=True)
class Repairer(Defense):
    """Makes a new model of a suspect. A method is a frozen dataclass of hyper-parameters with one hook, ``_fix``.

    The base class checks what the defender holds, works on a private copy of the model, seeds, times, and gives the
    new model its history.
    """

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
        mine = self._held(defender)
        if mine.model is None:
            raise NotHeld(f"{self.card.name} repairs a model; its card must declare Needs.MODEL")
        if Needs.CLEAN in self.card.needs and not len(mine.clean or ()):
            raise NotHeld(f"{self.card.name} needs clean images, and there is none among these")
        with self._running(mine, seed=seed, budget=budget, progress=progress, gradients=True) as (seen, run):
            fixed = self._fix(seen, run)
        if not _finite(fixed.model):
            raise NotApplicable(f"{self.card.name} diverged on this network: its weights are no longer numbers")
        return Repaired(
            model=self._finished(fixed.model, seed),
            notes=fixed.notes,
            evidence=fixed.evidence,
            provenance=self._provenance(mine, run, seed, fixed.counts),
            second_opinion=self._finished(other, seed) if (other := fixed.second_opinion) and _finite(other) else None,
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


def _finite(model: Classifier) -> bool:
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


repairers: Registry[Repairer] = Registry("repairer", "goodnet.repair")
