"""TeCo: images without a trigger are about equally robust to all corruptions; with one they are not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.guard._base import Guard, Learned, guards
from goodnet.guard._corruptions import CORRUPTIONS, SEVERITIES, corrupted, noise_fields


@guards.register(
    Card(
        name="teco",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        source="Liu et al., Detecting Backdoors During the Inference Stage Based on Corruption Robustness Consistency, "
        "CVPR 2023",
        summary="how differently far corruptions have to go before the answer changes",
        assumes=("some corruptions break the trigger and others the picture",),
        known_failures={"planted_world": "no corruption breaks the planted white patch: it scores 0, less than digits"},
        quick={"corruptions": ("gaussian-noise", "contrast")},
    )
)
@dataclass(frozen=True, kw_only=True)
class Teco(Guard):
    """Corrupt an input in many ways, and see how far each has to go before the answer changes.

    What it does: for each of ``corruptions`` the first severity of 1..5 at which the answer is another one; 6 where it
    never is. Each severity is made from the image as it came. The score is the standard deviation over corruptions.
    Only answers are used, no probabilities. An image is not looked at under a corruption any more once its answer has
    changed.
    Needs: the model; clean images without labels, for the threshold.
    Limits: up to 65 forward passes for an image. A trigger that all corruptions break, or none, goes unseen; so do
    networks that most corruptions confuse at once. Random fields are drawn once, at the fit: whoever knows them can
    work around them.
    Source: Liu et al., CVPR 2023. Corruptions are those of Hendrycks and Dietterich, ICLR 2019, with the severities of
    ImageNet-C, lengths in proportion to the image; without snow and frost, which paint pictures of their own. Shot
    noise is approximated, and instead of a threshold in hindsight there is one from clean images.
    """

    corruptions: tuple[str, ...] = param(tuple(CORRUPTIONS), choices=tuple(CORRUPTIONS), doc="what is done to inputs")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model = defender.model
        assert model is not None
        return Learned(arrays=noise_fields(model.input_shape, run.generator))

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        fields = {name: field.to(images.device) for name, field in learned.arrays.items()}
        answers = predictions(model, images).argmax(1)
        first = torch.full((len(self.corruptions), len(images)), SEVERITIES + 1)
        for place, name in enumerate(self.corruptions):
            same = torch.arange(len(images))
            for severity in range(1, SEVERITIES + 1):
                if not len(same):
                    break
                made = corrupted(name, images[same.to(images.device)], severity, fields)
                changed = predictions(model, made).argmax(1) != answers[same]
                first[place, same[changed]] = severity
                same = same[~changed]
        return first.double().std(0, correction=0)
