"""STRIP over a training set: what is answered the same under any overlay carries a trigger."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._overlays import entropies
from goodnet.cleanse._rules import scored_above_clean
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld

_AT_ONCE = 64  # images, until progress is told


@cleansers.register(
    Card(
        name="strip",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.CLEAN,
        source="Gao et al., STRIP: A Defence Against Trojan Attacks on Deep Neural Networks, ACSAC 2019",
        summary="how sure the model stays of a sample when clean images are laid over it",
        assumes=("the trigger outweighs the picture below it", "the trigger works in every class"),
        quick={"overlays": 4},
    )
)
@dataclass(frozen=True, kw_only=True)
class Strip(Cleanser):
    """Lay clean images over each sample and measure the entropy of the answers.

    What it does: every sample is added to each of ``overlays`` clean images and saturates at white, as 8-bit images do.
    The score is minus the mean entropy (bits, over labels) of the model's answers. All samples get the same overlays,
    so that a score depends on nothing but the sample. The other clean images, with the same overlays, set the threshold
    at the share ``rate``; nothing is removed where no more samples exceed it than chance gives (beta-binomial, 1 %).
    Needs: the model, the training set, clean images without labels; at least half of them stay apart from the overlays.
    Limits: blind to triggers that an overlay destroys (blended, warped, sinusoidal), to source-specific and all-to-all
    attacks. Samples on which the model was trained may be answered more surely than clean images it never saw.
    Source: Gao et al., STRIP, ACSAC 2019. The paper takes 100 overlays and times 10; 10 is the default here, because
    every sample of a set is looked at.
    """

    overlays: int = param(10, low=1, doc="clean images laid over each sample")
    rate: float = param(0.01, low=0.0, high=0.5, doc="share of clean images above the threshold")
    alpha: float = param(0.01, low=0.0, high=1.0, doc="chance of removing anything from a set like the clean images")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held, clean = defender.model, defender.training_set, defender.clean
        assert model is not None
        assert held is not None
        assert held.labels is not None
        assert clean is not None
        if len(clean) < 2:
            raise NotHeld("strip needs clean images to lay over samples and others to compare with; give some hundreds")
        shuffled = clean.shuffled(run.generator).images
        over = shuffled[: min(self.overlays, len(clean) // 2)]
        scores = certainty(model, held.images, over, run)
        usual = certainty(model, shuffled[len(over) :], over, None)
        return scored_above_clean(scores, usual, held.labels, self.rate, self.alpha, counts={"overlays": len(over)})


def certainty(model: Classifier, images: Tensor, over: Tensor, run: Run | None) -> Tensor:
    """Minus the mean entropy in bits of the answers to each of ``images`` under each of ``over`` (both uint8): (N,)."""
    parts, laid = [], over.float() / 255
    for start in range(0, len(images), _AT_ONCE):
        batch = images[start : start + _AT_ONCE].float() / 255
        parts.append(-entropies(model, batch, laid, "sum").mean(1))
        if run is not None:
            run.progress((start + len(batch)) / len(images), "overlays")
    return torch.cat(parts)
