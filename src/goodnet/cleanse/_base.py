"""The cleanser contract: a training set goes in, a score and a decision for each sample come out."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor

from goodnet.core.defender import Defender
from goodnet.core.defense import Defense
from goodnet.core.registry import Registry
from goodnet.core.run import Progress, Provenance, Run
from goodnet.errors import NotApplicable, NotHeld


@dataclass(frozen=True, kw_only=True)
class ClassFinding:
    """What a cleanser found among the samples of one label.

    Attributes:
        label: as given in the training set, which may be the attacker's.
        count, removed: how many samples have it, and how many of them go.
        score: how suspicious the label is; larger is more suspicious, comparable between the labels of one set.
        details: the method's own numbers, such as "silhouette", "share".
    """

    label: int
    count: int
    removed: int
    score: float
    details: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a method's hook returns; the base class turns it into a Cleansed.

    Attributes:
        scores: float (N,), larger is more suspicious, comparable between all samples.
        removed: bool (N,), what the method's rule takes out; nothing, where it finds nothing.
        rule: how that was decided and where the threshold comes from, in a sentence.
        per_class: one finding for each label that was looked at.
        counts: how many images, epochs ... were used.
        evidence: JSON values for the report.
    """

    scores: Tensor
    removed: Tensor
    rule: str
    per_class: tuple[ClassFinding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cleansed:
    """A cleanser's answer, in the order of the training set.

    Attributes:
        scores: float32 (N,), larger is more suspicious.
        keep: bool (N,), False where a sample should go.
        rule, per_class, evidence: see Scored.
        provenance: method, parameters, seed, cost.
    """

    scores: Tensor
    keep: Tensor
    rule: str
    per_class: tuple[ClassFinding, ...]
    evidence: Mapping[str, Any]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Cleanser(Defense):
    """Scores a training set's samples. A method is a frozen dataclass of hyper-parameters with one hook, ``_score``.

    The base class checks what the defender holds, works on a private copy of the model in eval mode without
    gradients, seeds and times. The training set always comes with its labels, which may be the attacker's.
    """

    @final
    def run(
        self,
        defender: Defender,
        *,
        seed: int = 0,
        budget: float | None = None,
        progress: Progress | None = None,
    ) -> Cleansed:
        """Score ``defender.training_set``; the caller's model, images and random generators are untouched.

        Args:
            defender: what is held; see the card's needs, and what it uses where it is held.
            seed: same seed, same machine, same answer.
            budget: seconds after which the best answer so far is wanted; None for no limit.
            progress: called with (share done, a few words).

        Raises:
            NotHeld: the defender lacks something that the method needs.
            NotApplicable: the method cannot work on this network, or the training set does not fit it.
            ParameterError: ``budget`` is out of its range.
        """
        mine = self._held(defender)
        require_fit(mine, self.card.name)
        with self._running(mine, seed=seed, budget=budget, progress=progress) as (seen, run):
            scored = self._score(seen, run)
        return Cleansed(
            scores=scored.scores.float().cpu(),
            keep=~scored.removed.cpu(),
            rule=scored.rule,
            per_class=scored.per_class,
            evidence=scored.evidence,
            provenance=self._provenance(mine, run, seed, scored.counts),
        )

    @abstractmethod
    def _score(self, defender: Defender, run: Run) -> Scored:
        """Score ``defender.training_set``; ``defender.model`` is a private copy in eval mode without gradients."""


def require_fit(defender: Defender, name: str) -> None:
    """Raise unless there is a training set with labels that the model, where there is one, can take."""
    held, model = defender.training_set, defender.model
    if held is None:
        raise NotHeld(f"{name} works on a training set; its card must declare Needs.TRAINING_SET")
    if held.labels is None or not len(held):
        raise NotHeld(f"{name} needs the training set with its labels; pass Samples(images, labels=...)")
    if model is None:
        return
    if held.shape != model.input_shape:
        raise NotApplicable(
            f"the training set has the shape {held.shape}, the model wants {model.input_shape}; see Samples.fitted_to"
        )
    if int(held.labels.max()) >= model.num_classes:
        raise NotApplicable(
            f"the training set has the label {int(held.labels.max())}, the model knows 0 to {model.num_classes - 1}"
        )
    if defender.clean is not None and defender.clean.shape != model.input_shape:
        raise NotApplicable(f"the clean images have the shape {defender.clean.shape}, not {model.input_shape}")


cleansers: Registry[Cleanser] = Registry("cleanser", "goodnet.cleanse")
