"""STRIP at run time: what is answered the same under any overlay carries a trigger."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import norm
from torch import Tensor

from goodnet.cleanse._overlays import entropies
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard, Learned, guards

_FIRST = 4  # overlays before the first look, and at least that many before the next
_MORE = 0.25  # of those so far, before the next look
_MEASURED = 100  # images on which the dispersion over overlays is measured
_LEAST = 1e-9  # bits


@guards.register(
    Card(
        name="strip",
        version=2,
        needs=Needs.MODEL | Needs.CLEAN,
        source="Gao et al., STRIP: A Defence Against Trojan Attacks on Deep Neural Networks, ACSAC 2019",
        summary="how sure the model stays of an input when clean images are laid over it",
        assumes=("the trigger outweighs the picture below it", "the trigger works in every class"),
        quick={"overlays": 4},
    )
)
@dataclass(frozen=True, kw_only=True)
class Strip(Guard):
    """Lay clean images over an input and measure the entropy of the answers.

    What it does: the input is blended with each of ``overlays`` clean images; the mean entropy (bits, over labels) of
    the answers is low where a trigger survives every overlay. The paper calls low entropy suspicious: the score is its
    negative. Overlays are drawn once, when the guard is fitted. Where only the decision is asked for, ``sequential``
    looks after 4, 8, 12, 16, 20, 25, 31 ... overlays and stops once the mean is ``sure`` standard errors away from the
    threshold. The error is that of an image whose whole mean is the threshold, drawn without replacement: the variance
    over overlays grows in proportion to the mean, and the proportion is measured on clean images. An image that
    answers every overlay with certainty, as a trigger does, shows no variance of its own to go by.
    Needs: the model, clean images without labels.
    Limits: blind to triggers that an overlay destroys (blended, warped, sinusoidal), to source-specific and all-to-all
    attacks, and on networks with many unsure labels. Where the normal distribution fitted to clean entropies has a
    negative quantile at the rate asked for, the paper's threshold catches nothing, and a note says so.
    Source: Gao et al., STRIP, ACSAC 2019: 100 overlays, added and saturated; the threshold is the quantile of a normal
    distribution (``threshold="normal"``). Split conformal, the default, keeps the rate whatever the distribution.
    """

    family: ClassVar[str] = "survives-perturbation"

    overlays: int = param(100, low=1, doc="clean images laid over each input")
    blend: str = param("sum", choices=("sum", "average"), doc="add and saturate, or take the mean")
    threshold: str = param("conformal", choices=("conformal", "normal"), doc="where the threshold comes from")
    sequential: bool = param(True, doc="stop laying images over once the decision is sure")
    sure: float = param(2.25, low=0.0, doc="standard errors at which a decision is sure")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        if len(clean) < 2:
            raise NotHeld("strip needs clean images to lay over inputs and others to compare with; give some hundreds")
        images = clean.shuffled(run.generator).floats()
        over = images[: min(self.overlays, len(images) - 1)]
        run.progress(0.1, "overlays")
        bits = entropies(model, images[len(over) :][:_MEASURED], over, self.blend)
        dispersion = float(bits.var(1).mean() / bits.mean().clamp_min(_LEAST)) if len(over) > 1 else 0.0
        return Learned(arrays={"overlays": over}, values={"dispersion": dispersion}, counts={"overlays": len(over)})

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        over = learned.arrays["overlays"].to(images.device)
        return -entropies(model, images, over, self.blend).mean(1)

    def _side(self, model: Classifier, learned: Learned, images: Tensor, threshold: float) -> Tensor:
        if not self.sequential:
            return self._score(model, learned, images)
        over, dispersion = learned.arrays["overlays"].to(images.device), float(learned.values["dispersion"])
        mean, open_, done = torch.zeros(len(images), dtype=torch.float64), torch.arange(len(images)), 0
        while len(open_) and done < len(over):
            end = min(len(over), done + max(_FIRST, int(_MORE * done)))
            bits = entropies(model, images[open_.to(images.device)], over[done:end], self.blend).double()
            mean[open_], done = (done * mean[open_] + bits.sum(1)) / end, end
            left = (len(over) - end) / max(1, len(over) - 1)  # of a finite population
            error = math.sqrt(dispersion * max(0.0, -threshold) / end * left)
            open_ = open_[(mean[open_] + threshold).abs() <= self.sure * error]
        return -mean

    def _threshold(self, scores: Tensor, rate: float) -> tuple[float, tuple[str, ...]]:
        quantile = float(norm.ppf(rate, -float(scores.mean()), float(scores.std())))
        told = (_blind(quantile, rate),) if quantile < 0 else ()
        if self.threshold == "normal" and math.isfinite(quantile):
            return -quantile, told
        return super()._threshold(scores, rate)[0], told


def _blind(quantile: float, rate: float) -> str:
    return (
        f"the normal distribution of clean entropies has the quantile {quantile:.3g} at {rate:.1%}, and no entropy is "
        "below 0: by the paper's threshold STRIP is blind here"
    )
