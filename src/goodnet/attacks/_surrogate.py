"""Attacks with a network of the attacker's own, in place of a victim that is not known, and steps downhill on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from goodnet.attacks._base import Attack
from goodnet.attacks._learned import arrays_of, learned, restore
from goodnet.core.classifier import Classifier, Preprocessing
from goodnet.core.params import param
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError
from goodnet.models import architectures
from goodnet.training import Loss, Recipe, cross_entropy, fit


@dataclass(frozen=True, kw_only=True)
class SurrogateAttack(Attack):
    """A clean-label attack that moves images along the gradient of a surrogate, which it trains on the samples.

    Attributes:
        learned: ``surrogate.*``, its arrays, and ``num_classes``.
    """

    poisoning_rate: float = param(0.5, low=0.0, high=1.0, doc="share of the target class that is poisoned")
    rate_of: Literal["set", "eligible"] = param(
        "eligible", choices=("set", "eligible"), doc="a share of the whole set, or of the images that may be poisoned"
    )
    clean_label: bool = param(True, doc="stamp images of the target class only, so that all labels stay true")
    epsilon: float = param(8 / 255, low=0.0, high=1.0, doc="farthest that a pixel is moved, in units of [0, 1]")
    step: float = param(1.5 / 255, low=0.0, high=1.0, doc="of each pixel at a time")
    steps: int = param(100, low=0, doc="along the gradient")
    surrogate: str = param("small_cnn", doc="architecture of the attacker's network, such as small_cnn:width=8")
    surrogate_epochs: int = param(5, low=1, doc="for which the attacker trains it")

    def knowing(self, model: Classifier) -> Self:
        """This attack on victims that start from ``model``, a public network, which then is the surrogate.

        Raises:
            ParameterError: it is not of a known architecture, or wants other images than those in [0, 1].
        """
        if not model.architecture or model.preprocessing != Preprocessing():
            raise ParameterError("a known network must be of a named architecture and without preprocessing")
        arrays = arrays_of(model.net, "surrogate") | {"num_classes": torch.tensor(model.num_classes)}
        return replace(self, surrogate=model.architecture, learned=arrays)

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        if self.learned:
            return self
        assert samples.labels is not None
        classes = int(samples.labels.max()) + 1
        model = self._network(samples.shape, classes)
        recipe = Recipe(epochs=self.surrogate_epochs, batch_size=64, optimizer="adam", learning_rate=0.002)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        trained = fit(model, samples, recipe, seed=seed, loss=self._surrogate_loss())
        return replace(self, learned=arrays_of(trained.net, "surrogate") | {"num_classes": torch.tensor(classes)})

    def _surrogate_loss(self) -> Loss:
        """What the attacker's own training minimizes."""
        return cross_entropy

    def _trained(self, images: Tensor) -> Classifier:
        """The surrogate for images of this shape, frozen."""
        channels, height, width = images.shape[1:]
        model = self._network((channels, height, width), int(learned(self, "num_classes")))
        restore(model.net, self.learned, "surrogate")
        return model.to(images.device).requires_grad_(False).eval()

    def _network(self, shape: tuple[int, int, int], classes: int) -> Classifier:
        net = architectures.build(self.surrogate, num_classes=classes, input_shape=shape)
        return Classifier(net, input_shape=shape, num_classes=classes, architecture=self.surrogate)


def descend(images: Tensor, loss: Callable[[Tensor], Tensor], *, epsilon: float, step: float, steps: int) -> Tensor:
    """Images in [0, 1], no pixel farther than ``epsilon`` from ``images``, with a smaller ``loss``, a scalar.

    Projected steps against the sign of the gradient (Madry et al., Towards deep learning models resistant to
    adversarial attacks, ICLR 2018), without a random start.
    """
    low, high = (images - epsilon).clamp(0, 1), (images + epsilon).clamp(0, 1)
    moved = images
    for _ in range(steps):
        with torch.enable_grad():
            moved = moved.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(moved), moved)
        moved = (moved.detach() - step * gradient.sign()).clamp(low, high)
    return moved.detach()


def adversarial_cross_entropy(epsilon: float, steps: int) -> Loss:
    """Cross-entropy on images moved so as to raise it: adversarial training (Madry et al., ICLR 2018)."""

    def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        def to_lower(moved: Tensor) -> Tensor:
            return -cross_entropy(model, moved, labels, generator)

        moved = descend(images, to_lower, epsilon=epsilon, step=2.5 * epsilon / steps, steps=steps)
        return cross_entropy(model, moved, labels, generator)

    return loss
