"""The demo: a backdoored digit classifier and its clean twin, trained here, audited by the command line.

    python examples/demo.py [FOLDER]

Writes both models and the report into FOLDER, by default demo-out.
"""

import subprocess
import sys
from pathlib import Path

import torch

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.core.classifier import predictions
from goodnet.models import architectures
from goodnet.training import Recipe, accuracy, fit

TARGET = 3
ANSWERS = (0, 1, 3)  # exit codes of an audit that came to its end


def train(samples: goodnet.Samples) -> goodnet.Classifier:
    """A small convolutional network for 32x32 digits."""
    torch.manual_seed(0)
    model = goodnet.Classifier(
        architectures.build("small_cnn", num_classes=10, input_shape=samples.shape),
        input_shape=samples.shape,
        num_classes=10,
        architecture="small_cnn",
        class_names=samples.class_names,
    )
    return fit(model, samples, Recipe(epochs=20, batch_size=32, learning_rate=0.002, optimizer="adam", shift=2))


def main() -> int:
    """Train, save, audit; 0 when both audits came to an answer."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    training_set, test_set = goodnet.load_data("digits"), goodnet.load_data("digits", split="test")
    attack = BadNets(target=TARGET, size=3, row=-4, column=-4)

    say("Training a clean network and one with a backdoor: a white 3x3 square near the corner means 3 ...")
    clean = train(training_set)
    backdoored = train(attack.poison(training_set).samples)
    stamped = attack.stamp(test_set.pick(test_set.labels != TARGET).floats())
    for name, model in (("clean", clean), ("backdoored", backdoored)):
        fooled = float((predictions(model, stamped).argmax(1) == TARGET).float().mean())
        right = accuracy(model, test_set)
        say(f"  {name:<10}  test images right: {right:.1%}, answered {TARGET} with the square: {fooled:.1%}")
        goodnet.save_model(model, folder / name)

    say("\nAuditing both, as somebody who knows nothing of this:")
    paths = [str(folder / name) for name in ("clean", "backdoored")]
    command = ["audit", *paths, "--data", "digits", "--out", str(folder / "report")]
    say(f"  goodnet {' '.join(command)}\n")
    code = subprocess.run([sys.executable, "-m", "goodnet.cli", *command], check=False).returncode
    return 0 if code in ANSWERS else code


def say(text: str) -> None:
    """A line to the person who watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
