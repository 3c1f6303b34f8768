"""Common corruptions of images, each in five severities, always of the image as it came."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SEVERITIES = 5
Fields = Mapping[str, Tensor]
Corruption = Callable[[Tensor, int, Fields], Tensor]
"""(float images in [0, 1] (M, C, H, W), severity 0..4, fields) → the same, corrupted, each by itself."""

_COARSE = 4  # knots along a side, between which smooth fields are interpolated
_ZOOMS = 6  # pictures that a zoom blur averages
_SIDE = 224  # pixels of the images for which lengths are given


def noise_fields(shape: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
    """The random parts of all corruptions, drawn once: the same for every image, so that scores do not vary."""
    channels, height, width = shape
    smooth = F.interpolate(torch.randn(1, 3, _COARSE, _COARSE, generator=generator), (height, width), mode="bicubic")[0]
    return {
        "normal": torch.randn(shape, generator=generator),
        "uniform": torch.rand(shape, generator=generator),
        "shifts": torch.rand(2, height, width, generator=generator) * 2 - 1,
        "smooth": smooth / smooth.abs().amax((1, 2), keepdim=True),
    }


def _gaussian_noise(images: Tensor, severity: int, fields: Fields) -> Tensor:
    return images + (0.08, 0.12, 0.18, 0.26, 0.38)[severity] * fields["normal"]


def _shot_noise(images: Tensor, severity: int, fields: Fields) -> Tensor:
    """Poisson noise of so many photons at white, by its normal approximation."""
    return images + (images / (60, 25, 12, 5, 3)[severity]).sqrt() * fields["normal"]


def _impulse_noise(images: Tensor, severity: int, fields: Fields) -> Tensor:
    share, uniform = (0.03, 0.06, 0.09, 0.17, 0.27)[severity], fields["uniform"]
    return torch.where(uniform < share, (uniform < share / 2).float(), images)


def _defocus_blur(images: Tensor, severity: int, fields: Fields) -> Tensor:
    radius = _pixels((3, 4, 6, 8, 10)[severity], images)
    reach = int(np.ceil(radius))
    places = torch.arange(-reach, reach + 1, device=images.device)
    distance = torch.hypot(places[:, None].float(), places[None].float())
    return _blurred(images, (radius + 1 - distance).clamp(0, 1))  # a disk with a soft edge


def _glass_blur(images: Tensor, severity: int, fields: Fields) -> Tensor:
    return _moved(images, _pixels((7, 9, 12, 16, 22)[severity], images) * fields["shifts"])


def _motion_blur(images: Tensor, severity: int, fields: Fields) -> Tensor:
    """Along the diagonal, with weights that fall off as a normal distribution."""
    spread = _pixels((3, 5, 8, 12, 15)[severity], images)
    reach = int(np.ceil(2 * spread))
    places = torch.arange(-reach, reach + 1, device=images.device)
    return _blurred(images, torch.diag((-(places / spread).square() / 2).exp()))


def _zoom_blur(images: Tensor, severity: int, fields: Fields) -> Tensor:
    most = (1.11, 1.16, 1.21, 1.26, 1.31)[severity]
    return torch.stack([_zoomed(images, zoom) for zoom in np.linspace(1, most, _ZOOMS).tolist()]).mean(0)


def _fog(images: Tensor, severity: int, fields: Fields) -> Tensor:
    thickness = (1.5, 2.0, 2.5, 2.75, 3.0)[severity]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + thickness * (fields["smooth"][2] + 1) / 2) * brightest / (brightest + thickness)


def _brightness(images: Tensor, severity: int, fields: Fields) -> Tensor:
    return images + (0.1, 0.2, 0.3, 0.4, 0.5)[severity]


def _contrast(images: Tensor, severity: int, fields: Fields) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + (0.4, 0.3, 0.2, 0.1, 0.05)[severity] * (images - mean)


def _elastic(images: Tensor, severity: int, fields: Fields) -> Tensor:
    return _moved(images, _pixels((8, 12, 16, 20, 24)[severity], images) * fields["smooth"][:2])


def _pixelate(images: Tensor, severity: int, fields: Fields) -> Tensor:
    height, width = images.shape[2:]
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity]
    small = F.interpolate(images, (max(1, round(share * height)), max(1, round(share * width))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest")


def _jpeg(images: Tensor, severity: int, fields: Fields) -> Tensor:
    quality = (25, 18, 15, 10, 7)[severity]
    made = []
    for image in (images * 255).round().byte().cpu().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
        with Image.open(file) as picture:
            made.append(torch.from_numpy(np.array(picture)).view(image.shape).permute(2, 0, 1))
    return torch.stack(made).to(images.device).float() / 255


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "impulse-noise": _impulse_noise,
    "defocus-blur": _defocus_blur,
    "glass-blur": _glass_blur,
    "motion-blur": _motion_blur,
    "zoom-blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


def corrupted(name: str, images: Tensor, severity: int, fields: Fields) -> Tensor:
    """Float images (M, C, H, W) in [0, 1] under the corruption ``name`` at ``severity`` 1..5, in [0, 1] again."""
    return CORRUPTIONS[name](images, severity - 1, fields).clamp(0, 1)


def _pixels(length: float, images: Tensor) -> float:
    """A length in images of 224 pixels, in these."""
    return length * min(images.shape[2:]) / _SIDE


def _blurred(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel by itself; edges are repeated."""
    reach, channels = len(kernel) // 2, images.shape[1]
    weights = (kernel / kernel.sum()).to(images).expand(channels, 1, -1, -1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, weights, groups=channels)


def _moved(images: Tensor, pixels: Tensor) -> Tensor:
    """Every pixel is taken from ``pixels`` (2, H, W) to the right and below; edges are repeated."""
    height, width = images.shape[2:]
    offsets = torch.stack([pixels[0] * 2 / width, pixels[1] * 2 / height], -1)
    return _sampled(images, _grid(images, 1.0) + offsets)


def _zoomed(images: Tensor, zoom: float) -> Tensor:
    return _sampled(images, _grid(images, 1 / zoom))


def _grid(images: Tensor, scale: float) -> Tensor:
    turn = torch.tensor([[[scale, 0.0, 0.0], [0.0, scale, 0.0]]], device=images.device)
    return F.affine_grid(turn, [1, *images.shape[1:]], align_corners=False)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    places = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)
