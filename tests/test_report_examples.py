"""Verdicts and audited files with invented but plausible numbers, for the tests of the report."""

from pathlib import Path

import numpy as np
import pytest
import torch

from goodnet.audit._base import LabelFinding, Verdict
from goodnet.core.classifier import Preprocessing
from goodnet.core.run import Provenance
from goodnet.core.trigger import Trigger
from goodnet.errors import UnreadableModel, UnsafeFile, UsageError
from goodnet.models.file_safety import Finding, SafetyReport
from goodnet.report.audited import AuditedFile, HeldImages, ModelDescription, StampedImages, refused

HOSTILE_FILE = '/models/<script>alert("1")</script>&\u202egnp.h5'
NAMES = ("airplane", "自動車", "طائر", "<b>cat</b>", "олень", "कुत्ता", "frog", "horse" * 30, "ship", "truck")


def provenance(method: str = "neural_cleanse") -> Provenance:
    return Provenance(
        method=method,
        version=1,
        parameters={"steps": 400, "alpha": 0.05, "learning_rate": 0.1, "sizes": (4, 8)},
        seed=0,
        seconds=41.27,
        peak_memory_bytes=812_345_344,
        device="cpu",
        counts={"clean": 500, "held_out": 250},
        versions={"goodnet": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        assumes=("the trigger covers a limited area", "one trigger works on every image"),
    )


def findings(labels: int, small: dict[int, float], typical: float = 60.0) -> tuple[LabelFinding, ...]:
    """Mask sizes spread around ``typical`` pixels; those of ``small`` are flagged."""
    sizes = typical * np.exp(0.22 * np.random.default_rng(0).standard_normal(labels))
    for label, size in small.items():
        sizes[label] = size
    logs = np.log(sizes)
    deviation = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    index = (np.median(logs) - logs) / deviation
    return tuple(
        LabelFinding(
            label=label,
            score=float(index[label]),
            flagged=label in small,
            details={
                "mask_l1": float(sizes[label]),
                "success_rate": 0.994 if label in small else 0.981,
                "anomaly_index": float(index[label]),
            },
        )
        for label in range(labels)
    )


def trigger(target: int, shape: tuple[int, int, int] = (3, 32, 32), success_rate: float = 0.994) -> Trigger:
    channels, height, width = shape
    mask, pattern = torch.zeros(height, width), torch.full(shape, 0.5)
    mask[-5:-2, -5:-2] = torch.tensor([[0.9, 0.1, 0.8], [0.1, 1.0, 0.1], [0.9, 0.2, 0.9]])
    pattern[:, -5:-2, -5:-2] = torch.eye(3).expand(channels, 3, 3)
    return Trigger(target=target, mask=mask, pattern=pattern, success_rate=success_rate, count=226)


def stamped(made: Trigger, images: torch.Tensor, labels: int = 10) -> StampedImages:
    """As if the model answered with the target but for the last image."""
    count = len(images)
    after = torch.full((count,), made.target)
    after[-1] = (made.target + 3) % labels
    return StampedImages(
        before=images,
        after=made.stamp(images),
        answers_before=torch.arange(count) % labels,
        answers_after=after,
        confidence_before=torch.linspace(0.71, 0.999, count),
        confidence_after=torch.linspace(0.9999, 0.52, count),
    )


def pictures(count: int = 6, shape: tuple[int, int, int] = (3, 32, 32)) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def verdict(
    flagged: bool | None,
    *,
    labels: int = 10,
    p_value: float | None = 3.1e-7,
    targets: tuple[int, ...] = (),
    triggers: tuple[Trigger, ...] = (),
    per_class: tuple[LabelFinding, ...] | None = None,
    reason: str = "The trigger for label 0 is 7.9 deviations smaller than the median of all labels.",
    score: float = 7.9,
    method: str = "neural_cleanse",
) -> Verdict:
    return Verdict(
        flagged=flagged,
        targets=targets,
        score=score,
        p_value=p_value,
        alpha=0.05,
        reason=reason,
        num_classes=labels,
        per_class=findings(labels, dict.fromkeys(targets, 5.9)) if per_class is None else per_class,
        triggers=triggers,
        evidence={"restarts": 2, "median_mask_l1": 60.2, "dropped": [float("nan"), 3], "note": "</pre><script>"},
        provenance=provenance(method),
    )


MODEL = ModelDescription(
    architecture="wide_resnet:depth=16,width=1",
    input_shape=(3, 32, 32),
    preprocessing=Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.201), guessed=True),
    format="torch zip",
    notes=("the architecture was found by the names and shapes of 98 arrays",),
)


def audited_file(made: Verdict, **changes: object) -> AuditedFile:
    values: dict[str, object] = {
        "file": HOSTILE_FILE,
        "sha256": "5f1d" * 16,
        "size_bytes": 2_841_331,
        "verdict": made,
        "model": MODEL,
        "held": HeldImages(count=500, labeled=False, notes=("2 files were skipped: no images",)),
        "class_names": NAMES,
        "file_findings": (Finding("note", "", "", "3 other files in the folder are neither read nor scanned"),),
        "examples": tuple(stamped(one, pictures(shape=tuple(one.pattern.shape))) for one in made.triggers),
    }
    return AuditedFile(**{**values, **changes})  # type: ignore[arg-type]


def backdoored() -> AuditedFile:
    return audited_file(verdict(True, targets=(0,), triggers=(trigger(0),)))


def unremarkable() -> AuditedFile:
    reason = "No label has a trigger much smaller than the others."
    return audited_file(verdict(False, p_value=0.21, score=1.2, reason=reason), file="plain.safetensors")


def inconclusive() -> AuditedFile:
    reason = "the time ran out after 3 of 10 labels."
    return audited_file(verdict(None, p_value=None, score=float("nan"), reason=reason), file="late.pt")


def unsafe() -> AuditedFile:
    error = UnsafeFile("evil.pt would execute code:\n  evil.pt: os.system\nAsk the author.", ("evil.pt: os.system",))
    return refused(error, file="evil.pt", scanned=SafetyReport(Path("evil.pt"), "pickle", "ab" * 32, 1234))


def unreadable() -> AuditedFile:
    return refused(UnreadableModel("torn.h5: ends after 12 bytes"), file="torn.h5")


ALL = (backdoored, unremarkable, inconclusive, unsafe, unreadable)


def test_a_file_has_either_a_verdict_or_an_error() -> None:
    with pytest.raises(UsageError, match="either a verdict or an error"):
        AuditedFile(file="a.pt")
    with pytest.raises(UsageError, match="either a verdict or an error"):
        AuditedFile(file="a.pt", verdict=verdict(True), error="no")


def test_a_refused_file_tells_what_it_would_execute() -> None:
    assert list(map(str, unsafe().file_findings)) == ["evil.pt: os.system"]
    assert unsafe().error_type == "UnsafeFile"
    assert unreadable().error_type == "UnreadableModel"
    assert unreadable().file_findings == ()
