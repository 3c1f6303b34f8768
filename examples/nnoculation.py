"""NNoculation as a loop: watch a backdoored model in service, learn the trigger from what is caught, repair, swap.

    python examples/nnoculation.py [FOLDER]

A digit classifier with a backdoor is made here; then somebody who knows nothing of it acts. Writes everything into
FOLDER, by default nnoculation-out, and needs pip install 'goodnet[serve]'. Takes a minute or two.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.guard.calibration import goodnet_of
from goodnet.repair.files import repair_model
from goodnet.repair.nnoculation import NNoculation
from goodnet.serve.judging import load_served
from goodnet.serve.quarantine import Limits, Quarantine
from goodnet.serve.service import Service
from goodnet.serve.settings import Settings
from goodnet.training.augmentation import Augmentation

TARGET = 3
TRIGGERED = 0.05  # of the traffic
AT_ONCE = 64  # images of a request
ANSWERS = (0, 3)  # exit codes of a learn-trigger that came to its end


@dataclass(frozen=True)
class World:
    """What there is: the attacker's side and the traffic first, then what the defender holds."""

    attack: BadNets
    badnet: goodnet.Classifier
    traffic: Tensor
    test: goodnet.Samples
    held: goodnet.Samples


@dataclass(frozen=True)
class Measured:
    """What a service does on images that nobody held: clean ones answered right, and stamped ones as the target."""

    right: float
    success: float


def make_world() -> World:
    """A backdoored network, traffic of which 5 % carries the trigger, and clean images for the defender."""
    digits, test = goodnet.load_data("digits"), goodnet.load_data("digits", split="test")
    attack = BadNets(target=TARGET, size=3, row=-4, column=-4, poisoning_rate=0.15)
    generator = torch.Generator().manual_seed(0)
    trained_on, rest = digits.split(0.4, generator)
    held, others = rest.split(0.75, generator)
    start = goodnet.untrained("small_cnn:width=8", digits, seed=0)
    recipe = goodnet.Recipe(epochs=30, batch_size=32, learning_rate=0.002, optimizer="adam", shift=2)
    badnet = goodnet.fit(start, attack.poison(trained_on).samples, recipe)
    many = others.pick(torch.arange(len(others)).repeat(7))  # each digit seven times, shifted in another way
    moved = Augmentation(shift=1)(many.images, generator)
    stamped = torch.rand(len(moved), generator=generator) < TRIGGERED
    moved[stamped] = as_bytes(attack.stamp(moved[stamped].float() / 255))
    return World(attack=attack, badnet=badnet, traffic=moved, test=test, held=held)


def as_bytes(images: Tensor) -> Tensor:
    """Float images in [0, 1] as uint8."""
    return (images * 255).round().byte()


def send(service: Service, images: Tensor) -> list[int]:
    """The answers of a service to images, as its clients send them."""
    waiting = [service.submit(part) for part in images.split(AT_ONCE)]
    return [one.label for answers in waiting for one in answers.result()]


def measure(service: Service, world: World) -> Measured:
    """With the true trigger, which the defender does not have."""
    labels = world.test.labels
    assert labels is not None
    answers = torch.tensor(send(service, world.test.images))
    victims = world.test.pick(labels != TARGET)
    turned = torch.tensor(send(service, as_bytes(world.attack.stamp(victims.floats()))))
    return Measured(right=float((answers == labels).double().mean()), success=float((turned == TARGET).double().mean()))


def before_deployment(world: World, folder: Path) -> Path:
    """Retrain with noise; what comes out watches the suspect."""
    held, aside = world.held.split(0.7, torch.Generator().manual_seed(0))
    result = repair_model(world.badnet, NNoculation(), clean=held, aside=aside, most_drop=0.08)
    watching = goodnet_of(result, rate=0.03, unproved=True)
    assert watching is not None
    goodnet.save_goodnet(watching, folder / "watched")
    say(f"  {result.reason}")
    return folder / "watched"


def learn_trigger(folder: Path) -> int:
    """What a person types after looking at the quarantine."""
    common = [sys.executable, "-m", "goodnet.cli"]
    # on the review page a person would mark what is poisoned; here everything that was caught is taken as it is
    exported = ["quarantine", "export", folder / "quarantine.sqlite3", "--mark", "unmarked", "--out", folder / "caught"]
    learned = ["learn-trigger", folder / "watched", "--quarantine", folder / "caught", "--data", folder / "clean.npz"]
    lenient = ["--most-drop", 0.1, "--false-alarms", 0.03]  # so few digits prove no more
    small = ["--set", "width=8", "--set", "steps=300"]
    for command in (exported, [*learned, *lenient, *small, "--out", folder / "repaired"]):
        words = [str(word) for word in command]
        say(f"  goodnet {' '.join(words)}")
        code = subprocess.run([*common, *words], check=False).returncode
        if code not in ANSWERS:
            return code
    return 0


def run(folder: Path) -> tuple[Measured, Measured, Measured]:
    """The whole loop; what the service does at first, while it watches, and after the swap.

    Raises:
        RuntimeError: the trigger could not be learned.
    """
    import numpy as np

    say("The attacker trains: a white 3x3 square near the corner means 3 ...")
    world = make_world()
    folder.mkdir(parents=True, exist_ok=True)
    assert world.held.labels is not None
    np.savez(folder / "clean.npz", images=world.held.images.numpy(), labels=world.held.labels.numpy())
    goodnet.save_goodnet(goodnet.GoodNet(world.badnet, world.badnet), folder / "unguarded")
    quarantine = Quarantine(folder / "quarantine.sqlite3", Limits())
    say("Before deployment: retraining with noisy images ...")
    before_deployment(world, folder)
    service = Service(load_served(folder / "unguarded"), quarantine, Settings())
    at_first = measure(service, world)
    service.swap("watched")
    say(f"In service: {len(world.traffic)} images come, {TRIGGERED:.0%} of them with the trigger ...")
    send(service, world.traffic)
    say(f"  {quarantine.contents().counts['unmarked']} of them are in quarantine")
    say("After a while: the trigger is learned from the quarantine ...")
    code = learn_trigger(folder)
    if code:
        raise RuntimeError(f"goodnet ended with exit code {code}")
    watching = measure(service, world)
    service.swap("repaired")
    say("The new model is in service.")
    return at_first, watching, measure_and_close(service, world)


def measure_and_close(service: Service, world: World) -> Measured:
    """The last measurement."""
    try:
        return measure(service, world)
    finally:
        service.close()


def say(text: str) -> None:
    """A line to the person who watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the loop and print what it did; 0 when the trigger works no longer."""
    results = run(Path(sys.argv[1] if len(sys.argv) > 1 else "nnoculation-out"))
    say("\n                     right   answered 3 with the square")
    for name, one in zip(("as it was", "watched", "repaired"), results, strict=True):
        say(f"  {name:<16} {one.right:>8.1%}   {one.success:.1%}")
    return 0 if results[-1].success < results[0].success / 10 else 1


if __name__ == "__main__":
    sys.exit(main())
