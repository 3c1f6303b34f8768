"""Neural Cleanse: is there a label that a small trigger reaches from every image?"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, auditors
from goodnet.audit._folded import folded
from goodnet.audit._inversion import Inverter, TriggerBatch, as_triggers, start
from goodnet.audit._many_labels import loss_view, patch_views, together
from goodnet.audit._natural import natural_feature
from goodnet.audit._outliers import anomaly_index, log_size, separation
from goodnet.audit._paper_schedule import invert_label
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld

_PENALTY = 0.001  # on one pixel of mask, where the dynamic penalty starts
_RANKING_PENALTY = 25.0  # on the share of the image that a mask covers; fixed, so that losses can be compared
_MANY = 8  # times the finalists: more labels than these are compared in several views, and not by mask size
_RANKED = 6  # times the finalists: so many of very many labels are followed beyond the first few updates
_TEST_IMAGES = 64  # held-out images on which the losses of very many labels are compared
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

    ``schedule="batched"`` optimizes all labels in one batch. When there are many, some natural label always stands out
    in size; so these are compared in several views together: the optimum of the loss with a fixed weight on the size,
    on each grid, and how often random solid patches lead to them. The score is then the widest gap in the sum, in units
    of the tails' own scale. Only the finalists' masks are made as small as they get. ``"exhaustive"`` is the paper's
    way, label by label, each step 31 mini-batches; the paper's own settings are
    ``NeuralCleanse(schedule="exhaustive", scales=(1,), steps=1000, images=32, success_wanted=0.99)``.

    ``natural_veto=True`` looks again at each target (EX-RAY): one whose trigger does to an inner layer what the images
    of a look-alike label do is dropped. It takes some seconds a target and drops true targets too, so it is off.

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
    natural_veto: bool = param(
        False, doc="drop targets whose trigger is a natural feature; it can drop true ones, see docs/audit.md"
    )
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
            folded(model),
            images[:cut],
            run.generator,
            out_of_time=lambda: run.seconds_left() < 0,
            success_wanted=self.success_wanted,
            mixed_precision=self.mixed_precision and _has_bfloat16(model.device),
        )
        inspection = self._compared(inverter, images[cut:], run)
        if not self.natural_veto:
            return inspection
        return replace(
            inspection, second_look=lambda trigger: natural_feature(model, images, trigger, run.seconds_left)
        )

    def _compared(self, inverter: Inverter, held_out: Tensor, run: Run) -> Inspection:
        """Triggers of all labels and what they say; what is shown of them works on ``held_out`` images."""
        model = inverter.model
        if self.schedule == "batched" and model.num_classes > _MANY * self.finalists:
            return self._contest(inverter, held_out, run)
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
        pixels = float(held_out.shape[2] * held_out.shape[3])
        readings = [
            reading
            for batch in passes
            for reading in _gaps(batch.labels, log_size(batch.best_size, pixels), model.num_classes, len(self.scales))
        ]
        return self._conclude(passes, readings, whole > 0, inverter, held_out)

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
        run.progress(done, f"{classes} labels, grid {cell}")
        batch = self._begin(inverter, labels, cell, run, opening=0.5)
        if classes > self.finalists:  # a few updates rank the labels; the rest goes to those that stay
            steps, images = max(1, self.steps // 4), max(1, self.images // 2)
            losses = inverter.round(batch, steps=steps, images=images, penalty=_PENALTY, adapt=True)
            if run.seconds_left() < 0:
                return batch
            order = torch.where(batch.best_size.isinf(), _NOT_FOUND + losses, batch.best_size).argsort()
            batch = batch.keep(order[: self.finalists])
        inverter.round(batch, steps=self.steps, images=self.images, penalty=_PENALTY, adapt=True)
        return batch

    def _contest(self, inverter: Inverter, held_out: Tensor, run: Run) -> Inspection:
        """Very many labels: several views of them, their sum, and small masks for those that it puts first."""
        classes, parts = inverter.model.num_classes, 2 * len(self.scales) + 1
        run.progress(0.0, f"{classes} labels under random patches")
        views, batches = [*patch_views(inverter, run.generator)], []
        for number, cell in enumerate(self.scales):
            run.progress((2 * number + 1) / parts, f"{classes} labels, grid {cell}")
            batches.append(self._ranked(inverter, cell, views[0].first(2 * self.finalists), run))
            penalty = _RANKING_PENALTY / held_out[0, 0].numel()
            views.append(loss_view(f"grid {cell}", inverter, batches[-1], held_out[:_TEST_IMAGES], penalty))
        in_time = run.seconds_left() >= 0
        total = together(views, classes)
        first = total.argsort(descending=True)[: self.finalists]
        shown = first[: self.finalists // 2]
        for number, batch in enumerate(batches):
            run.progress((2 * number + 2) / parts, f"{len(shown)} labels, grid {self.scales[number]}")
            batches[number] = batch.keep(torch.isin(batch.labels.cpu(), shown).nonzero()[:, 0])
            inverter.round(batches[number], steps=self.steps, images=self.images, penalty=_PENALTY, adapt=True)
        readings = _gaps(first, -total[first], classes, _READINGS)
        inspection = self._conclude(batches, readings, in_time, inverter, held_out)
        excess = {view.name: view.excess(classes)[first].tolist() for view in views}
        return replace(inspection, evidence={**inspection.evidence, "labels": first.tolist(), "excess": excess})

    def _ranked(self, inverter: Inverter, cell: int, known: Tensor, run: Run) -> TriggerBatch:
        """Triggers at a fixed weight on their size, of ``known`` labels and of those that a few updates like best."""
        penalty = _RANKING_PENALTY / (inverter.images.shape[2] * inverter.images.shape[3])
        opening = 0.05 if cell == 1 else 0.5  # single pixels start closed: a fixed weight has no time to close them
        tries = []
        for _ in range(self.restarts):
            labels = torch.arange(inverter.model.num_classes)
            batch = self._begin(inverter, labels, cell, run, opening)
            steps, images = max(1, self.steps // 25), max(1, self.images // 2)
            losses = inverter.round(batch, steps=steps, images=images, penalty=penalty, adapt=False)
            losses[known] = 0.0  # a few updates on a few images are a lottery for triggers that must be large
            batch = batch.keep(losses.argsort()[: _RANKED * self.finalists])
            steps = max(1, self.steps // 6)
            inverter.round(batch, steps=steps, images=self.images, penalty=penalty, adapt=False)
            tries.append(batch)
        return tries[0] if len(tries) == 1 else _joined(tries)

    def _begin(self, inverter: Inverter, labels: Tensor, cell: int, run: Run, opening: float) -> TriggerBatch:
        """Masks all over the image and noisy grey patterns: from there large triggers are found as well as small."""
        channels, height, width = inverter.model.input_shape
        device = inverter.images.device
        mask = torch.full((len(labels), 1, height, width), opening, device=device)
        noise = torch.randn((len(labels), channels, height, width), generator=run.generator)
        return start(mask, 0.5 + 0.05 * noise.to(device), labels, cell)

    def _conclude(
        self,
        passes: list[TriggerBatch],
        readings: list[Reading],
        in_time: bool,
        inverter: Inverter,
        held_out: Tensor,
    ) -> Inspection:
        """What is shown of the suspects of all readings."""
        pixels = float(held_out.shape[2] * held_out.shape[3])
        suspects = dict.fromkeys(label for reading in readings for label in reading.suspects)
        rows = [(batch, batch.labels.tolist()) for batch in passes]
        triggers: list[Trigger] = []
        for label in suspects:
            held = [
                batch.keep(torch.tensor([row]))
                for batch, labels in rows
                for row, own in enumerate(labels)
                if own == label
            ]
            if not held:
                continue
            smallest = min(held, key=lambda one: float(one.best_size))
            share = inverter.success_on(held_out, smallest.best_mask, smallest.best_pattern, smallest.labels)
            triggers += as_triggers(smallest, *share)
        undecided = ""
        if not in_time:
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
                "labels": inverter.model.num_classes,
                "labels_followed": len({label for _, labels in rows for label in labels}),
                "rows": inverter.rows_done,
            },
            evidence={"grids_completed": len(passes)},
        )

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


def _gaps(labels: Tensor, logs: Tensor, classes: int, tried: int) -> list[Reading]:
    """The widest gap among the smallest ``logs``, then the widest among those that remain.

    ``classes``: how many labels these are the smallest of, for the test over many labels; ``tried``: how often that is
    made on one model.
    """
    readings = []
    for _ in range(_READINGS):
        split = separation(logs, classes)
        if not split.suspects:
            break
        order = logs.argsort()
        chosen, rest = order[: split.suspects], order[split.suspects :]
        own = split.many_label_p_value
        p_value = None if own is None else min(1.0, own * tried)
        readings.append(Reading(score=split.gap, suspects=tuple(labels[chosen].tolist()), many_label_p_value=p_value))
        logs, labels = logs[rest], labels[rest]
    return readings or [Reading(score=0.0, suspects=())]


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
