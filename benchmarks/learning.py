"""What do learners leave of a backdoor, and of the accuracy, on real images? Beside plain training, in one run.

    python benchmarks/learning.py --data DIR                                  plain and abl, 5,000 images, BadNets 10 %
    python benchmarks/learning.py --data DIR --learner plain --learner retrain
    python benchmarks/learning.py --data DIR --images 50000 --arch resnet18 --device cuda

DIR is a data set in its official layout with a test part, such as CIFAR-10. All learners get the same poisoned set, the
same recipe and the same seed. What is told of the truth (accuracy and success on test images, how much of what was set
off is poison) is measured afterwards: no learner sees it. One seed a row; give others with --seed.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import goodnet
from goodnet.attacks import Poisoned
from goodnet.attacks.badnets import BadNets
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.samples import Samples
from goodnet.evaluation import attack_success, clean_accuracy
from goodnet.learn._base import Learned, learners
from goodnet.models.untrained import untrained
from goodnet.training import Recipe


def told(learned: Learned, poisoned: Poisoned, test: Samples) -> str:
    """One line of figures about one learner."""
    plain, stamped = (
        predictions(learned.model, images).argmax(1).cpu()
        for images in (test.floats(), poisoned.attack.stamp(test.floats()))
    )
    goals = torch.full_like(test.labels, poisoned.attack.target)
    right, success = clean_accuracy(plain, test.labels), attack_success(stamped, test.labels, goals)
    line = f"accuracy {right.value:.1%} of {right.count}   success {success.value:.1%} of {success.count}"
    return line + set_off(learned.distrusted, poisoned.mask)


def set_off(distrusted: Tensor | None, truth: Tensor) -> str:
    if distrusted is None or not distrusted.any():
        return ""
    return f"   set off {int(distrusted.sum())}, of them poison {float(truth[distrusted].double().mean()):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--learner", action="append", choices=learners.names())
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--arch", default="small_cnn_bn:width=16")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.1, help="share of the set that is poisoned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    train = goodnet.load_data(arguments.data, limit=arguments.images, seed=arguments.seed)
    test = goodnet.load_data(arguments.data, split="test", limit=2000, seed=arguments.seed)
    poisoned = BadNets(poisoning_rate=arguments.rate).poison(train, seed=arguments.seed)
    recipe = Recipe(epochs=arguments.epochs, learning_rate=0.1, shift=2, flip=True)
    for name in arguments.learner or ["plain", "abl"]:
        model = untrained(arguments.arch, train, seed=arguments.seed).to(arguments.device)
        defender = Defender(model=model, training_set=poisoned.samples)
        learned = learners[name](recipe=recipe).run(defender, seed=arguments.seed)
        print(f"{name:8} {told(learned, poisoned, test)}   {learned.provenance.seconds:.0f} s", flush=True)
        for note, value in learned.notes.items():
            print(f"  {note:24} {value:.4g}")


if __name__ == "__main__":
    main()
