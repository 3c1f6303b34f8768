"""What does STRIP cost? Side by side in one run: the bare network on as many rows, STRIP, its short cut, and ART's.

    python benchmarks/guard.py                                      DeepID with 1,283 labels, random weights, noise
    python benchmarks/guard.py --model FILE --data PATH --art       a network and images of yours; ART's STRIP beside
    python benchmarks/guard.py --model FILE --data PATH --attack image-patch --set image=glasses.png --set row=0

The limit is the time of the forward passes alone, over blends that are made already: with channels first or last in
memory, whichever is faster. The short cut (``sequential``) is held against whole STRIP: what share of the rows it runs,
and how many decisions differ, on clean images, on those with the trigger, and in traffic of which --triggered carry it.
The threshold is fitted for --rate. ART is given the same network, images and number of overlays; it blends and asks one
image at a time, and draws its overlays anew for each. Seconds are of the processor, so that other programs beside this
one hardly count.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import goodnet
from goodnet.attacks import attacks
from goodnet.cleanse._overlays import BLENDS
from goodnet.cli._values import settings
from goodnet.core.classifier import predictions
from goodnet.core.samples import Samples
from goodnet.guard.fitted import FittedGuard
from goodnet.guard.strip import Strip
from goodnet.models.untrained import untrained

_REPEATS = 3


def seconds(work: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Of the processor, in the best of a few runs."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def told(name: str, taken: float, rows: int, limit: float) -> None:
    print(f"{name:34} {taken:7.2f} s  {rows / taken:8,.0f} rows/s  {taken / limit:6.2f} times the limit")


def speed(fitted: FittedGuard, images: Tensor, art: bool) -> None:
    """Whole STRIP on ``images`` beside the bare network on the same blends."""
    guard, over = fitted.guard, fitted.learned.arrays["overlays"]
    assert isinstance(guard, Strip)
    floats = images.float() / 255
    blends = BLENDS[guard.blend](floats[:, None], over[None]).flatten(0, 1)
    last = blends.contiguous(memory_format=torch.channels_last)
    predictions(fitted.model, blends[:200])  # warm
    bare = {
        "network alone, as it is": seconds(lambda: predictions(fitted.model, blends)),
        "network alone, channels last": seconds(lambda: predictions(fitted.model, last)),
    }
    limit, rows = min(bare.values()), len(blends)
    for name, taken in bare.items():
        told(name, taken, rows, limit)
    told("STRIP, whole", seconds(lambda: fitted.score(images)), rows, limit)
    if art:
        told("ART's STRIP", seconds(theirs(fitted, floats, len(over)), 1), rows, limit)


def short_cut(fitted: FittedGuard, name: str, images: Tensor) -> tuple[float, float]:
    """The share of the rows that the short cut runs on ``images``, and of decisions that are others."""
    ran: list[int] = []
    whole = fitted.score(images) > fitted.threshold
    handle = fitted.model.register_forward_hook(lambda _, inputs, output: ran.append(len(output)))
    started = time.process_time()
    try:
        quick = fitted.guard.scores(fitted.model, fitted.learned, images, fitted.threshold) > fitted.threshold
    finally:
        handle.remove()
    taken, differ = time.process_time() - started, int((quick != whole).sum())
    share = sum(ran) / (len(images) * len(fitted.learned.arrays["overlays"]))
    print(
        f"short cut, {name:23} {taken:7.2f} s  {share:6.1%} of the rows; {differ} of {len(images)} decisions "
        f"differ ({differ / len(images):.2%}); N {int(quick.sum())} times, {int(whole.sum())} when whole"
    )
    return share, differ / len(images)


def theirs(fitted: FittedGuard, images: Tensor, overlays: int) -> Callable[[], object]:
    """ART's STRIP on the same network, which is made to answer with probabilities; its calibration is not timed."""
    from art.defences.transformer.poisoning import STRIP  # type: ignore[import-untyped]
    from art.estimators.classification import PyTorchClassifier  # type: ignore[import-untyped]

    net = torch.nn.Sequential(fitted.model, torch.nn.Softmax(1)).eval()
    wrapped = PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), fitted.input_shape, fitted.num_classes)
    guarded = STRIP(wrapped)(num_samples=overlays, false_acceptance_rate=fitted.calibration.rate)
    guarded.validation_data = fitted.learned.arrays["overlays"].numpy()
    guarded.entropy_threshold = 0.0
    return lambda: guarded.predict(images.numpy())


