"""Unlearning by ascent that is clipped, watched, and taken back at the first damage."""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.run import Progress, Run
from goodnet.core.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """What came of it.

    Attributes:
        model: after the last step that did no damage.
        steps: how many steps it is away from the start.
        damaged: whether a further step was taken back.
        remembered: share of the isolated samples before, and now, that are answered with their label.
        accuracy: on the watched samples, mean over their labels, before and now.
    """

    model: Classifier
    steps: int
    damaged: bool
    remembered: tuple[float, float]
    accuracy: tuple[float, float]


def unlearn(
    model: Classifier,
    isolated: Samples,
    watched: Samples,
    run: Run,
    *,
    steps: int,
    learning_rate: float,
    growth: float,
    batch_size: int,
    most_damage: float,
    progress: Progress,
) -> Ascent:
    """Make ``isolated`` (labels needed) less and less sure of their labels until ``watched`` samples suffer.

    Every step is followed by a look at ``watched``: where the mean over labels of the share answered right falls by
    more than ``most_damage``, the step is taken back and nothing more is done. A loss that has reached that of a guess,
    log K, is not driven further, and when all have, it is over. BatchNorm keeps its statistics: a batch of isolated
    samples alone would move them to where nothing else is recognized.
    A network that is sure has hardly a gradient, so every step is ``growth`` times as long as the one before.
    """
    assert isolated.labels is not None
    good = copy.deepcopy(model).eval().requires_grad_(True)
    before, known = balanced_accuracy(good, watched), _remembered(good, isolated)
    guess = math.log(good.num_classes)
    images, labels = isolated.images.to(good.device), isolated.labels.to(good.device)
    now, done, damaged, accuracy = copy.deepcopy(good), 0, False, before
    optimizer = torch.optim.SGD(now.parameters(), learning_rate, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        if run.seconds_left() <= 0:
            break
        batch = torch.randperm(len(images), generator=run.generator)[:batch_size].to(images.device)
        losses = F.cross_entropy(now(images[batch].float().div_(255)).float(), labels[batch], reduction="none")
        if bool((losses >= guess).all()):
            break
        optimizer.zero_grad()
        (-losses.clamp(max=guess).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= growth
        left = balanced_accuracy(now, watched)
        if left < before - most_damage:
            damaged = True
            break
        good.load_state_dict(now.state_dict())
        done, accuracy = step + 1, left
        progress((step + 1) / steps, f"unlearning, step {step + 1} of {steps}")
    return Ascent(
        model=good,
        steps=done,
        damaged=damaged,
        remembered=(known, _remembered(good, isolated)),
        accuracy=(before, accuracy),
    )


def balanced_accuracy(model: Classifier, samples: Samples) -> float:
    """The share answered with their label, in each label, and the mean over the labels that there are."""
    assert samples.labels is not None
    right = (predictions(model, samples.images).argmax(1) == samples.labels).double()
    counts = samples.labels.bincount()
    hits = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, samples.labels, right)
    return float((hits / counts)[counts > 0].mean())


def _remembered(model: Classifier, isolated: Samples) -> float:
    assert isolated.labels is not None
    return float((predictions(model, isolated.images).argmax(1) == isolated.labels).double().mean())


def watched_places(labels: Tensor, losses: Tensor, isolated: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Positions (int64) of kept samples, most likely clean ones, on which damage shows.

    Unlearning a backdoor makes the network wrong about kept poison too, and that is no damage. Poison lies in the
    labels that the isolated samples have far more often than their share; of these labels only samples with large
    losses are watched, at most half as many as the median label has samples. Of every other label any kept sample may
    be.

    Args:
        labels, losses, isolated: (N,) of the whole set; losses as isolation ranked them.
        count: about so many in all; of each label the same number, and one at least.
        generator: draws them.
    """
    counts = labels.bincount()
    usual = int(counts[counts > 0].double().quantile(0.5))
    expected = isolated.double().mean() * counts
    found = labels[isolated].bincount(minlength=len(counts))
    suspicious = (found > 2 * expected) | (2 * found > isolated.sum())
    chosen, known = [], labels.unique()
    per_label = max(1, count // len(known))
    for label in known:
        places = (~isolated & (labels == label)).nonzero()[:, 0]
        if suspicious[label]:
            most = max(1, min(len(places), usual) // 2)
            places = places[losses[places].argsort(descending=True, stable=True)[:most]]
        chosen.append(places[torch.randperm(len(places), generator=generator)[:per_label]])
    return torch.cat(chosen)
