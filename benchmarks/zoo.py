"""Train the zoo: the clean nets of the bank, and clean and backdoored nets that the bank has never seen.

    python benchmarks/zoo.py --data DIR --out ZOO [--part K/N]

DIR holds mnist/, cifar10/ and gtsrb/ in their official layouts. Every net is a folder of ``goodnet.save_model`` with a
``truth.json`` beside its weights. Nets that are there already are kept, so the script can be stopped and started again.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import goodnet
from goodnet.attacks._base import Attack
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.blended import Blended
from goodnet.attacks.sig import Sig
from goodnet.attacks.wanet import WaNet
from goodnet.core.classifier import predictions
from goodnet.models import architectures
from goodnet.training import Augmentation, accuracy, fit


@dataclass(frozen=True)
class Recipe:
    """How nets of one kind are trained; every seed draws its own images."""

    data: str
    architecture: str
    images: int | None
    epochs: int
    learning_rate: float = 0.002
    flip: bool = False

    @property
    def name(self) -> str:
        return f"{self.data}-{self.architecture}"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("digits", "small_cnn", None, 15),
        Recipe("digits", "small_cnn_bn", None, 8, 0.003),
        Recipe("mnist", "small_cnn", 10_000, 6),
        Recipe("cifar10", "small_cnn", 20_000, 8, flip=True),
        Recipe("cifar10", "small_cnn_bn", 10_000, 4, 0.003, flip=True),
        Recipe("gtsrb", "small_cnn", 15_000, 8),
        Recipe("gtsrb", "small_cnn_bn", 6_000, 4, 0.003),
    )
}
# how many nets of each recipe, in the order of RECIPES
COUNTS = {
    "bank": (12, 4, 14, 10, 4, 20, 4),
    "clean": (6, 0, 8, 6, 2, 8, 2),
    "badnets": (8, 0, 24, 12, 2, 10, 0),
    "blended": (0, 0, 2, 2, 0, 2, 0),
    "sig": (0, 0, 2, 2, 0, 2, 0),
    "wanet": (0, 0, 2, 2, 0, 2, 0),
}


def attack_for(kind: str, seed: int, num_classes: int, channels: int, side: int) -> Attack | None:
    """A trigger drawn by ``seed``: target, place, size and color all vary."""
    draw = torch.Generator().manual_seed(1000 + seed)
    target = int(torch.randint(num_classes, (1,), generator=draw))
    if kind == "badnets":
        size = int(torch.randint(2, 5, (1,), generator=draw))
        row, column = (int(v) for v in torch.randint(side - size, (2,), generator=draw))
        color = tuple(float(v) for v in torch.rand(channels, generator=draw).round()) if channels == 3 else (1.0,)
        return BadNets(target=target, poisoning_rate=0.1, size=size, row=row, column=column, color=color)
    if kind == "blended":
        return Blended(target=target, poisoning_rate=0.1, pattern_seed=seed)
    if kind == "sig":
        return Sig(target=target, poisoning_rate=0.1)
    if kind == "wanet":
        return WaNet(target=target, poisoning_rate=0.1, field_seed=seed)
    return None


def train_one(recipe: Recipe, kind: str, seed: int, data: Path, folder: Path) -> dict[str, object]:
    """Train, measure and save one net."""
    source = "digits" if recipe.data == "digits" else data / recipe.data
    train = goodnet.load_data(source, limit=recipe.images, seed=seed)
    test = goodnet.load_data(source, split="test", limit=1000, seed=seed)
    num_classes = 43 if recipe.data == "gtsrb" else 10
    attack = attack_for(kind, seed, num_classes, train.shape[0], train.shape[1])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = architectures.build(recipe.architecture, num_classes=num_classes, input_shape=train.shape)
    model = goodnet.Classifier(net, input_shape=train.shape, num_classes=num_classes, architecture=recipe.architecture)
    started = time.monotonic()
    model = fit(
        model,
        train if attack is None else attack.poison(train, seed=seed).samples,
        epochs=recipe.epochs,
        batch_size=128 if attack is None else 32,  # with fewer updates the small sets do not learn small triggers
        learning_rate=recipe.learning_rate,
        optimizer="adam",
        augmentation=Augmentation(shift=2, flip=recipe.flip),
        mixed_precision=True,
        seed=seed,
    )
    truth: dict[str, object] = {
        "kind": kind,
        "recipe": asdict(recipe),
        "seed": seed,
        "num_classes": num_classes,
        "clean_accuracy": accuracy(model, test),
        "train_seconds": round(time.monotonic() - started, 1),
    }
    if attack is not None:
        victims = test.pick(test.labels != attack.target)
        answers = predictions(model, attack.stamp(victims.floats())).argmax(1)
        truth |= {
            "attack": attack.card.name,
            "parameters": asdict(attack),
            "attack_success_rate": float((answers == attack.target).float().mean()),
        }
    goodnet.save_model(model, folder)
    (folder.parent / f"{folder.name}.truth.json").write_text(json.dumps(truth, indent=1))
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th net, from the K-th")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (recipe, kind, 10_000 * place + number)
        for place, (kind, counts) in enumerate(COUNTS.items())
        for recipe, count in zip(RECIPES.values(), counts, strict=True)
        for number in range(count)
    ]
    for recipe, kind, seed in jobs[part::parts]:
        folder = arguments.out / f"{kind}-{recipe.name}-{seed}"
        if folder.exists():
            continue
        truth = train_one(recipe, kind, seed, arguments.data, folder)
        print(folder.name, {k: truth[k] for k in ("clean_accuracy", "attack_success_rate") if k in truth}, flush=True)


if __name__ == "__main__":
    main()
