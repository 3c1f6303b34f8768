"""Masks of BatchNorm channels: running a network under them, and pruning what they close."""

import bisect

import torch
from torch import Tensor, nn
from torch.func import functional_call

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.repair._base import Fixed

Scales = dict[str, Tensor]
"""By the name of a BatchNorm in the classifier: one factor for each channel."""
THRESHOLDS = tuple(step / 20 for step in range(19))  # 0, 0.05 ... 0.9
ROUNDING = 1e-6  # 0.95 - 0.02 is a little more than 0.93 in binary


def batch_norms(model: Classifier) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers with weights, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine
    }


def answer(
    model: Classifier, masks: Scales, images: Tensor, on_weights: Scales | None = None, on_biases: Scales | None = None
) -> Tensor:
    """Logits with BatchNorm weights times (mask + noise) and biases times (1 + noise); the model keeps its own."""
    changed = {}
    for name, norm in batch_norms(model).items():
        changed[f"{name}.weight"] = norm.weight * (
            masks[name] if on_weights is None else masks[name] + on_weights[name]
        )
        changed[f"{name}.bias"] = norm.bias if on_biases is None else norm.bias * (1 + on_biases[name])
    logits: Tensor = functional_call(model, changed, (images,))
    return logits


@torch.no_grad()
def clip(masks: Scales) -> None:
    """Bring masks back into [0, 1], in place."""
    for mask in masks.values():
        mask.clamp_(0, 1)


def split(count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of the images to learn on, and of ``share`` of them, at least one, that are held out."""
    order = torch.randperm(count, generator=generator)
    held_out = max(1, round(share * count))
    return (order[held_out:] if count > 1 else order), order[:held_out]


def prune_what_is_closed(
    model: Classifier, masks: Scales, held_out: Samples, wanted: Tensor, tolerance: float
) -> Fixed:
    """``model`` with BatchNorm weight 0 where a mask is at or below the threshold, the biases kept.

    The threshold is the highest of 0, 0.05 ... 0.9 that costs at most ``tolerance`` of the accuracy on ``held_out``,
    found by bisection: the higher, the more is pruned. Where 0 costs more, nothing is pruned.
    """
    answers = (wanted if wanted.ndim == 1 else wanted.argmax(1)).cpu()
    norms = batch_norms(model)
    original = {name: norm.weight.detach().clone() for name, norm in norms.items()}

    def accuracy_at(threshold: float) -> float:
        with torch.no_grad():
            for name, norm in norms.items():
                norm.weight.copy_(original[name] * (masks[name] > threshold))
        return float((predictions(model, held_out.images).argmax(1) == answers).float().mean())

    before = accuracy_at(-1)
    too_high = bisect.bisect_left(
        THRESHOLDS, True, key=lambda threshold: accuracy_at(threshold) < before - tolerance - ROUNDING
    )
    threshold = THRESHOLDS[too_high - 1] if too_high else -1.0
    after = accuracy_at(threshold)
    pruned = {name: (mask <= threshold).nonzero().flatten().tolist() for name, mask in masks.items()}
    return Fixed(
        model=model,
        notes={
            "channels_pruned": float(sum(map(len, pruned.values()))),
            "held_out_accuracy_before": before,
            "held_out_accuracy_after": after,
        },
        counts={"channels": sum(map(len, masks.values())), "held_out_images": len(held_out)},
        evidence={
            "threshold": threshold if too_high else None,
            "pruned": {name: channels for name, channels in pruned.items() if channels},
        },
    )
