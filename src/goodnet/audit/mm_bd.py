"""MM-BD: is there a label whose logit can be driven far above all others, further than any other label's?"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import gamma
from torch import Tensor

from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, auditors
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run

_ROWS = 256  # images in one batch; bounds the memory
_FEWEST_CLASSES = 5  # below, the other labels are too few to say what is usual


@auditors.register(
    Card(
        name="mm-bd",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS,
        source="Wang et al., MM-BD, IEEE S&P 2024",
        summary="looks, without any images, for a label whose margin over all others can be driven too high",
        assumes=("the backdoor makes the target's logit overshoot", "one target, or few among many labels"),
        quick={"starts": 2, "steps": 5},
    )
)
@dataclass(frozen=True, kw_only=True)
class MmBd(Auditor):
    """Find the largest margin that any input gives each label; a label far ahead of the others is the target.

    What it does: for each label and each of some random images climbs the gradient of the label's logit minus the
    largest other logit, with momentum, keeping the image in [0, 1], until the margin hardly moves. A label's statistic
    is its largest margin. The score is how many scaled median absolute deviations (of the other labels' statistics)
    the largest statistic lies above their median: it does not change when all logits are multiplied by a constant,
    and needs no assumption about the distribution, because it is judged by the clean nets of the bank. The paper's own
    p-value, from a gamma distribution fitted to the other labels, is in the evidence as "gamma_p_value"; None where
    no gamma distribution fits.

    The authors take 30 starts and 300 steps with momentum 0.2, and their code makes its optimizer anew at every step,
    which switches the momentum off. Here it works and is stronger, so that a third of the starts and fewer steps do.

    Needs: the model with gradients; no images. At least five labels, otherwise the answer is inconclusive.
    Limits: finds one target; weak on models with few labels, and blind to backdoors with many targets or with
    training that keeps the target's margin low.
    Source: Wang, Xiang, Miller, Kesidis, MM-BD: post-training detection of backdoor attacks with arbitrary backdoor
    pattern types using a maximum margin statistic, IEEE S&P 2024.
    """

    starts: int = param(10, low=1, doc="random images that each label's climb starts from")
    steps: int = param(200, low=1, doc="most updates of one climb")
    learning_rate: float = param(0.01, low=1e-8, high=10.0, doc="size of an update, per unit of gradient")
    momentum: float = param(0.9, low=0.0, high=0.999, doc="share of the last update that is made again")
    tolerance: float = param(1e-5, low=0.0, high=1.0, doc="relative change of the margin below which a climb ends")

    def _inspect(self, defender: Defender, run: Run) -> Inspection:
        model = defender.model
        assert model is not None  # the base class has checked
        margins, climbed = self._largest_margins(model, run)
        statistics = margins.double().numpy()
        undecided = ""
        if not np.isfinite(statistics).all():
            undecided = "the model gives answers that are not finite numbers"
        elif climbed < self.starts * model.num_classes:
            undecided = f"out of time: {climbed} of {self.starts * model.num_classes} climbs ended; give more time"
        elif model.num_classes < _FEWEST_CLASSES:
            undecided = f"MM-BD compares labels and cannot judge a model with fewer than {_FEWEST_CLASSES}"
        finite = np.nan_to_num(statistics, nan=0.0, posinf=0.0, neginf=0.0)
        suspect = int(finite.argmax())
        others = np.delete(finite, suspect)
        return Inspection(
            readings=(Reading(score=_deviations_above(float(finite[suspect]), others), suspects=(suspect,)),),
            per_class=tuple(
                LabelFinding(label=label, score=value, details={"largest_margin": value})
                for label, value in sorted(enumerate(finite.tolist()), key=lambda pair: -pair[1])
            ),
            undecided=undecided,
            counts={"labels": model.num_classes, "starts": self.starts, "climbs": climbed},
            evidence={"gamma_p_value": None if undecided else gamma_p_value(float(finite[suspect]), others)},
        )

    def _largest_margins(self, model: Classifier, run: Run) -> tuple[Tensor, int]:
        """The largest margin found for each label (K,), minus infinity where time ran out, and climbs that ended."""
        classes = model.num_classes
        largest = torch.full((classes,), -torch.inf)
        rows = torch.arange(classes * self.starts)  # every label once, then every label again, ...
        climbed = 0
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            run.progress(climbed / len(rows), f"{climbed} of {len(rows)} climbs")
            labels = part % classes
            margins = self._climb(model, labels, run)
            largest.scatter_reduce_(0, labels, margins, "amax")
            if run.seconds_left() < 0:
                break
            climbed += len(part)
        return largest, climbed

    def _climb(self, model: Classifier, labels: Tensor, run: Run) -> Tensor:
        """The largest margin (N,) seen on the way up from one random image for each of ``labels`` (N,)."""
        best = torch.full((len(labels),), -torch.inf)
        moving = torch.arange(len(labels))  # climbs that have not ended; the tensors below hold these alone
        images = torch.rand((len(labels), *model.input_shape), generator=run.generator).to(model.device)
        velocity = torch.zeros_like(images)
        previous = best.clone()
        for _ in range(self.steps):
            images = images.detach().requires_grad_()
            margin = _margin(model(images).float(), labels[moving].to(model.device))
            (gradient,) = torch.autograd.grad(margin.sum(), images)
            now = margin.detach().cpu()
            best[moving] = torch.maximum(best[moving], now)
            # written so that NaN, which compares false with everything, ends its climb
            goes_on = (now - previous).abs() > self.tolerance * now.abs()
            if not goes_on.any() or run.seconds_left() < 0:
                break
            with torch.no_grad():
                velocity = self.momentum * velocity + gradient
                images = (images + self.learning_rate * velocity).clamp(0, 1)
            kept = goes_on.to(model.device)
            moving, previous, images, velocity = moving[goes_on], now[goes_on], images[kept], velocity[kept]
        return best


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit minus the largest other one (N,), of logits (N, K)."""
    own = logits.gather(1, labels[:, None])
    return own[:, 0] - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _deviations_above(largest: float, others: NDArray[np.float64]) -> float:
    """How many scaled median absolute deviations ``largest`` lies above the median of ``others``; 0 without others."""
    if not len(others):
        return 0.0
    median = float(np.median(others))
    deviation = 1.4826 * float(np.median(np.abs(others - median)))
    # labels that are all alike would make any difference infinite: a thousandth of their size counts as alike
    return (largest - median) / max(deviation, 1e-3 * abs(median), 1e-12)


def gamma_p_value(largest: float, others: NDArray[np.float64]) -> float | None:
    """The paper's test: the chance that the largest of K draws from the gamma fitted to ``others`` (K-1,) is as large.

    None when no gamma distribution can be fitted: fewer than three others, others that are all alike or not positive.
    """
    if len(others) < 3 or others.min() <= 0 or np.ptp(others) <= 1e-9 * others.max():
        return None
    shape, _, scale = gamma.fit(others, floc=0)
    beyond = min(float(gamma.sf(largest, shape, scale=scale)), 1 - 1e-16)
    return -math.expm1((len(others) + 1) * math.log1p(-beyond))
