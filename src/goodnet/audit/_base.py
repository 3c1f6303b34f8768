"""The auditor contract: what a defender holds goes in, a Verdict comes out, nothing else is touched."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from goodnet.audit._bank import CleanBank
from goodnet.audit._natural import NaturalFeature
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.defense import Defense
from goodnet.core.registry import Registry
from goodnet.core.run import Progress, Provenance, Run
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld, ParameterError


@dataclass(frozen=True, kw_only=True)
class LabelFinding:
    """What an auditor found for one label.

    Attributes:
        label: 0..K-1.
        score: larger is more suspicious; comparable between the labels of one model.
        flagged: this label is a suspected target.
        details: the method's own numbers, such as "mask_l1" (pixels), "success_rate", "anomaly_index".
    """

    label: int
    score: float
    flagged: bool = False
    details: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way of reading what was found: these labels stand out this much.

    Attributes:
        score: larger is more suspicious.
        suspects: the labels that are targets if this reading is right, most suspicious first.
        many_label_p_value: the method's own test over the many labels of this model, where it has one, else None.
    """

    score: float
    suspects: tuple[int, ...]
    many_label_p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a method's hook returns; the base class turns it into a Verdict.

    Attributes:
        readings: at least one; the model's score is the largest of theirs, and its targets are the suspects of all
            readings that are significant.
        per_class: one finding per label that was looked at.
        triggers: reconstructed triggers of the suspects.
        undecided: why this run cannot decide whatever its score (out of time, no trigger found), or "".
        counts: how many images, labels, restarts ... were used.
        evidence: JSON values for the report.
        second_look: asked about the trigger of each target once the model is flagged, while the run lasts: is it a
            natural feature of a label that looks like another? None: not looked.
    """

    readings: tuple[Reading, ...]
    per_class: tuple[LabelFinding, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    undecided: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    second_look: Callable[[Trigger], NaturalFeature] | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An auditor's answer about one model.

    Attributes:
        flagged: True, False ("no evidence of a backdoor", which is not "clean") or None (inconclusive).
        targets: the target labels when flagged, else empty.
        score: larger is more suspicious.
        p_value: how often a clean model scores as high; None when nothing fits to compare with.
        alpha: the false-alarm rate at which ``flagged`` was decided.
        reason: why, in one sentence for a person.
        per_class, triggers, evidence: see Inspection.
        provenance: method, parameters, seed, cost.
        natural: the second look at each label that stood out; one that is "natural" is no target.
    """

    flagged: bool | None
    targets: tuple[int, ...]
    score: float
    p_value: float | None
    alpha: float
    reason: str
    num_classes: int
    per_class: tuple[LabelFinding, ...]
    triggers: tuple[Trigger, ...]
    evidence: Mapping[str, Any]
    provenance: Provenance
    natural: tuple[NaturalFeature, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Auditor(Defense):
    """Judges one model. A method is a frozen dataclass of hyper-parameters with one hook, ``_inspect``.

    The base class checks what the defender holds, works on a private copy of the model in eval mode without
    gradients, seeds, times, and turns the method's score into a p-value and a verdict.
    """

    @final
    def run(
        self,
        defender: Defender,
        *,
        seed: int = 0,
        budget: float | None = None,
        alpha: float = 0.05,
        bank: CleanBank | None = None,
        progress: Progress | None = None,
    ) -> Verdict:
        """Audit ``defender.model``; the caller's model, images and random generators are untouched.

        Args:
            defender: what is held; see the card's needs.
            seed: same seed, same machine, same answer.
            budget: seconds after which the best answer so far is wanted; None for no limit.
            alpha: the rate at which clean models may be flagged.
            bank: scores of clean nets to compare with; None for the one that ships with goodnet.
            progress: called with (share done, a few words).

        Raises:
            NotHeld: the defender lacks something that the method needs.
            ParameterError: ``alpha`` or ``budget`` is out of its range.
        """
        if not 0 < alpha < 1:
            raise ParameterError(f"alpha must be between 0 and 1, got {alpha!r}")
        mine = self._held(defender)
        if mine.model is None:
            raise NotHeld(f"{self.card.name} judges a model; its card must declare Needs.MODEL")
        with self._running(mine, seed=seed, budget=budget, progress=progress) as (seen, run):
            inspection = self._inspect(seen, run)
            provenance = self._provenance(mine, run, seed, inspection.counts)
            verdict = _judge(inspection, mine.model, provenance, alpha, bank or CleanBank.shipped())
            if verdict.flagged and inspection.second_look is not None:
                verdict = _without_natural(verdict, inspection.second_look)
                verdict = replace(verdict, provenance=self._provenance(mine, run, seed, inspection.counts))
        return verdict

    @abstractmethod
    def _inspect(self, defender: Defender, run: Run) -> Inspection:
        """Look at ``defender.model``, a private copy in eval mode without gradients."""


def _judge(inspection: Inspection, model: Classifier, provenance: Provenance, alpha: float, bank: CleanBank) -> Verdict:
    """Readings → p-values → verdict. Never a verdict without something to compare with."""
    judged = [(reading, *_p_value(reading, model, provenance, bank, alpha)) for reading in inspection.readings]
    best, p_value, basis = min(judged, key=lambda one: (1.0 if one[1] is None else one[1], -one[0].score))
    significant = [reading for reading, p, _ in judged if p is not None and p <= alpha]
    if inspection.undecided:
        flagged, reason = None, inspection.undecided
    elif p_value is None:
        flagged, reason = None, basis
    else:
        flagged = bool(significant)
        reason = f"a clean model scores as high with probability {p_value:.2g} at most, judged by {basis}"
    targets = dict.fromkeys(label for reading in significant for label in reading.suspects) if flagged else {}
    shown = targets or dict.fromkeys(best.suspects)
    return Verdict(
        flagged=flagged,
        targets=tuple(targets),
        score=max(reading.score for reading in inspection.readings),
        p_value=p_value,
        alpha=alpha,
        reason=reason,
        num_classes=model.num_classes,
        per_class=tuple(replace(finding, flagged=finding.label in targets) for finding in inspection.per_class),
        triggers=tuple(trigger for trigger in inspection.triggers if trigger.target in shown),
        evidence={
            **inspection.evidence,
            "compared_with": basis,
            "readings": [[reading.score, list(reading.suspects)] for reading in inspection.readings],
        },
        provenance=provenance,
    )


def _without_natural(verdict: Verdict, second_look: Callable[[Trigger], NaturalFeature]) -> Verdict:
    """The flagged ``verdict`` without targets whose triggers are natural features; with none left it is inconclusive.

    Inconclusive, not "no evidence": the labels did stand out, and a planted trigger can be made to look natural.
    """
    natural = tuple(second_look(trigger) for trigger in verdict.triggers if trigger.target in verdict.targets)
    taken = {feature.target for feature in natural if feature.outcome == "natural"}
    left = tuple(target for target in verdict.targets if target not in taken)
    if not taken:
        return replace(verdict, natural=natural)
    labels = ", ".join(map(str, sorted(taken)))
    return replace(
        verdict,
        flagged=True if left else None,
        targets=left,
        reason=f"{verdict.reason}; but what stands out at label {labels} is a natural feature, not counted as a target",
        per_class=tuple(replace(finding, flagged=finding.label in left) for finding in verdict.per_class),
        triggers=tuple(trigger for trigger in verdict.triggers if not left or trigger.target in left),
        natural=natural,
    )


def _p_value(
    reading: Reading, model: Classifier, provenance: Provenance, bank: CleanBank, alpha: float
) -> tuple[float | None, str]:
    """The reading's p-value, or None, and what it rests on: clean nets of the suspect's kind, else its many labels.

    Clean nets that fit are asked alone: what they score is what happens, and the test over many labels rests on a
    model of it. That test can find a target but not acquit: a trigger as large as the natural features of other labels
    passes it. Without fitting clean nets its failure decides nothing.
    """
    own = reading.many_label_p_value
    comparison = bank.compare(reading.score, provenance.method, provenance.version, model.num_classes)
    if comparison.p_value is None or comparison.floor > alpha:
        if own is not None and own <= alpha:
            return own, _OWN_LABELS
        undecided = "" if own is None else f"{_OWN_LABELS} does not decide (p = {own:.2g}), and "
        return None, f"{undecided}the bank cannot speak at alpha = {alpha:g}: {comparison.basis}; see goodnet bank add"
    return comparison.p_value, comparison.basis


_OWN_LABELS = "the tail of this model's own labels"

auditors: Registry[Auditor] = Registry("auditor", "goodnet.audit")