def given(options: argparse.Namespace) -> tuple[goodnet.Classifier, Samples]:
    if options.model:
        model = goodnet.load_model(options.model, input_range=options.input_range)
        return model, goodnet.load_data(options.data, split=options.split, shape=model.input_shape)
    generator = torch.Generator().manual_seed(0)
    count = options.held + options.images
    images = torch.randint(256, (count, 3, 55, 47), dtype=torch.uint8, generator=generator)
    every = Samples(images=images[:1].expand(1283, -1, -1, -1), labels=torch.arange(1283))
    return untrained("deepid", every, seed=0), Samples(images=images)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--input-range", help="of --model, such as -1..1; see goodnet audit --help")
    parser.add_argument("--data", help="images for --model; a folder, an .npz file ...")
    parser.add_argument("--split", help="of --data")
    parser.add_argument("--attack", help="whose trigger some images carry; see goodnet list attacks")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the attack")
    parser.add_argument("--overlays", type=int, default=100)
    parser.add_argument("--blend", choices=tuple(BLENDS), default="sum")
    parser.add_argument("--rate", type=float, default=0.01, help="of clean images that may be answered N")
    parser.add_argument("--held", type=int, default=1000, help="clean images that the guard is fitted on")
    parser.add_argument("--images", type=int, default=1000, help="others, on which the short cut is measured")
    parser.add_argument("--triggered", type=float, default=0.05, help="share of traffic that carries the trigger")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of images")
    parser.add_argument("--timed", type=int, default=40, help="of them, on which whole STRIP is timed")
    parser.add_argument("--art", action="store_true", help="adversarial-robustness-toolbox beside it")
    options = parser.parse_args(words)
    if bool(options.model) != bool(options.data):
        parser.error("--model and --data go together")
    return options


def main() -> None:
    options = arguments(None)
    model, samples = given(options)
    samples = samples.shuffled(torch.Generator().manual_seed(options.seed), options.held + options.images)
    held, fresh = samples.pick(torch.arange(options.held)), samples.pick(torch.arange(options.held, len(samples)))
    guard = Strip(overlays=options.overlays, blend=options.blend)
    fitted = guard.fit(goodnet.Defender(model=model, clean=held.without_labels()), rate=options.rate)
    print(f"{model.num_classes} labels, {guard.overlays} overlays, {torch.get_num_threads()} threads, ", end="")
    print(f"{options.timed} images timed; threshold {fitted.threshold:.4g} for {options.rate:.1%}")
    for note in fitted.notes:
        print(f"note: {note}")
    speed(fitted, fresh.images[: options.timed], options.art)
    clean = short_cut(fitted, "clean", fresh.images)
    if options.attack:
        method = attacks[options.attack]
        attack = method(**settings(method, options.set))
        others = fresh.floats()[predictions(model, fresh.images).argmax(1) != attack.target]
        stamped = (attack.stamp(others) * 255).round().byte()
        success = (predictions(model, stamped).argmax(1) == attack.target).double().mean()
        triggered = short_cut(fitted, f"trigger ({success:.1%} succeed)", stamped)
        share, differ = (
            (1 - options.triggered) * one + options.triggered * other
            for one, other in zip(clean, triggered, strict=True)
        )
        print(f"short cut, {options.triggered:.0%} of traffic triggered  {share:.1%} of the rows; {differ:.2%} differ")


if __name__ == "__main__":
    main()
