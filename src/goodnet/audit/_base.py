"""The auditor contract: what a defender holds goes in, a Verdict comes out, nothing else is touched."""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, final

from torch import Tensor

from goodnet.core.defender import Defender
from goodnet.core.params import check_ranges
from goodnet.core.registry import Card, Registry
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress, Provenance, Run, library_versions, peak_memory_bytes


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
class Trigger:
    """A reconstructed trigger: stamped = (1 - mask) * image + mask * pattern.

    Attributes:
        target: the label that stamped images are given.
        mask: float32 (H, W) in [0, 1].
        pattern: float32 (C, H, W) in [0, 1].
        success_rate: share of held-out images, not already answered as the target, that the trigger sends to it.
        count: how many held-out images that share is of.
    """

    target: int
    mask: Tensor
    pattern: Tensor
    success_rate: float
    count: int

    def stamp(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] with the trigger on them."""
        return images + self.mask * (self.pattern - images)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a method's hook returns; the base class turns it into a Verdict.

    Attributes:
        score: the model's, larger is more suspicious.
        suspects: the labels that are targets if the model is backdoored, most suspicious first.
        per_class: one finding per label that was looked at.
        triggers: reconstructed triggers of the suspects.
        undecided: why this run cannot decide whatever its score (out of time, no trigger found), or "".
        counts: how many images, labels, restarts ... were used.
        evidence: JSON values for the report.
    """

    score: float
    suspects: tuple[int, ...] = ()
    per_class: tuple[LabelFinding, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    undecided: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


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
