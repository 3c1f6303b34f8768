"""What methods are tried on."""

from dataclasses import dataclass

import torch

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.models import architectures


@dataclass(frozen=True)
class World:
    """What methods are tried on: a defender who holds everything, and labeled samples to poison."""

    defender: Defender
    samples: Samples


def small_world(seed: int = 0) -> World:
    """An untrained network of ten labels and forty random grey images of 16x16 pixels: every method runs, fast."""
    shape, classes = (1, 16, 16), 10
    with isolated_rng(seed) as generator:
        images = torch.randint(256, (40, *shape), generator=generator, dtype=torch.uint8)
        net = architectures.build("small_cnn", num_classes=classes, input_shape=shape, width=4)
    model = Classifier(net, input_shape=shape, num_classes=classes, architecture="small_cnn").train()
    samples = Samples(images=images, labels=torch.arange(40) % classes)
    return World(Defender(model=model, clean=samples, training_set=samples), samples)
