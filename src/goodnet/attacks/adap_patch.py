"""Adap-Patch: several faint patches, one of them on each training image, and covers with true labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.errors import ParameterError
from goodnet.triggers import blend, corner_masks


@attacks.register(
    Card(
        name="adap-patch",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Qi et al., ICLR 2023",
        summary="faint patches in the corners, one on each training image, with covers of true labels",
    )
)
@dataclass(frozen=True, kw_only=True)
class AdapPatch(Attack):
    """One random corner of each training image gets its patch, faintly; at test time all corners do, opaquely.

    Covers carry a patch with their true labels, so that poisoned images do not stand apart in feature space. The
    patches are of random colors here, where the paper uses four pictures.

    Source: Qi, Xie, Li, Mahloujifar, Mittal, Revisiting the assumption of latent separability for backdoor defenses,
    ICLR 2023.
    """

    poisoning_rate: float = param(0.003, low=0.0, high=1.0, doc="share of images that are poisoned")
    cover_rate: float = param(0.006, low=0.0, high=1.0, doc="share of the set that is stamped and keeps its label")
    size: int = param(8, low=1, doc="side of each patch, pixels")
    opacities: tuple[float, ...] = param((0.5, 0.2, 0.5, 0.3), low=0.0, high=1.0, doc="of each patch, in training")
    test_opacity: float = param(1.0, low=0.0, high=1.0, doc="of all patches at test time")
    pattern_seed: int = param(0, low=0, doc="seed of the patches")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.opacities) > 4:
            raise ParameterError(f"AdapPatch.opacities has {len(self.opacities)} values for four corners")

    def _stamp(self, images: Tensor) -> Tensor:
        patches = self._patches(images)
        return blend(images, self._pattern(images), self.test_opacity * patches.amax(0))

    def _stamp_training(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        faint = self._patches(images) * images.new_tensor(self.opacities).view(-1, 1, 1)
        which = torch.randint(len(self.opacities), (len(images),), generator=generator)
        return blend(images, self._pattern(images), faint[which.to(images.device), None])

    def _patches(self, images: Tensor) -> Tensor:
        """Where each patch is, float32 (number of patches, H, W)."""
        height, width = images.shape[2:]
        return corner_masks(height, width, self.size).to(images)[: len(self.opacities)]

    def _pattern(self, images: Tensor) -> Tensor:
        """The colors (C, H, W) that the patches show."""
        return torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(self.pattern_seed))
