"""How fast is a pruning curve? Side by side in one run: the tail behind the pruned layer, and the whole net each time.

    python benchmarks/pruning.py                                   DeepID with 1,283 labels, random weights, noise
    python benchmarks/pruning.py --model FILE --data PATH          the same with a network and images of yours
    python benchmarks/pruning.py --layer conv_3 --images 500

Both go through all channels of one convolution in the same order, with the same images, and count right answers after
each. The whole net is timed in three ways: as ``predictions`` runs it, in the batches of the tail, and in these batches
with channels last in memory, which is how the tail's own first pass runs. Every step must give the same answers.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch

import goodnet
from goodnet.core.classifier import predictions
from goodnet.core.samples import Samples
from goodnet.models.untrained import untrained
from goodnet.repair._channels import Channel, answers_along, chosen_convolutions, pruning_order, silence
from goodnet.repair._tail import BATCH, batches

Forward = Callable[[goodnet.Classifier, torch.Tensor], torch.Tensor]


def forwards() -> dict[str, Forward]:
    """Ways to run the whole net: images → answers."""

    @torch.no_grad()
    def channels_last(model: goodnet.Classifier, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([model.net(batch).max(1).indices for batch in batches(model, images)])

    return {
        "whole net, predictions()": lambda model, images: predictions(model, images).argmax(1),
        f"whole net, batches of {BATCH}": lambda model, images: predictions(model, images, BATCH).argmax(1),
        "whole net, channels last": channels_last,
    }


def whole_curve(
    model: goodnet.Classifier, images: torch.Tensor, order: list[Channel], forward: Forward
) -> torch.Tensor:
    model = copy.deepcopy(model)
    rows = [forward(model, images)]
    for channel in order:
        silence(model, [channel])
        rows.append(forward(model, images))
    return torch.stack(rows)


def timed(work: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    started = time.perf_counter()
    answers = work()
    return time.perf_counter() - started, answers


def given(arguments: argparse.Namespace) -> tuple[goodnet.Classifier, Samples]:
    if arguments.model:
        model, samples = goodnet.load_model(arguments.model), goodnet.load_data(arguments.data)
        return model, samples.fitted_to(model.input_shape).pick(torch.arange(min(arguments.images, len(samples))))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (arguments.images, 3, 55, 47), dtype=torch.uint8, generator=generator)
    samples = Samples(images=images, labels=torch.arange(arguments.images) % 1283)
    return untrained("deepid", one_of_each(samples), seed=0), samples


def one_of_each(samples: Samples) -> Samples:
    """One sample of each of 1,283 labels, so that the network gets as many outputs."""
    return Samples(images=samples.images[:1].expand(1283, -1, -1, -1), labels=torch.arange(1283))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data", help="images for --model; a folder, an .npz file ...")
    parser.add_argument("--layer", help="a convolution by name; by default the last one, conv_4 of DeepID")
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    if bool(arguments.model) != bool(arguments.data):
        parser.error("--model and --data go together")
    model, samples = given(arguments)
    images = samples.images
    chosen = chosen_convolutions(model, 1, arguments.layer)
    ranking, order = time.perf_counter(), pruning_order(model, chosen, images)
    ranking = time.perf_counter() - ranking
    list(answers_along(model, images[:BATCH], order[:1]))  # warm
    tail, curve = timed(lambda: torch.stack(list(answers_along(model, images, order))))
    print(f"{chosen[0].name}: {len(order)} channels, {len(images)} images, {model.num_classes} labels, ", end="")
    print(f"{torch.get_num_threads()} threads; ranking {ranking:.2f} s")
    print(f"{'tail, its first pass included':32} {tail:8.2f} s")
    for name, forward in forwards().items():
        seconds, answers = timed(lambda: whole_curve(model, images, order, forward))  # noqa: B023 - called at once
        differ = int((answers != curve).sum())
        print(f"{name:32} {seconds:8.2f} s   {seconds / tail:6.1f} times as long   {differ} answers differ")
        assert differ <= len(curve) * len(images) * 1e-4, "other numbers"
        same = (answers == answers[0]).double().mean(1) - (curve == curve[0]).double().mean(1)
        assert float(same.abs().max()) <= 2 / len(images), "another curve"


if __name__ == "__main__":
    main()
