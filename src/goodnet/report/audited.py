"""What a report is written from: one AuditedFile for each model file; plain data, so no network is kept alive."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goodnet.audit._base import Verdict
from goodnet.core.classifier import Classifier, Preprocessing, predictions
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import GoodnetError, UnsafeFile, UsageError
from goodnet.models.file_safety import Finding, SafetyReport

EXAMPLES = 6
MOST_TRIGGERS = 8  # shown; a page with hundreds of them is read by nobody
_CANDIDATES = 256  # images among which the examples are chosen


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What network was audited, and what was assumed about it.

    Attributes:
        architecture: name in ``goodnet.models.architectures``, or "" for a graph that the file held.
        input_shape: (C, H, W).
        preprocessing: from images in [0, 1] to what the network sees; may be guessed.
        format: of the file.
        notes: how the architecture was found, and what else had to be guessed.
    """

    architecture: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    format: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Classifier) -> "ModelDescription":
        return cls(
            architecture=model.architecture,
            input_shape=model.input_shape,
            preprocessing=model.preprocessing,
            format=model.origin.format,
            notes=model.origin.notes,
        )


@dataclass(frozen=True, kw_only=True)
class HeldImages:
    """The images that the auditor could use: how many, whether with labels, and what their loader noted."""

    count: int
    labeled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StampedImages:
    """Images without and with one trigger, and the model's answers.

    Attributes:
        before, after: float32 (n, C, H, W) in [0, 1].
        answers_before, answers_after: int64 (n,).
        confidence_before, confidence_after: float32 (n,), the largest softmax output.
    """

    before: Tensor
    after: Tensor
    answers_before: Tensor
    answers_after: Tensor
    confidence_before: Tensor
    confidence_after: Tensor


@dataclass(frozen=True, kw_only=True)
class AuditedFile:
    """One model file and what is known about it: a verdict, or the reason why there is none.

    Attributes:
        file: as it was given.
        sha256: in hex; "" when the file could not be read.
        size_bytes: of the file, or None.
        verdict: None for a file that was refused.
        error, error_type: why it was refused, and which class of ``goodnet.errors`` said so; else "".
        model, held: None when not known.
        class_names: name of label 0, 1, ...; empty when not known.
        file_findings: what ``goodnet.models.file_safety`` says about the file.
        examples: one for each of the verdict's first ``MOST_TRIGGERS`` triggers, in their order; empty without images.
    """

    file: str
    sha256: str = ""
    size_bytes: int | None = None
    verdict: Verdict | None = None
    error: str = ""
    error_type: str = ""
    model: ModelDescription | None = None
    held: HeldImages | None = None
    class_names: tuple[str, ...] = ()
    file_findings: tuple[Finding, ...] = ()
    examples: tuple[StampedImages, ...] = ()

    def __post_init__(self) -> None:
        if (self.verdict is None) == (not self.error):
            raise UsageError(f"{self.file}: an audited file has either a verdict or an error")


def audited(
    verdict: Verdict,
    model: Classifier,
    samples: Samples | None = None,
    *,
    scanned: SafetyReport | None = None,
) -> AuditedFile:
    """A file with a verdict; stamps the triggers on some of the samples and asks the model.

    Args:
        verdict: what an auditor said about the model.
        model: as it was audited.
        samples: the images that the auditor held; without them the report shows no examples.
        scanned: what the scan said about the file that was given. Without it file and sha256 are those of the model's
            origin, which for a folder of ``save_model`` is the file that the network first came from, if any.
    """
    held: HeldImages | None = None
    examples: tuple[StampedImages, ...] = ()
    class_names = model.class_names
    if samples is not None:
        held = HeldImages(count=len(samples), labeled=samples.labels is not None, notes=samples.notes)
        shown = verdict.triggers[:MOST_TRIGGERS] if len(samples) else ()
        examples = tuple(stamped_images(model, trigger, samples) for trigger in shown)
        if not class_names and len(samples.class_names) == model.num_classes:
            class_names = samples.class_names  # of other pictures' classes the names would be wrong
    return AuditedFile(
        file=model.origin.file if scanned is None else str(scanned.file),
        sha256=model.origin.sha256 if scanned is None else scanned.sha256,
        size_bytes=None if scanned is None else scanned.size_bytes,
        verdict=verdict,
        model=ModelDescription.of(model),
        held=held,
        class_names=class_names,
        file_findings=() if scanned is None else scanned.findings,
        examples=examples,
    )


def refused(error: GoodnetError, *, file: str, scanned: SafetyReport | None = None) -> AuditedFile:
    """A file that was not audited: it would execute something, or cannot be read as a model."""
    findings = () if scanned is None else scanned.findings
    if isinstance(error, UnsafeFile):
        findings = findings or tuple(Finding("executes", "", "", line) for line in error.findings)
    return AuditedFile(
        file=file,
        sha256="" if scanned is None else scanned.sha256,
        size_bytes=None if scanned is None else scanned.size_bytes,
        error=str(error) or type(error).__name__,
        error_type=type(error).__name__,
        file_findings=findings,
    )


def stamped_images(model: Classifier, trigger: Trigger, samples: Samples, count: int = EXAMPLES) -> StampedImages:
    """A few images without and with the trigger, and the model's answers.

    They are chosen by the answers without the trigger only: first images that are not answered as the target, as many
    different answers as there are. So nobody picks those on which the trigger works.
    """
    few = samples.pick(torch.arange(min(_CANDIDATES, len(samples)))).fitted_to(model.input_shape)
    answers: list[int] = predictions(model, few.images).argmax(1).tolist()
    seen: Counter[int] = Counter()
    ranks = []
    for position, answer in enumerate(answers):
        ranks.append((answer == trigger.target, seen[answer], position))
        seen[answer] += 1
    before = few.images[[position for _, _, position in sorted(ranks)[:count]]].float() / 255
    on_cpu = replace(trigger, mask=trigger.mask.cpu(), pattern=trigger.pattern.cpu())
    after = on_cpu.stamp(before).clamp(0, 1)
    confidence_before, answers_before = predictions(model, before).softmax(1).max(1)
    confidence_after, answers_after = predictions(model, after).softmax(1).max(1)
    return StampedImages(
        before=before,
        after=after,
        answers_before=answers_before,
        answers_after=answers_after,
        confidence_before=confidence_before,
        confidence_after=confidence_after,
    )
