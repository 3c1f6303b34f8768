"""Plain confidence: the baseline that every other guard has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.guard._base import Guard, Learned, guards


@guards.register(
    Card(
        name="confidence",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        source="the usual baseline; Hendrycks and Gimpel, ICLR 2017, use it the other way round",
        summary="how sure the model is of its answer: the baseline",
        assumes=("the model is surer of a trigger than of a picture",),
    )
)
@dataclass(frozen=True, kw_only=True)
class Confidence(Guard):
    """Call suspicious what the model is unusually sure of.

    What it does: the score is the log-odds of the most probable label, which ranks inputs as its probability does and
    still tells 0.9999999 from 1.
    Needs: the model; clean images without labels for the threshold, all of them.
    Limits: a network that is sure of every image, as most are, leaves no room above. A guard that does not beat this
    one is not worth its forward passes.
    Source: none of its own. Hendrycks and Gimpel, ICLR 2017, call *low* confidence suspicious; here high confidence is.
    """

    fit_share: ClassVar[float] = 0.0

    def _fit(self, defender: Defender, run: Run) -> Learned:
        return Learned()

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        logits: Tensor = model(images).double()
        best = logits.argmax(1, keepdim=True)
        others = logits.scatter(1, best, float("-inf"))
        return logits.gather(1, best).squeeze(1) - torch.logsumexp(others, 1)
