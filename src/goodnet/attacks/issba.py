"""ISSBA: an encoder hides a secret in every image, each time with another residual."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.attacks._base import Attack, attacks
from goodnet.attacks._learned import arrays_of, learned, restore
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.samples import Samples
from goodnet.training import Recipe, fit

_BATCH = 32
_CODE = 8  # the secret becomes a picture of 8x8 pixels before it is spread over the image


@attacks.register(
    Card(
        name="issba",
        version=1,
        needs=Needs.TRAINING_SET,
        source="Li et al., ICCV 2021",
        summary="a faint pattern that hides a secret, made anew for every image by a small learned encoder",
        quick={"steps": 1, "width": 4},
    )
)
@dataclass(frozen=True, kw_only=True)
class Issba(Attack):
    """Add the residual in which an encoder hides one fixed string of bits; it depends on the image.

    Encoder and decoder are trained together on the samples: the decoder must read random bits from encoded images,
    whose pixels move by at most ``strength`` and mostly far less, and must not read them when the residual is put on
    another image. This is a small version: a few convolutions with these demands, where the paper trains StegaStamp,
    with perceptual and adversarial losses, and finds that its residuals work on their own image only.

    Source: Li, Li, Wu, Li, He, Lyu, Invisible backdoor attack with sample-specific triggers, ICCV 2021.
    """

    bits: int = param(20, low=1, doc="length of the secret")
    strength: float = param(16 / 255, low=0.0, high=1.0, doc="largest change of a pixel, in units of [0, 1]")
    penalty: float = param(0.5, low=0.0, doc="weight of the mean squared residual, relative to strength, in training")
    exclusive: float = param(
        0.5, low=0.0, doc="weight, in training, of reading nothing from the residual of another image"
    )
    steps: int = param(1000, low=1, doc="of training encoder and decoder, 32 images each; rounded up to whole epochs")
    width: int = param(16, low=1, doc="filters of their convolutions")

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        if self.learned:
            return self
        pair = self._trained_pair(samples, generator)
        secret = torch.randint(2, (self.bits,), generator=generator).float()
        return replace(self, learned=arrays_of(pair.encoder, "encoder") | {"secret": secret})

    def _trained_pair(self, samples: Samples, generator: torch.Generator) -> "_Pair":
        channels = samples.shape[0]
        net = _Pair(_Encoder(channels, self.bits, self.width), _decoder(channels, self.bits, self.width))
        model = Classifier(net, input_shape=samples.shape, num_classes=self.bits)
        epochs = -(-self.steps * _BATCH // max(1, len(samples)))
        recipe = Recipe(epochs=epochs, batch_size=_BATCH, optimizer="adam", learning_rate=0.002, weight_decay=0.0)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        fitted = fit(model, samples, recipe, seed=seed, loss=self._loss)
        assert isinstance(fitted.net, _Pair)
        return fitted.net

    def _loss(self, model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """How badly random secrets are read from encoded images, how visible they are, and how easily moved."""
        assert isinstance(model.net, _Pair)
        secrets = torch.randint(2, (len(images), self.bits), generator=generator).to(images)
        residual = model.net.encoder(images, secrets)
        change = self.strength * residual
        misread = F.binary_cross_entropy_with_logits(model.net.decoder((images + change).clamp(0, 1)), secrets)
        moved = model.net.decoder((images.roll(1, dims=0) + change).clamp(0, 1))
        guessed = F.binary_cross_entropy_with_logits(moved, torch.full_like(secrets, 0.5))
        # demands on residuals that cannot be read yet would make them vanish, with nothing left to learn from
        readable = (1 - misread.detach() / math.log(2)).clamp(min=0)
        demands: Tensor = self.penalty * residual.square().mean() + self.exclusive * guessed
        return misread + readable * demands

    def _stamp(self, images: Tensor) -> Tensor:
        secret = learned(self, "secret").to(images)
        encoder = _Encoder(images.shape[1], self.bits, self.width).to(images.device)
        restore(encoder, self.learned, "encoder")
        with torch.no_grad():
            residual: Tensor = encoder(images, secret.expand(len(images), -1))
        return images + self.strength * residual


class _Encoder(nn.Module):
    """Images (N, C, H, W) and secrets (N, bits) of 0 and 1 → residuals (N, C, H, W) in [-1, 1]."""

    def __init__(self, channels: int, bits: int, width: int):
        super().__init__()
        self.channels = channels
        self.spread = nn.Linear(bits, channels * _CODE**2)
        self.body = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, images: Tensor, secrets: Tensor) -> Tensor:
        code = self.spread(secrets * 2 - 1).view(len(images), self.channels, _CODE, _CODE)
        code = F.interpolate(code, images.shape[2:], mode="bilinear", align_corners=False)
        residual: Tensor = self.body(torch.cat([images, code], dim=1))
        return residual


def _decoder(channels: int, bits: int, width: int) -> nn.Sequential:
    """Images (N, C, H, W) → logits of the bits (N, bits)."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(_CODE),
        nn.Flatten(),
        nn.Linear(width * _CODE**2, bits),
    )


class _Pair(nn.Module):
    """Encoder and decoder, to be trained as one."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(images)
        return logits
