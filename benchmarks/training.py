"""How fast is the training loop, and how much memory does it hold? Ratios measured side by side; asserts nothing.

    python benchmarks/training.py [--arch gtsrb_cnn] [--device cpu] [--repeats 5]      images/s beside a bare step loop
    python benchmarks/training.py --start-up DIR                                       seconds until the first step
    python benchmarks/training.py --memory [--images 600000]                           resident memory, 55x47 on disk

The bare loop has the same net, batch and precision on ready-made batches: no data, no augmentation, no schedule.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import goodnet
from goodnet.core.samples import Samples
from goodnet.models.untrained import untrained
from goodnet.training import Recipe, fit

RECIPE = Recipe(epochs=1, batch_size=128, learning_rate=0.01, shift=2, flip=True, mixed_precision=True)


def noise(count: int, shape: tuple[int, int, int], classes: int) -> Samples:
    images = torch.randint(256, (count, *shape), dtype=torch.uint8)
    return Samples(images=images, labels=torch.arange(count) % classes)


def bare_seconds(model: goodnet.Classifier, samples: Samples) -> float:
    """One epoch's steps on one ready-made batch."""
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = RECIPE.build_optimizer(model)
    chosen = slice(0, RECIPE.batch_size)
    batch = (samples.images[chosen].float() / 255).to(model.device).contiguous(memory_format=torch.channels_last)
    labels = samples.labels[chosen].to(model.device)
    started = time.perf_counter()
    for _ in range(len(samples) // RECIPE.batch_size):
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = model(batch)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def speed(arguments: argparse.Namespace) -> None:
    shape = (3, 55, 47) if arguments.arch == "deepid" else (3, 32, 32)
    samples = noise(arguments.images or 5120, shape, 43)
    ours, bare = [], []
    for repeat in range(arguments.repeats + 1):  # the first pair warms up
        model = untrained(arguments.arch, samples, seed=repeat).to(arguments.device)
        started = time.perf_counter()
        fit(model, samples, RECIPE)
        ours.append(time.perf_counter() - started)
        bare.append(bare_seconds(model, samples))
    ratios = [limit / own for own, limit in zip(ours[1:], bare[1:], strict=True)]
    rate = len(samples) / statistics.median(ours[1:])
    print(
        f"{arguments.arch}: {rate:,.0f} images/s, bare loop {len(samples) / statistics.median(bare[1:]):,.0f} images/s"
    )
    print(f"share of the bare loop: median {statistics.median(ratios):.1%}, {min(ratios):.1%} to {max(ratios):.1%}")


def start_up(arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    samples = goodnet.load_data(arguments.start_up)
    loaded = time.perf_counter() - began
    model = untrained(arguments.arch, samples, seed=0).to(arguments.device)
    started = time.perf_counter()
    fit(model, samples.pick(torch.arange(RECIPE.batch_size)), RECIPE)
    print(f"{len(samples)} images read in {loaded:.2f} s, first step done {time.perf_counter() - started:.2f} s later")


def memory(arguments: argparse.Namespace) -> None:
    count = arguments.images or 600_000
    with tempfile.TemporaryDirectory() as folder:
        images = np.lib.format.open_memmap(Path(folder) / "images.npy", "w+", np.uint8, (count, 3, 55, 47))
        for start in range(0, count, 10_000):
            images[start : start + 10_000] = np.random.default_rng(start).integers(256, size=(1, 3, 55, 47))
        del images
        mapped = np.load(Path(folder) / "images.npy", mmap_mode="c")  # torch wants arrays that it may write to
        torch_images = torch.from_numpy(mapped)
        samples = Samples(images=torch_images, labels=torch.arange(count) % 100)
        fit(untrained("small_cnn", samples, seed=0), samples, RECIPE, progress=lambda _, text: print(text))
        own, mapped_pages = resident("RssAnon"), resident("RssFile")
    print(f"{count} images, {count * 3 * 55 * 47 / 2**30:.2f} GiB on disk")
    print(
        f"resident: {own:.2f} GiB of its own, and {mapped_pages:.2f} GiB of pages of files, which the system takes back"
    )


def resident(kind: str) -> float:
    """GiB that this process holds now, of one kind as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="gtsrb_cnn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int)
    parser.add_argument("--start-up", type=Path, metavar="DIR", help="a data set, such as CIFAR-10")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    (start_up if arguments.start_up else memory if arguments.memory else speed)(arguments)


if __name__ == "__main__":
    main()
