"""Trigger inversion for many labels at once: one batch holds (labels x images) rows.

The problem is Neural Cleanse's (Wang et al., S&P 2019): for each label find the smallest one-channel mask and a
pattern, in raw pixel space, such that (1 - mask) * image + mask * pattern is answered as that label.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.trigger import Trigger

_BETAS = (0.5, 0.9)  # Adam, as in the paper's code
_EPSILON = 1e-8


@dataclass
class TriggerBatch:
    """The triggers under optimization, one per row; L rows, each with its label.

    Attributes:
        labels: int64 (L,), the label that each row's trigger aims at.
        mask, pattern: float32 (L, 1, h, w) and (L, C, h, w), before the sigmoid; (h, w) is the grid.
        penalty: float32 (L,), the weight of the mask's size in the loss.
        success: float32 (L,), running share of stamped images answered as the label.
        best_size: float32 (L,), the smallest mask in pixels that reached the wanted success; inf: none did.
        best_mask, best_pattern: float32 (L, 1, H, W) and (L, C, H, W) in [0, 1] of that moment.
        mask_mean, mask_square, pattern_mean, pattern_square: Adam's moments.
    """

    labels: Tensor
    mask: Tensor
    pattern: Tensor
    penalty: Tensor
    success: Tensor
    best_size: Tensor
    best_mask: Tensor
    best_pattern: Tensor
    mask_mean: Tensor
    mask_square: Tensor
    pattern_mean: Tensor
    pattern_square: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, rows: Tensor) -> "TriggerBatch":
        """Only these rows."""
        return TriggerBatch(*(getattr(self, field.name)[rows] for field in fields(self)))


def start(mask: Tensor, pattern: Tensor, labels: Tensor, cell: int) -> TriggerBatch:
    """A batch that begins at these masks and patterns, in [0, 1] at full size (L, 1, H, W) and (L, C, H, W).

    ``cell``: pixels per grid point and side; 1 gives every pixel its own mask and pattern value, as in the paper.
    """
    full = mask.shape[2:]
    grid = (-(-full[0] // cell), -(-full[1] // cell))
    small_mask, small_pattern = (
        value if cell == 1 else F.interpolate(value, grid, mode="area") for value in (mask, pattern)
    )
    mask_logits, pattern_logits = small_mask.clamp(0.02, 0.98).logit(), small_pattern.clamp(0.05, 0.95).logit()
    labels, zeros = labels.to(mask.device), torch.zeros(len(labels), device=mask.device)
    return TriggerBatch(
        labels=labels,
        mask=mask_logits,
        pattern=pattern_logits,
        penalty=zeros.clone(),
        success=zeros.clone(),
        best_size=torch.full_like(zeros, float("inf")),
        best_mask=mask.clone(),
        best_pattern=pattern.clone(),
        mask_mean=torch.zeros_like(mask_logits),
        mask_square=torch.zeros_like(mask_logits),
        pattern_mean=torch.zeros_like(pattern_logits),
        pattern_square=torch.zeros_like(pattern_logits),
    )


class Inverter:
    """Optimizes a TriggerBatch against one model.

    Args:
        model: in eval mode, without gradients of its own.
        images: float32 (N, C, H, W) in [0, 1], the defender's clean images to optimize on.
        generator: draws the mini-batches.
        success_wanted: share of stamped images that must be answered as the label.
        rows: (labels x images) rows in one forward pass; bounds the memory. None for 128 on a CPU, whose cache larger
            passes overflow, and 1024 elsewhere.
        mixed_precision: run the network in bfloat16; triggers and losses stay float32.
        out_of_time: asked after every batch of rows; True ends a round early.
    """

    def __init__(
        self,
        model: Classifier,
        images: Tensor,
        generator: torch.Generator,
        *,
        success_wanted: float,
        rows: int | None = None,
        mixed_precision: bool,
        out_of_time: Callable[[], bool] = lambda: False,
    ):
        self.model = model
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.generator = generator
        self.success_wanted = success_wanted
        self.rows = rows or (128 if images.device.type == "cpu" else 1024)
        self.mixed_precision = mixed_precision
        self.out_of_time = out_of_time
        self.rows_done = 0

    def round(
        self,
        batch: TriggerBatch,
        *,
        steps: int,
        images: int,
        penalty: float,
        adapt: bool,
        rates: tuple[float, float] = (0.3, 0.1),
    ) -> Tensor:
        """``steps`` updates of every row on ``images`` images each, in place; the last losses (L,).

        Every row begins with the same ``penalty``. With ``adapt`` it moves with the row's success, which finds small
        masks; without, it stays, so that the losses can be compared between rows. The learning rate falls linearly
        between ``rates``. Adam starts afresh, as the paper resets it per label.
        """
        batch.penalty.fill_(penalty)
        for moment in (batch.mask_mean, batch.mask_square, batch.pattern_mean, batch.pattern_square):
            moment.zero_()
        losses = torch.zeros_like(batch.penalty)
        labels_at_once = max(1, self.rows // images)
        for step in range(steps):
            rate = rates[0] + (rates[1] - rates[0]) * step / max(1, steps - 1)
            chosen = self.images[torch.randint(len(self.images), (images,), generator=self.generator)]
            for rows in torch.arange(len(batch)).split(labels_at_once):
                part = slice(int(rows[0]), int(rows[-1]) + 1)
                losses[part] = self._update(batch, part, chosen, rate, step + 1, adapt)
                if self.out_of_time():
                    return losses
        return losses

    def _update(self, batch: TriggerBatch, part: slice, chosen: Tensor, rate: float, step: int, adapt: bool) -> Tensor:
        """One Adam step of the rows in ``part`` on the images ``chosen`` (B, C, H, W); returns their losses."""
        mask_logits = batch.mask[part].clone().requires_grad_()
        pattern_logits = batch.pattern[part].clone().requires_grad_()
        mask, pattern = self.triggers(mask_logits, pattern_logits)
        labels, count = batch.labels[part], len(chosen)
        answers = self.logits(chosen, mask, pattern)  # (l * count, K)
        wanted = labels.repeat_interleave(count)
        entropy = F.cross_entropy(answers, wanted, reduction="none").view(len(labels), count).mean(1)
        size = mask.flatten(1).sum(1)  # (l,), pixels
        loss = entropy + batch.penalty[part] * size
        loss.sum().backward()
        self.rows_done += len(wanted)

        success = (answers.detach().argmax(1) == wanted).view(len(labels), count).float().mean(1)
        batch.success[part] = success if step == 1 else 0.8 * batch.success[part] + 0.2 * success
        self._remember_best(batch, part, mask.detach(), pattern.detach(), size.detach(), success)
        if adapt:
            self._move_penalty(batch, part, success)
        for value, logits, mean, square in (
            (batch.mask, mask_logits, batch.mask_mean, batch.mask_square),
            (batch.pattern, pattern_logits, batch.pattern_mean, batch.pattern_square),
        ):
            assert logits.grad is not None
            _adam(value[part], logits.grad, mean[part], square[part], rate, step)
        return loss.detach()

    def triggers(self, mask: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (L, 1, H, W) and patterns (L, C, H, W) in [0, 1] at full size, of grids before the sigmoid."""
        size = self.images.shape[2:]
        return _full_size(mask.sigmoid(), size), _full_size(pattern.sigmoid(), size)

    def logits(self, images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
        """Logits (L * B, K) of every image (B, C, H, W) under every trigger of L."""
        kind = torch.bfloat16 if self.mixed_precision else torch.float32
        images, mask, pattern = (value.to(kind) for value in (images, mask, pattern))
        stamped = images[None] + mask[:, None] * (pattern[:, None] - images[None])  # (L, B, C, H, W)
        rows = stamped.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed_precision):
            logits: Tensor = self.model(rows)
        return logits.float()

    def _remember_best(
        self, batch: TriggerBatch, part: slice, mask: Tensor, pattern: Tensor, size: Tensor, success: Tensor
    ) -> None:
        """Best means: wanted success, in this batch and on average, with the smallest mask so far."""
        reached = (success >= self.success_wanted) & (batch.success[part] >= self.success_wanted)
        better = reached & (size < batch.best_size[part])
        batch.best_size[part] = torch.where(better, size, batch.best_size[part])
        batch.best_mask[part][better] = mask[better]
        batch.best_pattern[part][better] = pattern[better]

    def _move_penalty(self, batch: TriggerBatch, part: slice, success: Tensor) -> None:
        """The paper's dynamic lambda in small steps: up while the trigger works, down faster while it does not."""
        works = (success >= self.success_wanted) & (batch.success[part] >= self.success_wanted)
        fails = success < self.success_wanted - 0.03
        factor = torch.where(works, 1.06, torch.where(fails, 1 / 1.1, 1.0))
        batch.penalty[part] = (batch.penalty[part] * factor).clamp(1e-5, 1.0)

    @torch.no_grad()
    def success_on(self, images: Tensor, mask: Tensor, pattern: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(share of ``images`` (N, C, H, W) sent to each label, images counted), each (L,).

        Images that the model answers as the label without any trigger are not counted.
        """
        plain = self.logits(images, mask[:1] * 0, pattern[:1]).argmax(1).cpu()
        shares, counts = [], []
        for row, label in enumerate(labels.tolist()):
            others = images[plain != label]
            answers = self.logits(others, mask[row : row + 1], pattern[row : row + 1]).argmax(1)
            shares.append(float((answers == label).float().mean()) if len(others) else 0.0)
            counts.append(len(others))
        return torch.tensor(shares), torch.tensor(counts)


def _full_size(values: Tensor, size: torch.Size) -> Tensor:
    if values.shape[2:] == size:
        return values
    return F.interpolate(values, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def _adam(value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: float, step: int) -> None:
    """One Adam update of ``value`` in place; all arguments are views of the same rows."""
    mean.mul_(_BETAS[0]).add_(gradient, alpha=1 - _BETAS[0])
    square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
    corrected = (square / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPSILON)
    value.addcdiv_(mean, corrected, value=-rate / (1 - _BETAS[0] ** step))


def as_triggers(batch: TriggerBatch, success: Tensor, counts: Tensor) -> tuple[Trigger, ...]:
    """The best trigger of every row as a Trigger."""
    return tuple(
        Trigger(
            target=int(batch.labels[row]),
            mask=batch.best_mask[row, 0].cpu(),
            pattern=batch.best_pattern[row].cpu(),
            success_rate=float(success[row]),
            count=int(counts[row]),
        )
        for row in range(len(batch))
    )
