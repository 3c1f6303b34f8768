"""Which of very many labels stands out? Several cheap views of the labels, and what they say together.

With a thousand labels some label is natural and easy to reach in any one respect: a face that bright patches look like,
another that small changes lead to. A planted target is easy in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.audit._inversion import Inverter, TriggerBatch

_TAIL = 24  # labels that make the tail of a view; a target must stand out from them


@dataclass(frozen=True)
class View:
    """One order of the labels.

    Attributes:
        name: for the report.
        labels: int64 (L,), the labels that were followed; all others count as unsuspicious.
        values: float32 (L,), smaller is more suspicious.
    """

    name: str
    labels: Tensor
    values: Tensor

    def excess(self, classes: int) -> Tensor:
        """How far each label (K,) lies beyond the edge of the tail, in units of the tail's own scale; >= 0.

        The scale is Hill's estimate, the mean distance of the tail's labels from its edge: in the tail of one
        population such distances are about exponential with mean one, whatever the view measures.
        """
        ordered = self.values.sort().values
        edge = ordered[min(_TAIL, len(ordered) - 1)]
        scale = (edge - ordered[:_TAIL]).mean()
        found = torch.zeros(classes)
        if scale > 0:
            beyond = ((edge - self.values) / scale).clamp(min=0)
            found.scatter_reduce_(0, self.labels, beyond, "amax")  # a label may be there once for each restart
        return found

    def first(self, count: int) -> Tensor:
        """The labels that this view puts first."""
        return self.labels[self.values.argsort()[:count]]


def together(views: Sequence[View], classes: int) -> Tensor:
    """The sum of all excesses (K,): a label must stand out in several views to come far."""
    return torch.stack([view.excess(classes) for view in views]).sum(0)


@torch.no_grad()
def patch_views(
    inverter: Inverter, generator: torch.Generator, *, patches: int = 1024, images: int = 24
) -> tuple[View, View]:
    """Which labels do random solid patches lead to, how often and how surely? Forward passes only.

    Patches are rectangles of up to half the height and nine tenths of the width, anywhere, in any color. The first view
    is of counts: minus the log of the share of (patch, image) pairs that are answered as the label, where the bare
    image is not. The second is of margins: minus the label's logit less the largest other one, averaged over the
    images, under the patch that suits the label best.
    """
    model, bare = inverter.model, inverter.images[:images]
    channels, height, width = model.input_shape
    plain = _bare_answers(inverter, bare)
    counts, margins = torch.zeros(model.num_classes), torch.full((model.num_classes,), -torch.inf)
    per_batch = max(1, inverter.rows // len(bare))
    for some in torch.rand(patches, 4 + channels, generator=generator).split(per_batch):
        stamped = bare.repeat(len(some), 1, 1, 1, 1)
        for row, draw in enumerate(some.tolist()):
            tall, wide = (
                max(1, int(height * (1 / 16 + draw[0] * 7 / 16))),
                max(1, int(width * (1 / 16 + draw[1] * 0.84))),
            )
            top, left = int(draw[2] * (height - tall + 1)), int(draw[3] * (width - wide + 1))
            color = torch.tensor(draw[4:], device=bare.device)
            vivid = color.round() if row % 2 else color  # every other one from the corners of the color cube
            stamped[row, :, :, top : top + tall, left : left + wide] = vivid[:, None, None]
        logits = inverter.logits(stamped.flatten(0, 1), *_nothing(bare))
        answers = logits.argmax(1).cpu().view(len(some), -1)
        counts += answers[answers != plain].bincount(minlength=model.num_classes)
        margin = _margins(logits).view(len(some), len(bare), -1).mean(1).amax(0)
        margins = torch.maximum(margins, margin.cpu())
        if inverter.out_of_time():
            break
    inverter.rows_done += patches * len(bare)
    labels = torch.arange(model.num_classes)
    share = (counts + 1) / (patches * len(bare))
    return View("random patches", labels, -share.log()), View("patch margins", labels, -margins)


def _margins(logits: Tensor) -> Tensor:
    """Every logit (N, K) less the largest other one of its row."""
    largest = logits.topk(2, dim=1)
    margins = logits - largest.values[:, :1]
    return margins.scatter(1, largest.indices[:, :1], largest.values[:, :1] - largest.values[:, 1:])


def _nothing(images: Tensor) -> tuple[Tensor, Tensor]:
    """One trigger that changes nothing: mask and pattern."""
    return images.new_zeros((1, 1, *images.shape[2:])), images.new_zeros((1, *images.shape[1:]))


def _bare_answers(inverter: Inverter, images: Tensor) -> Tensor:
    return inverter.logits(images, *_nothing(images)).argmax(1).cpu()


@torch.no_grad()
def loss_view(name: str, inverter: Inverter, batch: TriggerBatch, held_out: Tensor, penalty: float) -> View:
    """The optimum of each label's loss, cross-entropy + ``penalty`` * mask size in pixels, on held-out images."""
    masks, patterns = inverter.triggers(batch.mask, batch.pattern)
    losses = []
    for row, label in enumerate(batch.labels.tolist()):
        logits = inverter.logits(held_out, masks[row : row + 1], patterns[row : row + 1])
        wanted = torch.full((len(held_out),), label, device=logits.device)
        losses.append(float(F.cross_entropy(logits, wanted) + penalty * masks[row].sum()))
    return View(name, batch.labels.cpu(), torch.tensor(losses).log())
