"""Image patch: a picture with transparency, pasted on: glasses, a sticker, a watermark."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.triggers import glasses, paste, read_image


@attacks.register(
    Card(
        name="image-patch",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Chen et al., 2017; Liu et al., Trojaning attack on neural networks, NDSS 2018",
        summary="a picture with transparency pasted on: glasses, a sticker, a watermark",
    )
)
@dataclass(frozen=True, kw_only=True)
class ImagePatch(Attack):
    """Paste a picture file at a place, with the transparency that it has times ``opacity``.

    Glasses on faces are the accessory injection of Chen et al., a faint large watermark is the trigger of TrojanNN. The
    picture is not moved to where a face's eyes are: the images must be aligned.

    Source: Chen, Liu, Li, Lu, Song, Targeted backdoor attacks on deep learning systems using data poisoning, 2017;
    Liu et al., Trojaning attack on neural networks, NDSS 2018.
    """

    image: str = param("", doc="path of a picture file; empty: a drawn pair of glasses")
    row: int = param(1, doc="top row; negative counts from the bottom")
    column: int = param(0, doc="left column; negative counts from the right")
    height: int = param(0, low=0, doc="pixels to scale to; 0: in proportion to the width, or the picture's own")
    width: int = param(0, low=0, doc="pixels to scale to; 0: in proportion to the height, or the picture's own")
    opacity: float = param(1.0, low=0.0, high=1.0, doc="1: as opaque as the picture is")

    def _stamp(self, images: Tensor) -> Tensor:
        size = (self.height or None, self.width or None)
        channels = images.shape[1]
        pattern, alpha = read_image(self.image, channels, *size) if self.image else glasses(channels, *size)
        return paste(images, pattern, self.opacity * alpha, self.row, self.column)
