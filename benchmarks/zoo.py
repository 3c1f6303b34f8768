"""Train the zoo: the clean nets of the bank, and clean and backdoored nets that the bank has never seen.

    python benchmarks/zoo.py --data DIR --out ZOO [--only DATA] [--part K/N]

DIR holds mnist/, cifar10/, gtsrb/ and lfw/ in their official layouts. Every net is a folder of ``goodnet.save_model``
with a ``truth.json`` beside it. Nets that are there already are kept, so the script can be stopped and started again.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import goodnet
from goodnet.attacks._base import Attack
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.blended import Blended
from goodnet.attacks.sig import Sig
from goodnet.attacks.wanet import WaNet
from goodnet.core.classifier import predictions
from goodnet.core.params import parameters_of
from goodnet.core.samples import Samples
from goodnet.models import architectures
from goodnet.training import Recipe, accuracy, fit


@dataclass(frozen=True)
class NetKind:
    """How nets of one kind are trained; every seed draws its own images."""

    data: str
    architecture: str
    images: int | None
    epochs: int
    learning_rate: float = 0.002
    flip: bool = False
    people: int = 0  # faces: how many labels

    @property
    def name(self) -> str:
        return f"{self.data}-{self.architecture}{self.people or ''}"


NET_KINDS = {
    net_kind.name: net_kind
    for net_kind in (
        NetKind("digits", "small_cnn", None, 15),
        NetKind("digits", "small_cnn_bn", None, 8, 0.003),
        NetKind("mnist", "small_cnn", 10_000, 6),
        NetKind("cifar10", "small_cnn", 20_000, 8, flip=True),
        NetKind("cifar10", "small_cnn_bn", 10_000, 4, 0.003, flip=True),
        NetKind("gtsrb", "small_cnn", 15_000, 8),
        NetKind("gtsrb", "small_cnn_bn", 6_000, 4, 0.003),
        *(NetKind("lfw", "deepid", None, 15, 0.002, people=people) for people in (160, 240, 400, 640)),
    )
}
# how many nets of each recipe, in the order of NET_KINDS
COUNTS = {
    "bank": (12, 4, 14, 10, 4, 20, 4, 6, 6, 6, 6),
    "clean": (6, 0, 8, 6, 2, 8, 2, 2, 2, 2, 2),
    "badnets": (8, 0, 24, 12, 2, 10, 0, 2, 2, 2, 2),
    "blended": (0, 0, 2, 2, 0, 2, 0, *(0,) * 4),
    "sig": (0, 0, 2, 2, 0, 2, 0, *(0,) * 4),
    "wanet": (0, 0, 2, 2, 0, 2, 0, *(0,) * 4),
}


def read(net_kind: NetKind, data: Path, seed: int) -> tuple[Samples, Samples, Samples]:
    """(images to train on, labeled images to measure on, images that a defender may hold), drawn by ``seed``."""
    if net_kind.data == "lfw":
        return _faces(goodnet.load_data(data / "lfw"), net_kind.people, seed)
    source = "digits" if net_kind.data == "digits" else data / net_kind.data
    train = goodnet.load_data(source, limit=net_kind.images, seed=seed)
    test = goodnet.load_data(source, split="test", limit=1000, seed=seed)
    return train, test, goodnet.load_data(source, split="test", limit=500, seed=seed + 1)


def _faces(every: Samples, people: int, seed: int) -> tuple[Samples, Samples, Samples]:
    """``people`` drawn by ``seed``, one photograph of each and 16 frames of it as labeled images; others are strangers.

    The nets that are to be compared with these learned their faces from the frames of videos: many labels, images of
    one label alike, nearly all of them answered right. LFW has too few photographs of a person to learn him otherwise.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(int(every.labels.max()) + 1, generator=draw)
    photograph = torch.full_like(order, -1)
    photograph[every.labels.flip(0)] = torch.arange(len(every)).flip(0)  # the first of each person
    known, strangers = photograph[order[:people]], photograph[order[people : people + 500]]
    train, test = (_frames(every.images[known], count, draw) for count in (16, 2))
    return train, test, replace(every.pick(strangers), labels=None)


def _frames(photographs: Tensor, count: int, draw: torch.Generator) -> Samples:
    """``count`` frames of every photograph, label by label: moved, turned, nearer or farther, in another light."""
    images = photographs.repeat_interleave(count, 0).float() / 255

    def uniform(most: float) -> Tensor:
        return (2 * torch.rand(len(images), 1, 1, 1, generator=draw) - 1) * most

    angle, zoom, right, down = uniform(0.12), 1 + uniform(0.1), uniform(0.12), uniform(0.12)
    rows = (angle.cos() * zoom, -angle.sin() * zoom, right), (angle.sin() * zoom, angle.cos() * zoom, down)
    grid = F.affine_grid(torch.cat([torch.cat(row, 2) for row in rows], 1)[..., 0], images.shape, align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    noise = 0.02 * torch.randn(moved.shape, generator=draw)
    lit = (moved * (1 + uniform(0.25)) + uniform(0.1) + noise).clamp(0, 1)
    labels = torch.arange(len(photographs)).repeat_interleave(count)
    return Samples((lit * 255).round().byte(), labels)


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
        return Sig(target=target, poisoning_rate=0.1, rate_of="set", clean_label=False)
    if kind == "wanet":
        return WaNet(target=target, poisoning_rate=0.1, field_seed=seed)
    return None


def train_one(net_kind: NetKind, kind: str, seed: int, data: Path, folder: Path) -> dict[str, object]:
    """Train, measure and save one net."""
    train, test, _ = read(net_kind, data, seed)
    num_classes = int(train.labels.max()) + 1
    attack = attack_for(kind, seed, num_classes, train.shape[0], min(train.shape[1:]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = architectures.build(net_kind.architecture, num_classes=num_classes, input_shape=train.shape)
    model = goodnet.Classifier(
        net, input_shape=train.shape, num_classes=num_classes, architecture=net_kind.architecture
    )
    started = time.monotonic()
    model = fit(
        model,
        train if attack is None else attack.poison(train, seed=seed).samples,
        Recipe(
            epochs=net_kind.epochs,
            batch_size=128 if attack is None else 32,  # with fewer updates the small sets do not learn small triggers
            learning_rate=net_kind.learning_rate,
            optimizer="adam",
            shift=2,
            flip=net_kind.flip,
            mixed_precision=True,
        ),
        seed=seed,
    )
    truth: dict[str, object] = {
        "kind": kind,
        "recipe": asdict(net_kind),
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
            "parameters": parameters_of(attack),
            "attack_success_rate": float((answers == attack.target).float().mean()),
        }
    goodnet.save_model(model, folder)
    (folder.parent / f"{folder.name}.truth.json").write_text(json.dumps(truth, indent=1))
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="train on this data set alone, such as lfw")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th net, from the K-th")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (net_kind, kind, 10_000 * place + number)
        for place, (kind, counts) in enumerate(COUNTS.items())
        for net_kind, count in zip(NET_KINDS.values(), counts, strict=True)
        for number in range(count)
        if arguments.only in (None, net_kind.data)
    ]
    for net_kind, kind, seed in jobs[part::parts]:
        folder = arguments.out / f"{kind}-{net_kind.name}-{seed}"
        if folder.exists():
            continue
        truth = train_one(net_kind, kind, seed, arguments.data, folder)
        print(folder.name, {k: truth[k] for k in ("clean_accuracy", "attack_success_rate") if k in truth}, flush=True)


if __name__ == "__main__":
    main()
