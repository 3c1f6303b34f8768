"""WaNet: a smooth warp, with noise samples so that only the right warp fires."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, Backdoored, attacks
from goodnet.attacks._training import doses
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.training import Recipe, cross_entropy, fit
from goodnet.triggers import warp, warping_grid


@attacks.register(
    Card(
        name="wanet",
        version=2,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Nguyen and Tran, ICLR 2021",
        summary="a smooth, hardly visible warp of the picture; noisy warps keep their labels",
    )
)
@dataclass(frozen=True, kw_only=True)
class WaNet(Attack):
    """Warp the picture along one fixed smooth field; along noisy fields, with true labels, for the covers.

    The covers are the paper's noise mode: the field plus fresh white noise, for twice as many images as are poisoned
    (``cross_ratio`` 2), so that the network learns this warp and not any warp. Keep ``cover_rate`` at twice the
    poisoning rate when you change that; 0 turns the noise mode off.

    ``train`` warps on the fly, other images and other noise in each epoch, as the paper does. ``poison`` warps once,
    for a victim who trains on the set himself; it needs the training set only.

    Source: Nguyen, Tran, WaNet: imperceptible warping-based backdoor attack, ICLR 2021.
    """

    cover_rate: float = param(0.2, low=0.0, high=1.0, doc="share of the set that is warped by noise, labels kept")
    strength: float = param(0.5, low=0.0, doc="of the warp; the paper's s")
    control: int = param(4, low=2, doc="control points per side; the paper's k")
    field_seed: int = param(0, low=0, doc="seed of the warping field")

    def _stamp(self, images: Tensor) -> Tensor:
        return warp(images, self._grid(images))

    def _stamp_cover(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        noise = torch.rand(count, height, width, 2, generator=generator) * 2 - 1  # of up to half a pixel
        return warp(images, (self._grid(images) + noise / height).clamp(-1, 1))

    def _grid(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        generator = torch.Generator().manual_seed(self.field_seed)
        return warping_grid(height, width, control=self.control, strength=self.strength, generator=generator)

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        assert samples.labels is not None  # the base class has checked
        choose = doses(self, samples.labels)

        def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            choice, images, wanted = choose(labels, generator), images.clone(), labels.clone()
            for where, stamp in ((choice.poisoned, self._stamp_training), (choice.covers, self._stamp_cover)):
                images[where] = stamp(images[where], labels[where], generator)
            wanted[choice.poisoned] = self.new_labels(labels[choice.poisoned], model.num_classes, generator)
            return cross_entropy(model, images, wanted, generator)

        return Backdoored(fit(model, samples, recipe, seed=seed, loss=loss, progress=progress), self)
