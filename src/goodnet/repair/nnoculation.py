"""NNoculation, before deployment: retrain with noisy copies of the clean images, as much noise as accuracy bears."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import parted, share_right, tune, wanted_answers
from goodnet.training import Recipe

_GRID = 4  # cells along each side; a cell of a channel is replaced as a whole
_MEAN, _DEVIATION = 128 / 255, 0.4 * 128 / 255  # of the noise, which is what imgaug's documentation suggests


@repairers.register(
    Card(
        name="nnoculation",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Veldanda et al., NNoculation, 2020 (arXiv 2002.08313), section 3.1",
        summary="retrains with noisy copies of the clean images, with as much noise as accuracy bears",
        quick={"epochs": 1, "levels": (0.5,)},
    )
)
@dataclass(frozen=True, kw_only=True)
class NNoculation(Repairer):
    """Retrain the suspect with noisy copies of clean images: broad-spectrum, since nothing is known of the trigger.

    What it does: every image goes into training as it is and once with some cells of a 4x4 grid, drawn for each
    channel, replaced by Gaussian noise; both keep the right answer. A trigger is such a disturbance, which must not
    decide the answer. One candidate for each level of noise, the strongest first; the first that costs at most
    ``accuracy_drop`` of the right answers on a fifth of the images, kept aside, is taken. Where none does the suspect
    comes back as it was, and beside it, for a second opinion, the candidate that costs least.
    Needs: the model with gradients, some hundreds of clean images; without labels the suspect's own answers.
    Limits: it weakens a backdoor and seldom removes it. What it is for is to disagree with the suspect on triggered
    images in service, so that a quarantine fills, from which ``guard.trigger_learning`` learns the trigger.
    Source: Veldanda, Liu, Tan, Krishnamurthy, Khorrami, Karri, Dolan-Gavitt, Garg, NNoculation: Catching BadNets in the
    Wild, 2020, section 3.1. Adadelta at rate 1 for 10 epochs, and noise of mean 128 and deviation 0.4 * 128, are
    theirs. The noise is drawn anew for every batch, and batches are small, as the sets are.
    """

    levels: tuple[float, ...] = param(
        (0.6, 0.5, 0.4, 0.3, 0.2, 0.1), low=0.0, high=1.0, doc="shares of cells that are noise, in the order of trial"
    )
    accuracy_drop: float = param(0.03, low=0.0, high=1.0, doc="right answers that may be lost on images kept aside")
    epochs: int = param(10, low=1, doc="passes over the clean images, for each level")
    learning_rate: float = param(1.0, low=0.0, doc="of Adadelta")
    batch_size: int = param(64, low=2, doc="clean images per step, beside as many noisy ones")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        suspect, clean = defender.model, defender.clean
        assert suspect is not None
        assert clean is not None
        wanted = wanted_answers(defender)
        aside, rest = parted(len(clean), run)
        held, mine = clean.images[aside], clean.pick(rest)
        right = share_right(suspect, held, wanted[aside])
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            optimizer="adadelta",
            schedule="constant",
            weight_decay=0.0,
        )
        tried: dict[float, float] = {}
        best: tuple[float, float, Classifier] | None = None
        for number, level in enumerate(self.levels):
            part = (number / len(self.levels), (number + 1) / len(self.levels))
            model = tune(suspect, mine, wanted[rest], recipe, run, loss=_Loss(level), progress=part)
            tried[level] = right - share_right(model, held, wanted[aside])
            if best is None or tried[level] < best[0]:
                best = tried[level], level, model
            if tried[level] <= self.accuracy_drop or run.seconds_left() < 0:
                break
        assert best is not None
        drop, level, model = best
        reverted = drop > self.accuracy_drop
        return Fixed(
            model=suspect if reverted else model,
            notes={"level": level, "drop_aside": drop, "reverted": float(reverted)},
            counts={"images": len(rest), "images_aside": len(aside), "epochs": self.epochs * len(tried)},
            evidence={"drops": {f"{level:g}": drop for level, drop in tried.items()}},
            second_opinion=model if reverted else None,
        )


@dataclass(frozen=True)
class _Loss:
    """Cross-entropy on images and on their noisy copies."""

    level: float

    def __call__(self, model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        both = torch.cat([images, noisy(images, self.level, generator)])
        return F.cross_entropy(model(both).float(), torch.cat([wanted, wanted]))


def noisy(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of which a share ``level`` of the cells of a grid is noise, channel by channel."""
    count, channels, height, width = images.shape
    chosen = torch.rand(count, channels, _GRID, _GRID, generator=generator) < level
    cells = F.interpolate(chosen.float(), (height, width), mode="nearest").to(images.device)
    noise = torch.randn(images.shape, generator=generator).mul_(_DEVIATION).add_(_MEAN).clamp_(0, 1).to(images.device)
    return images + cells * (noise - images)
