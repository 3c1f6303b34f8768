"""Triggers to labels that somebody names, without asking an audit whether they are targets."""

import copy
import time

import torch

from goodnet.audit._inversion import Inverter, as_triggers, start
from goodnet.core.classifier import Classifier
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger

_GRIDS = (1, 4)  # as Neural Cleanse's defaults
_STEPS, _IMAGES, _PENALTY = 150, 16, 0.001
_HELD_OUT = 0.33


def reconstruct(
    model: Classifier, clean: Samples, labels: tuple[int, ...], *, seed: int, budget: float | None = None
) -> tuple[Trigger, ...]:
    """The smallest trigger found to each of ``labels``; a label that no trigger reaches is left out.

    The inversion is that of Neural Cleanse, on both of its grids. Every network can be led to any label by a large
    enough mark, so a trigger here is no evidence of a backdoor.
    """
    deadline = float("inf") if budget is None else time.monotonic() + budget
    model = copy.deepcopy(model).eval().requires_grad_(False)
    images = clean.floats(model.device)
    cut = max(1, round(len(images) * (1 - _HELD_OUT)))
    best: dict[int, Trigger] = {}
    with isolated_rng(seed) as generator:
        inverter = Inverter(
            model,
            images[:cut],
            generator,
            success_wanted=0.98,
            mixed_precision=False,
            out_of_time=lambda: time.monotonic() > deadline,
        )
        channels, height, width = model.input_shape
        for cell in _GRIDS:
            mask = torch.full((len(labels), 1, height, width), 0.5, device=model.device)
            noise = torch.randn((len(labels), channels, height, width), generator=generator).to(model.device)
            batch = start(mask, 0.5 + 0.05 * noise, torch.tensor(labels), cell)
            inverter.round(batch, steps=_STEPS, images=_IMAGES, penalty=_PENALTY, adapt=True)
            found = batch.keep(batch.best_size.isfinite().nonzero()[:, 0])
            held_out = images[cut:] if cut < len(images) else images
            for trigger in as_triggers(
                found, *inverter.success_on(held_out, found.best_mask, found.best_pattern, found.labels)
            ):
                known = best.get(trigger.target)
                if known is None or trigger.mask.sum() < known.mask.sum():
                    best[trigger.target] = trigger
    return tuple(best[label] for label in labels if label in best)
