"""Neural Cleanse: is there a label that a small trigger reaches from every image?"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, Trigger, auditors
from goodnet.audit._inversion import Inverter, TriggerBatch, as_triggers, start
from goodnet.audit._outliers import anomaly_index, log_size, separation
from goodnet.audit._paper_schedule import invert_label
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld

_PENALTY = 0.001  # on one pixel of mask, where the dynamic penalty starts
_RANKING_PENALTY = 0.01  # fixed, so that losses of different labels can be compared
_NOT_FOUND = 1e6  # ranks labels without a working trigger behind all others, among themselves by loss
_READINGS = 3  # successive gaps looked for on one scale: small triggers can hide larger ones


@auditors.register(
    Card(
        name="neural-cleanse",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        source="Wang et al., Neural Cleanse, IEEE S&P 2019",
        summary="inverts the smallest trigger of every label and looks for labels whose trigger is too small",
        assumes=("the trigger covers a limited area", "one trigger works on every image"),
        quick={"steps": 12, "images": 8},
    )
)
@dataclass(frozen=True, kw_only=True)
class NeuralCleanse(Auditor):
    """Find the smallest trigger of every label; a label whose trigger is far smaller than all others is a target.

    What it does: for each label optimizes a one-channel mask and a pattern in raw pixel space with Adam, with a weight
    on the mask's size that rises while the trigger works and falls while it does not, and keeps the smallest mask that
    reached the wanted success. Sizes are taken at each grid scale (one value per pixel, as in the paper, and one per
    block of pixels, which sees large smooth triggers such as sunglasses) and averaged in the log domain.
    The score is the widest gap, in log size, between the few smallest labels and the next.

    ``schedule="batched"`` optimizes all labels in one batch and, when there are many, drops the hopeless ones round by
    round. ``"exhaustive"`` is the paper's way, label by label, each step 31 mini-batches; the paper's own settings are
    ``NeuralCleanse(schedule="exhaustive", scales=(1,), steps=1000, images=32, success_wanted=0.99)``.

    Needs: the model with gradients; some dozens of clean images or more, labels not used.
    Limits: sees patch-like triggers best; blended, sinusoidal, warped and sample-specific triggers can escape it, and
    so can a trigger that needs more than the area of the natural features of the other labels.
    Source: Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao, Neural Cleanse, IEEE S&P 2019.
    """

    schedule: Literal["batched", "exhaustive"] = param(
        "batched", choices=("batched", "exhaustive"), doc="all labels at once, or the paper's label by label"
    )
    scales: tuple[int, ...] = param((1, 4), low=1, doc="pixels per side of a grid cell, one pass for each")
    steps: int = param(150, low=1, doc="updates in the last round; of the exhaustive schedule: steps of a label")
    images: int = param(16, low=1, doc="images per update")
    restarts: int = param(1, low=1, doc="fresh starts of every scan; the smallest trigger counts")
    success_wanted: float = param(0.98, low=0.0, high=1.0, doc="share of stamped images that a trigger must turn")
    held_out: float = param(0.33, low=0.05, high=0.9, doc="share of the clean images kept for measuring success")
    finalists: int = param(16, low=2, doc="labels that reach the last round of the batched schedule")
    mixed_precision: bool = param(True, doc="bfloat16 network where the processor has it: twice as fast")

    def _inspect(self, defender: Defender, run: Run) -> Inspection:
        model, clean = defender.model, defender.clean
        assert model is not None  # the base class has checked what the card needs
        assert clean is not None
        if not len(clean):
            raise NotHeld("neural-cleanse needs clean images, and there are none")
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        clean = clean.fitted_to(model.input_shape).shuffled(run.generator, 1000)
        if not predictions(model, clean.images[:64]).isfinite().all():
            nothing = (Reading(score=0.0, suspects=()),)
            return Inspection(readings=nothing, undecided="the model gives answers that are not finite numbers")
        cut = max(1, int(len(clean) * (1 - self.held_out)))
        images = clean.floats(model.device)
        inverter = Inverter(
            model,
            images[:cut],
            run.generator,
            out_of_time=lambda: run.seconds_left() < 0,
            success_wanted=self.success_wanted,
            mixed_precision=self.mixed_precision and _has_bfloat16(model.device),
        )
        passes: list[TriggerBatch] = []
        whole = 0  # passes that came to their end: only there can labels be compared
        for number, cell in enumerate(self.scales):
            tries = [
                self._scan(inverter, cell, (number + again / self.restarts) / len(self.scales), run)
                for again in range(self.restarts)
            ]
            in_time = run.seconds_left() >= 0
            if in_time or not passes:
                passes.append(_smallest(tries))
            if not in_time:
                break
            whole += 1
        return self._conclude(passes, whole, inverter, images[cut:], model.num_classes)

    def _scan(self, inverter: Inverter, cell: int, done: float, run: Run) -> TriggerBatch:
        """Optimize every label, or the most promising when there are many, on one grid scale."""
        classes = inverter.model.num_classes
        labels = torch.arange(classes)
        if self.schedule == "exhaustive":
            parts = []
            for label in range(classes):
                run.progress(done, f"label {label} of {classes}, one after the other")
                parts.append(invert_label(inverter, label, cell, steps=self.steps, images=self.images))
                if run.seconds_left() < 0:
                    break
            return _joined(parts)
        batch, order = self._begin(inverter, labels, cell, run), labels
        for labels_kept, images, steps, adapt in self._plan(classes):
            batch = batch.keep(order[:labels_kept])
            run.progress(done, f"{len(batch)} labels, grid {cell}")
            penalty = _PENALTY if adapt else _RANKING_PENALTY
            losses = inverter.round(batch, steps=steps, images=images, penalty=penalty, adapt=adapt)
            order = torch.where(batch.best_size.isinf(), _NOT_FOUND + losses, batch.best_size).argsort()
            if run.seconds_left() < 0:
                break
        return batch

    def _plan(self, classes: int) -> list[tuple[int, int, int, bool]]:
        """Rounds of (labels, images per update, updates, adapting penalty).

        A few updates rank many labels; the rest goes to those that stay.
        """
        few = max(1, self.images // 2)
        last = (min(classes, self.finalists), self.images, self.steps, True)
        if classes <= self.finalists:
            return [last]
        if classes <= 8 * self.finalists:
            return [(classes, few, max(1, self.steps // 4), True), last]
        return [
            (classes, few, max(1, self.steps // 25), False),
            (classes // 4, few, max(1, self.steps // 12), False),
            (4 * self.finalists, self.images, max(1, self.steps // 4), True),
            last,
        ]

    def _begin(self, inverter: Inverter, labels: Tensor, cell: int, run: Run) -> TriggerBatch:
        """Half-open masks and noisy grey patterns: from there large triggers are found as well as small ones."""
        channels, height, width = inverter.model.input_shape
        device = inverter.images.device
        mask = torch.full((len(labels), 1, height, width), 0.5, device=device)
        noise = torch.randn((len(labels), channels, height, width), generator=run.generator)
        return start(mask, 0.5 + 0.05 * noise.to(device), labels, cell)

    def _conclude(
        self, passes: list[TriggerBatch], whole: int, inverter: Inverter, held_out: Tensor, classes: int
    ) -> Inspection:
        """Sizes on every scale → gaps and suspects → what to show of them."""
        pixels = float(held_out.shape[2] * held_out.shape[3])
        readings = [reading for batch in passes for reading in self._readings(batch, pixels, classes)]
        suspects = dict.fromkeys(label for reading in readings for label in reading.suspects)
        rows = [(batch, batch.labels.tolist()) for batch in passes]
        triggers: list[Trigger] = []
        for label in suspects:
            held = [batch.keep(torch.tensor([labels.index(label)])) for batch, labels in rows if label in labels]
            smallest = min(held, key=lambda one: float(one.best_size))
            share = inverter.success_on(held_out, smallest.best_mask, smallest.best_pattern, smallest.labels)
            triggers += as_triggers(smallest, *share)
        undecided = ""
        if not whole:
            undecided = "the time was up before the labels could be compared; give it more"
        elif not any(bool(batch.best_size.isfinite().any()) for batch in passes):
            undecided = "no label has a trigger that works; give more clean images or steps"
        return Inspection(
            readings=tuple(readings),
            per_class=self._findings(passes, triggers, pixels),
            triggers=tuple(triggers),
            undecided=undecided,
            counts={
                "images": len(inverter.images),
                "held_out_images": len(held_out),
                "labels": classes,
                "labels_followed": len({label for _, labels in rows for label in labels}),
                "rows": inverter.rows_done,
            },
            evidence={"grids_completed": whole},
        )

    def _readings(self, batch: TriggerBatch, pixels: float, classes: int) -> list[Reading]:
        """The widest gap among the smallest sizes, then the widest among those that remain."""
        logs, labels = log_size(batch.best_size, pixels), batch.labels
        readings = []
        for _ in range(_READINGS):
            split = separation(logs, classes)
            if not split.suspects:
                break
            order = logs.argsort()
            chosen, rest = order[: split.suspects], order[split.suspects :]
            own = split.many_label_p_value
            p_value = None if own is None else min(1.0, own * len(self.scales))
            readings.append(
                Reading(score=split.gap, suspects=tuple(labels[chosen].tolist()), many_label_p_value=p_value)
            )
            logs, labels = logs[rest], labels[rest]
        return readings or [Reading(score=0.0, suspects=())]

    def _findings(self, passes: list[TriggerBatch], triggers: list[Trigger], pixels: float) -> tuple[LabelFinding, ...]:
        """One finding per label that was followed to the end, the smallest trigger first."""
        success = {trigger.target: trigger.success_rate for trigger in triggers}
        seen: dict[int, dict[str, float | None]] = {}
        for cell, batch in zip(self.scales, passes, strict=False):
            index = anomaly_index(batch.best_size.clamp(max=pixels))
            for row, label in enumerate(batch.labels.tolist()):
                size = float(batch.best_size[row]) if batch.best_size[row].isfinite() else None
                seen.setdefault(label, {}).update(
                    {f"mask_l1_grid_{cell}": size, f"anomaly_index_grid_{cell}": float(index[row])}
                )
        findings = []
        for label, details in seen.items():
            sizes = [value for name, value in details.items() if name.startswith("mask_l1") and value is not None]
            smallest = min(sizes, default=None)
            indices = [value for name, value in details.items() if name.startswith("anomaly") and value is not None]
            summary = {"mask_l1": smallest, "anomaly_index": max(indices), "success_rate": success.get(label)}
            score = math.log(pixels / max(1.0, smallest)) if smallest is not None else 0.0
            findings.append(LabelFinding(label=label, score=score, details=summary | details))
        return tuple(sorted(findings, key=lambda finding: -finding.score))


def _smallest(tries: list[TriggerBatch]) -> TriggerBatch:
    """For every label that any try followed, the row with the smallest trigger."""
    every = _joined(tries)
    best: dict[int, int] = {}
    for row in every.best_size.argsort(stable=True).tolist():
        best.setdefault(int(every.labels[row]), row)
    return every.keep(torch.tensor([best[label] for label in sorted(best)]))


def _joined(parts: list[TriggerBatch]) -> TriggerBatch:
    return TriggerBatch(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def _has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast here: it is emulated, and slow, on processors without the instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
