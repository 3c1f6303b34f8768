"""Is a small trigger planted, or a natural feature of a label that looks like another? EX-RAY's symmetric differencing.

Two labels that differ by little have small triggers between them in an honest network too. There the trigger does to
the network what separates the two labels' own images; a planted one does something else. So the channels of an inner
layer that tell images of the two labels apart are compared with those that tell images with the trigger from the same
images without (Liu et al., *Complex Backdoor Detection by Symmetric Feature Differencing*, CVPR 2022).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.trigger import Trigger

FEWEST = 10  # images of each of the two labels; the authors' smallest batch
_MOST = 20
_STEPS = 400  # updates of a mask
_RATE = 0.05  # of Adam
_MARGIN_WEIGHT = 10.0  # of a margin that must be won back, against one channel
_OPEN = 4.0  # before tanh: at first every channel is swapped
_OVERLAP = 0.8  # of either mask; these three are the authors' thresholds
_MOST_CROSS, _ALL_CROSS = 0.8, 0.4  # success of three, and of all four, crossings of masks
_SWAPPED = 0.8  # share of images that swapping every channel of a usable layer must flip, in both directions

Outcome = Literal["natural", "not natural", "undecided"]
SecondsLeft = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class NaturalFeature:
    """Whether one target's trigger is a natural feature.

    Attributes:
        target: the label that the trigger leads to.
        victim: the label that looks most like it; None where there are too few images.
        outcome: "natural" takes the label from the targets; the other two leave it there.
        reason: in a few words for a person.
        layer: whose channels were compared; "" for none.
        overlap: what the smaller of the two sets of channels shares with the other, 0..1.
        crossed: success of each set where the other one was found, in both directions of both.
    """

    target: int
    victim: int | None = None
    outcome: Outcome = "undecided"
    reason: str = ""
    layer: str = ""
    overlap: float | None = None
    crossed: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Pair:
    """Images (n, C, H, W) of two kinds with the channels of a layer, to be swapped both ways.

    Attributes:
        images: both kinds, one after the other; ``own`` what the layer gives for them, ``other`` for their partners.
        wanted: the partners' labels.
    """

    images: Tensor
    own: Tensor
    other: Tensor
    wanted: Tensor


def natural_feature(model: Classifier, images: Tensor, trigger: Trigger, seconds_left: SecondsLeft) -> NaturalFeature:
    """Whether ``trigger`` does what the target's own images do to the label that looks most like it.

    Args:
        model: in eval mode, without gradients of its own.
        images: clean, float32 (N, C, H, W) in [0, 1]; the labels are the model's own answers.
        trigger: of the suspected target.
        seconds_left: what is left of the run's time; at less than none the answer is undecided.
    """
    logits = predictions(model, images)
    answers = logits.argmax(1)
    target, victim = trigger.target, _look_alike(logits, answers, trigger.target)
    goal = images[answers == target][:_MOST].to(model.device)
    if victim is None or len(goal) < FEWEST:
        few = "no other label has" if victim is None else f"label {target} has"
        return NaturalFeature(target=target, reason=f"{few} {FEWEST} clean images or more to compare with")
    plain = images[answers == victim].to(model.device)
    mask, pattern = trigger.mask.to(model.device), trigger.pattern.to(model.device)
    stamped = plain + mask * (pattern - plain)
    turned = (predictions(model, stamped).argmax(1) == target).to(model.device)
    plain, stamped = plain[turned][:_MOST], stamped[turned][:_MOST]
    if len(plain) < FEWEST:
        return NaturalFeature(
            target=target, victim=victim, reason=f"the trigger works on too few images of label {victim}"
        )
    return _compare(model, (plain, stamped, goal), victim, target, seconds_left)


def _look_alike(logits: Tensor, answers: Tensor, target: int) -> int | None:
    """The label, of those with enough images, whose images come nearest to being answered as the target."""
    behind = logits.gather(1, answers[:, None])[:, 0] - logits[:, target]
    enough = [label for label, count in enumerate(answers.bincount().tolist()) if count >= FEWEST and label != target]
    return min(enough, key=lambda label: float(behind[answers == label].mean()), default=None)


def _compare(
    model: Classifier, images: tuple[Tensor, Tensor, Tensor], victim: int, target: int, seconds_left: SecondsLeft
) -> NaturalFeature:
    """Find both sets of channels and judge how alike they are; ``images``: plain, stamped and the target's own."""
    plain, stamped, goal = images
    count = min(len(plain), len(goal))
    for name, layer in _later_layers(model):
        between, under = (
            _pair(model, layer, (plain[:count], victim), (goal[:count], target)),
            _pair(model, layer, (plain, victim), (stamped, target)),
        )
        if between is None or under is None:
            continue
        everything = torch.ones(between.own.shape[1], device=model.device)
        if min(*_success(model, layer, between, everything), *_success(model, layer, under, everything)) < _SWAPPED:
            continue
        labels, trigger = _smallest(model, layer, between, seconds_left), _smallest(model, layer, under, seconds_left)
        if seconds_left() < 0:
            return NaturalFeature(target=target, victim=victim, layer=name, reason="the time was up")
        shared = float(torch.minimum(labels, trigger).sum())
        overlap = shared / max(1e-9, min(float(labels.sum()), float(trigger.sum())))
        crossed = (*_success(model, layer, under, labels), *_success(model, layer, between, trigger))
        natural = _is_natural(overlap, crossed)
        alike = "do to the network what" if natural else "do not do to the network what"
        return NaturalFeature(
            target=target,
            victim=victim,
            outcome="natural" if natural else "not natural",
            reason=f"images of label {victim} with the trigger {alike} images of label {target} do",
            layer=name,
            overlap=overlap,
            crossed=crossed,
        )
    return NaturalFeature(
        target=target, victim=victim, reason="no inner layer whose channels, all swapped, swap the answers"
    )


