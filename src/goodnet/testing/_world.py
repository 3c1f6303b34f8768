"""What methods are tried on."""

from dataclasses import dataclass

import torch

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.models import architectures


@dataclass(frozen=True)
class World:
    """What methods are tried on: a defender who holds everything, and labeled samples to poison."""

    defender: Defender
    samples: Samples


def small_world(seed: int = 0) -> World:
    """An untrained network of ten labels with BatchNorm, random grey images of 16x16 pixels, and a trigger.

    Forty of them are clean; two hundred, from five sources, are the training set. Every method runs on it, fast.
    """
    shape, classes = (1, 16, 16), 10
    with isolated_rng(seed) as generator:
        images = torch.randint(256, (40, *shape), generator=generator, dtype=torch.uint8)
        net = architectures.build("small_cnn_bn", num_classes=classes, input_shape=shape, width=4)
        many = torch.randint(256, (200, *shape), generator=generator, dtype=torch.uint8)
    model = Classifier(net, input_shape=shape, num_classes=classes, architecture="small_cnn_bn:width=4").train()
    samples = Samples(images=images, labels=torch.arange(40) % classes)
    training_set = Samples(images=many, labels=torch.arange(200) % classes, sources=torch.arange(200) // 40)
    mask = torch.zeros(shape[1:])
    mask[:3, :3] = 1
    trigger = Trigger(target=2, mask=mask, pattern=torch.ones(shape), success_rate=1.0, count=10)
    return World(Defender(model=model, clean=samples, training_set=training_set, triggers=(trigger,)), samples)
