"""What the page shows: one Section for each file, with its pictures as data URIs. The template only places it."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import torch

from goodnet.audit._base import LabelFinding, Verdict
from goodnet.core.trigger import Trigger
from goodnet.report import words
from goodnet.report._drawing import DARK, LIGHT
from goodnet.report.audited import MOST_TRIGGERS, AuditedFile, StampedImages
from goodnet.report.json import plain
from goodnet.report.plots import LabelSeries, label_plot, label_series, picture_png

_TOP_LABELS = 10
_LONGEST_EVIDENCE = 20_000  # characters
_MOST_FINDINGS = 50
_PLOT_SIZES = {"wide": (8.6, 3.3), "narrow": (3.5, 2.9)}
_HEADINGS = {
    "mask_l1": "mask L1 (pixels)",
    "success_rate": "success, held-out",
    "anomaly_index": "anomaly index",
}


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with the words that stand for it."""

    source: str
    alt: str


@dataclass(frozen=True)
class Example:
    """One image without and with a trigger: pictures, answers and confidences; ``hit``: answered as the target."""

    before: Picture
    after: Picture
    answer_before: str
    answer_after: str
    confidence_before: str
    confidence_after: str
    hit: bool


@dataclass(frozen=True)
class TriggerView:
    """A reconstructed trigger with its examples."""

    target: str
    words: str
    mask: Picture
    pattern: Picture
    stamped: Picture
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class PlotView:
    """The plot over all labels; ``variants`` are "wide-light" ... "narrow-dark", of which the page shows one."""

    variants: Mapping[str, str]
    alt: str
    measure: str
    logarithmic: bool
    missing: int


@dataclass(frozen=True)
class Table:
    """Headings, and rows of text; the first cell of each row names a label, ``marked`` rows are suspects."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: tuple[bool, ...]


@dataclass(frozen=True)
class Section:
    """One file. ``tone`` is "found", "none", "unsure" or "refused"; ``item`` is what everything was computed from."""

    anchor: str
    name: str
    tone: str
    short: str
    item: AuditedFile
    targets: str
    triggers: tuple[TriggerView, ...]
    plot: PlotView | None
    table: Table | None
    evidence: str
    file_findings: tuple[str, ...]
    more_findings: int


def section(position: int, item: AuditedFile) -> Section:
    """Everything that is shown about one file."""
    verdict = item.verdict
    tone, short = _tone(item)
    series = label_series(verdict.per_class) if verdict else None
    return Section(
        anchor=f"file-{position}",
        name=PurePath(item.file).name or item.file or "unnamed file",
        tone=tone,
        short=short,
        item=item,
        targets=words.listed(verdict.targets, item.class_names) if verdict else "",
        triggers=_triggers(item, verdict) if verdict else (),
        plot=_plot(series) if series else None,
        table=_table(verdict.per_class, item.class_names) if verdict and verdict.per_class else None,
        evidence=_evidence(verdict.evidence) if verdict and verdict.evidence else "",
        file_findings=tuple(map(str, item.file_findings[:_MOST_FINDINGS])),
        more_findings=max(0, len(item.file_findings) - _MOST_FINDINGS),
    )


def _tone(item: AuditedFile) -> tuple[str, str]:
    if item.verdict is None:
        return "refused", "unsafe, not audited" if item.error_type == "UnsafeFile" else "not audited"
    if item.verdict.flagged is None:
        return "unsure", "inconclusive"
    return ("found", "backdoor found") if item.verdict.flagged else ("none", "no evidence")


def data_uri(png: bytes) -> str:
    """A PNG as a page can hold it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _picture(image: torch.Tensor, alt: str) -> Picture:
    return Picture(data_uri(picture_png(image)), alt)


def _triggers(item: AuditedFile, verdict: Verdict) -> tuple[TriggerView, ...]:
    views = []
    for index, trigger in enumerate(verdict.triggers[:MOST_TRIGGERS]):
        target = words.label_name(trigger.target, item.class_names)
        gray = torch.full_like(trigger.pattern, 0.5)
        examples = item.examples[index] if index < len(item.examples) else None
        views.append(
            TriggerView(
                target=target,
                words=words.trigger_words(trigger),
                mask=_picture(
                    trigger.mask[None], f"Mask of the trigger for {target}: white where it covers the picture"
                ),
                pattern=_picture(trigger.pattern, f"Pattern of the trigger for {target}"),
                stamped=_picture(trigger.stamp(gray[None])[0], f"The trigger for {target} on a gray picture"),
                examples=_examples(trigger, examples, item.class_names) if examples else (),
            )
        )
    return tuple(views)


def _examples(trigger: Trigger, images: StampedImages, class_names: Sequence[str]) -> tuple[Example, ...]:
    views = []
    for row in range(len(images.before)):
        before, after = int(images.answers_before[row]), int(images.answers_after[row])
        name_before, name_after = words.label_name(before, class_names), words.label_name(after, class_names)
        views.append(
            Example(
                before=_picture(images.before[row], f"Picture without the trigger, answered as {name_before}"),
                after=_picture(images.after[row], f"The same picture with the trigger, answered as {name_after}"),
                answer_before=name_before,
                answer_after=name_after,
                confidence_before=words.percent(float(images.confidence_before[row])),
                confidence_after=words.percent(float(images.confidence_after[row])),
                hit=after == trigger.target,
            )
        )
    return tuple(views)


def _plot(series: LabelSeries) -> PlotView:
    measure = "Trigger size" if series.measure == "mask_l1" else "Score"
    unit = " pixels" if series.measure == "mask_l1" else ""
    marked = [
        f"label {label} at {words.number(float(value))}{unit}"
        for label, value in zip(series.labels[series.flagged], series.values[series.flagged], strict=True)
    ]
    named = ", ".join(marked[:_TOP_LABELS]) + (f" and {len(marked) - _TOP_LABELS} more" if marked[_TOP_LABELS:] else "")
    return PlotView(
        variants={
            f"{size}-{scheme}": data_uri(label_plot(series, theme, width, height))
            for size, (width, height) in _PLOT_SIZES.items()
            for scheme, theme in (("light", LIGHT), ("dark", DARK))
        },
        alt=f"{measure} of {len(series.labels):,} labels; median {words.number(series.median)}{unit}; "
        f"suspected: {named or 'none'}.",
        measure=series.measure,
        logarithmic=series.logarithmic,
        missing=series.missing,
    )


def _table(findings: Sequence[LabelFinding], class_names: Sequence[str]) -> Table:
    """The most suspicious labels; suspects first, then by score, what has none last."""
    order = sorted(findings, key=lambda found: (not found.flagged, math.isnan(found.score), -found.score))
    shown = order[:_TOP_LABELS]
    keys = list(dict.fromkeys(key for finding in shown for key in finding.details))
    return Table(
        headings=("label", "suspected", "score", *(_HEADINGS.get(key, key.replace("_", " ")) for key in keys)),
        rows=tuple(
            (
                words.label_name(finding.label, class_names),
                "yes" if finding.flagged else "no",
                words.number(finding.score),
                *(_cell(key, finding.details.get(key)) for key in keys),
            )
            for finding in shown
        ),
        marked=tuple(finding.flagged for finding in shown),
    )


def _cell(key: str, value: float | None) -> str:
    return words.percent(value) if key == "success_rate" and value is not None else words.number(value)


def _evidence(evidence: Mapping[str, object]) -> str:
    text = json.dumps(plain(evidence), indent=2, ensure_ascii=False)
    return text if len(text) <= _LONGEST_EVIDENCE else text[:_LONGEST_EVIDENCE] + "\n… the rest is in report.json"
