"""SCALE-UP: the answer to a trigger survives brighter and brighter copies."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.guard._base import Guard, Learned, guards

_FEWEST = 5  # clean images of a label, for its own mean and deviation
_LEAST = 0.05  # deviation that is never taken to be smaller: scores are shares of a few copies


@guards.register(
    Card(
        name="scale-up",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        source="Guo et al., SCALE-UP: Black-box Input-level Backdoor Detection, ICLR 2023",
        summary="whether the answer stays when the pixel values are multiplied",
        assumes=("the trigger outweighs the picture when both get brighter",),
        known_failures={"planted_world": "digits are black and white already: brighter copies of them hardly differ"},
    )
)
@dataclass(frozen=True, kw_only=True)
class ScaleUp(Guard):
    """Multiply the pixel values of an input and count how often the answer stays.

    What it does: an input in [0, 1] is multiplied by each of ``factors`` and cut off at white. The score is the share
    of copies that get the answer of the input itself. With ``per_class`` it is counted in standard deviations from the
    mean of clean images that get the same answer, as the paper does where a few clean images are held; labels with
    fewer than five of them take the mean and deviation of all.
    Needs: the model; clean images without labels, for the threshold and for ``per_class``.
    Limits: scores are shares of a few copies, so that many are equal and the rate reached may be far below the one
    asked for. Bright pictures and white triggers look alike to it.
    Source: Guo et al., SCALE-UP, ICLR 2023; factors 3, 5, 7, 9, 11 as in BackdoorBench.
    """

    family: ClassVar[str] = "survives-perturbation"

    factors: tuple[float, ...] = param((3.0, 5.0, 7.0, 9.0, 11.0), low=1.0, doc="what pixel values are multiplied by")
    per_class: bool = param(True, doc="compare with clean images that get the same answer")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        if not self.per_class or not len(clean):
            return Learned()
        shares, answers = self._shares(model, clean.floats(model.device))
        mean = torch.full((model.num_classes,), float(shares.mean()))
        deviation = torch.full((model.num_classes,), float(shares.std(correction=0)))
        for label in answers.unique().tolist():
            mine = shares[answers == label]
            if len(mine) >= _FEWEST:
                mean[label], deviation[label] = mine.mean(), mine.std(correction=0)
        return Learned(
            arrays={"mean": mean, "deviation": deviation.clamp_min(_LEAST)}, counts={"clean_images": len(clean)}
        )

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        shares, answers = self._shares(model, images)
        if not learned.arrays:
            return shares
        return (shares - learned.arrays["mean"][answers]) / learned.arrays["deviation"][answers]

    def _shares(self, model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
        """(share of brighter copies that are answered as the image itself, that answer), (M,) each, on the CPU."""
        answers = predictions(model, images).argmax(1)
        same = [predictions(model, (images * factor).clamp_(max=1)).argmax(1) == answers for factor in self.factors]
        return torch.stack(same).float().mean(0), answers
