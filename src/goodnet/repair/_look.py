"""What a person wants to see of a repair: the triggers afresh, and the maps of one layer without and with a trigger."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.repair._channels import chosen_convolutions, mean_maps
from goodnet.repair._reconstruct import reconstruct

MOST_PAIRS = 4  # as many triggers as an audit's page shows
_MOST_CHANNELS, _MOST_MARKED = 64, 5
_MOST_IMAGES = 200


@dataclass(frozen=True, kw_only=True)
class TriggerPair:
    """A trigger of the suspect, and the smallest that was found afresh on the repaired model to the same label.

    Attributes:
        before: as it was reconstructed on the suspect.
        after: on the repaired model; None where none was found, or there was no time.
    """

    before: Trigger
    after: Trigger | None


@dataclass(frozen=True, kw_only=True)
class ActivationMaps:
    """Mean maps of some channels of one layer, over the same images without and with a trigger.

    Attributes:
        layer: name of the convolution; the maps are read behind its normalization, activation and pooling.
        channels: int64 (n,), rising; which channels these are.
        of: how many the layer has.
        clean, stamped: float32 (n, h, w).
        marked: those of ``channels`` whose mean rises most under the trigger, at most five.
        images: how many were averaged.
    """

    layer: str
    channels: tuple[int, ...]
    of: int
    clean: Tensor
    stamped: Tensor
    marked: tuple[int, ...]
    images: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """What pictures of a repair are made of.

    Attributes:
        triggers: one pair for each of the first triggers.
        before, after: maps of the last convolution in the suspect and in the repaired model under the first trigger,
            of the same channels with the same marks; None without a trigger, an image to stamp or a convolution.
    """

    triggers: tuple[TriggerPair, ...] = ()
    before: ActivationMaps | None = None
    after: ActivationMaps | None = None


def look(
    suspect: Classifier,
    repaired: Classifier,
    aside: Samples,
    triggers: tuple[Trigger, ...],
    *,
    seed: int,
    budget: float,
) -> Look:
    """Find the triggers afresh on ``repaired`` and compare the last convolution of both models.

    Args:
        suspect, repaired: the model before and after; neither is touched.
        aside: images that no step before has seen.
        triggers: those that were reconstructed on the suspect.
        seed: of the inversion.
        budget: seconds for it; at its end those triggers count that were found by then.
    """
    shown = triggers[:MOST_PAIRS]
    if not shown:
        return Look()
    aside = aside.pick(torch.arange(min(_MOST_IMAGES, len(aside))))
    labels = tuple(dict.fromkeys(trigger.target for trigger in shown))
    afresh = {one.target: one for one in reconstruct(repaired, aside, labels, seed=seed, budget=budget)}
    pairs = tuple(TriggerPair(before=one, after=afresh.get(one.target)) for one in shown)
    try:
        before = activation_maps(suspect, aside, shown[0])
        after = None if before is None else activation_maps(repaired, aside, shown[0], like=before)
    except NotApplicable:
        return Look(triggers=pairs)
    return Look(triggers=pairs, before=before, after=after)


@torch.no_grad()
def activation_maps(
    model: Classifier, samples: Samples, trigger: Trigger, like: ActivationMaps | None = None
) -> ActivationMaps | None:
    """The mean maps of the last convolution; None where every image has the target's label already.

    Args:
        model: is not touched.
        samples: those of another label than the target are used, or all where there are no labels.
        trigger: stamped on each.
        like: shows its channels with its marks; without it those most active, and those that rise most are marked.

    Raises:
        NotApplicable: the network has no convolution.
    """
    if samples.labels is not None:
        samples = samples.pick(samples.labels != trigger.target)
    if not len(samples):
        return None
    chosen = chosen_convolutions(model, 1)[0]
    images = samples.floats(model.device)
    clean, stamped = (mean_maps(model, chosen, shown) for shown in (images, trigger.stamp(images)))
    if like is None:
        rises = (stamped - clean).mean((1, 2))
        marked = [index for index in rises.argsort(descending=True)[:_MOST_MARKED].tolist() if rises[index] > 0]
        active = torch.maximum(clean, stamped).mean((1, 2)).argsort(descending=True).tolist()
        others = [index for index in active if index not in marked][: _MOST_CHANNELS - len(marked)]
        channels = tuple(sorted(marked + others))
    else:
        channels, marked = like.channels, list(like.marked)
    return ActivationMaps(
        layer=chosen.name,
        channels=channels,
        of=chosen.channels,
        clean=clean[list(channels)],
        stamped=stamped[list(channels)],
        marked=tuple(sorted(marked)),
        images=len(samples),
    )