def _is_natural(overlap: float, crossed: tuple[float, ...]) -> bool:
    """The authors' rule."""
    most = sum(success >= _MOST_CROSS for success in crossed) >= 3
    return overlap > _OVERLAP or most or min(crossed) >= _ALL_CROSS


def _later_layers(model: Classifier) -> list[tuple[str, nn.Module]]:
    """The last convolution and what runs after it, but for the last layer, which gives the answers."""
    layers = model.layers()
    last = model.last_convolution()
    start = 0 if last is None else [name for name, _ in layers].index(last[0])
    return layers[start:-1]


def _pair(model: Classifier, layer: nn.Module, one: tuple[Tensor, int], two: tuple[Tensor, int]) -> _Pair | None:
    """Both kinds of images with their labels, ready to be swapped; None where the layer gives no channels."""
    images = torch.cat([one[0], two[0]])
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    try:
        with torch.no_grad():
            model(images)
    finally:
        handle.remove()
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or seen[0].ndim < 2:
        return None
    own = seen[0]
    count = len(one[0])
    wanted = torch.tensor([two[1]] * count + [one[1]] * count, device=images.device)
    return _Pair(images, own, own.roll(count, 0), wanted)


def _smallest(model: Classifier, layer: nn.Module, pair: _Pair, seconds_left: SecondsLeft) -> Tensor:
    """The fewest channels (C,), each from 0 to 1, whose swap flips as many images in both directions as all do.

    Adam on the sum of the mask; a direction in which too few images flip adds its mean margin until they flip again.
    """
    channels = pair.own.shape[1]
    kept = _success(model, layer, pair, torch.ones(channels, device=pair.own.device))
    hidden = torch.full((channels,), _OPEN, device=pair.own.device, requires_grad=True)
    optimizer = torch.optim.Adam([hidden], lr=_RATE)
    best, size = torch.ones(channels, device=pair.own.device), float(channels)
    for _ in range(_STEPS):
        mask = hidden.tanh() / 2 + 0.5
        with _swapping(layer, pair, mask):
            logits = model(pair.images).float()
        success, now_size = _halves(logits, pair), float(mask.detach().sum())
        if all(now >= all_swapped for now, all_swapped in zip(success, kept, strict=True)) and now_size < size:
            best, size = mask.detach(), now_size
        loss = mask.sum()
        for now, all_swapped, margin in zip(success, kept, _margins(logits, pair.wanted).chunk(2), strict=True):
            if now < all_swapped:
                loss = loss - _MARGIN_WEIGHT * margin.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if seconds_left() < 0:
            break
    return best


@torch.no_grad()
def _success(model: Classifier, layer: nn.Module, pair: _Pair, mask: Tensor) -> tuple[float, float]:
    """Share of images answered as their partners' label when the channels of ``mask`` are swapped, for both kinds."""
    with _swapping(layer, pair, mask):
        return _halves(model(pair.images), pair)


def _halves(logits: Tensor, pair: _Pair) -> tuple[float, float]:
    one, two = (logits.argmax(1) == pair.wanted).float().chunk(2)
    return float(one.mean()), float(two.mean())


def _margins(logits: Tensor, wanted: Tensor) -> Tensor:
    """The wanted logit less the largest other one (n,)."""
    own = logits.gather(1, wanted[:, None])
    return own[:, 0] - logits.scatter(1, wanted[:, None], -torch.inf).amax(1)


@contextlib.contextmanager
def _swapping(layer: nn.Module, pair: _Pair, mask: Tensor) -> Iterator[None]:
    """Inside, the layer gives every image its partner's channels where ``mask`` is 1, its own where it is 0."""
    shaped = mask.view(-1, *(1,) * (pair.own.ndim - 2))
    handle = layer.register_forward_hook(lambda module, inputs, output: pair.own + shaped * (pair.other - pair.own))
    try:
        yield
    finally:
        handle.remove()
