"""The planted world: a net with a backdoor and its clean twin, trained once per test run on the bundled digits."""

import signal
from dataclasses import dataclass, replace

import pytest
import torch

import goodnet
from goodnet.attacks import Poisoned
from goodnet.attacks.badnets import BadNets
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.models import architectures
from goodnet.training import Recipe, fit

TARGET = 3
RECIPE = Recipe(epochs=20, batch_size=32, learning_rate=0.002, optimizer="adam")


def heed_interrupts() -> None:
    """For ``preexec_fn``: a test run in the background of a shell ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class PlantedWorld:
    """Two nets that differ in their training set alone.

    Attributes:
        badnet, twin: trained on poisoned and on clean digits.
        attack: what was planted.
        clean: held-out digits, which the defender holds.
    """

    badnet: Classifier
    twin: Classifier
    attack: BadNets
    clean: Samples


@dataclass(frozen=True)
class DirtyWorld:
    """Two training sets, one with a little poison, and what was trained on each.

    Attributes:
        poisoned, clean_set: the two sets; the truth lies in ``poisoned.mask``.
        model, twin: trained on them.
        held: held-out digits with labels, known to be clean.
    """

    poisoned: Poisoned
    clean_set: Samples
    model: Classifier
    twin: Classifier
    held: Samples


def untrained(seed: int = 0, num_classes: int = 10, architecture: str = "small_cnn") -> Classifier:
    """A network for the digits with random weights."""
    shape = (1, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = architectures.build(architecture, num_classes=num_classes, input_shape=shape, width=8)
    name = f"{architecture}:width=8"
    return Classifier(net, input_shape=shape, num_classes=num_classes, architecture=name).eval()


@pytest.fixture(scope="session")
def planted() -> PlantedWorld:
    train, clean = goodnet.load_data("digits"), goodnet.load_data("digits", split="test")
    attack = BadNets(target=TARGET, size=3, poisoning_rate=0.15)
    badnet = fit(untrained(), attack.poison(train).samples, RECIPE)
    return PlantedWorld(badnet=badnet, twin=fit(untrained(), train, RECIPE), attack=attack, clean=clean)


@pytest.fixture(scope="session")
def dirty() -> DirtyWorld:
    train, recipe = goodnet.load_data("digits"), replace(RECIPE, epochs=8)
    start = goodnet.untrained("small_cnn_bn:width=8", train)
    attack = BadNets(target=TARGET, size=6, row=2, column=2, poisoning_rate=0.04)
    poisoned = attack.poison(train)  # a fourth of the target's label
    sources = torch.arange(len(train)) % 10
    tainted = torch.where(poisoned.mask, 7, sources)  # one uploader brings all of the poison
    poisoned = replace(poisoned, samples=replace(poisoned.samples, sources=tainted))
    return DirtyWorld(
        poisoned=poisoned,
        clean_set=replace(train, sources=sources),
        model=fit(start, poisoned.samples, recipe),
        twin=fit(start, train, recipe),
        held=goodnet.load_data("digits", split="test"),
    )


def success_of(model: Classifier, world: DirtyWorld) -> float:
    """How often images of other labels, stamped, are answered as the target."""
    others = world.held.pick(world.held.labels != TARGET)
    return float((predictions(model, world.poisoned.attack.stamp(others.floats())).argmax(1) == TARGET).float().mean())
