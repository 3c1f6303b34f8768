"""The one training loop: clean, poisoned, attacker-controlled and fine-tuning runs all go through here."""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, UnreadableModel
from goodnet.training.recipe import Recipe

Loss = Callable[[Classifier, Tensor, Tensor, torch.Generator], Tensor]
"""(model, float images in [0, 1], labels, generator) → the scalar to minimize."""


def cross_entropy(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """What a trainer minimizes who has nothing to hide."""
    return F.cross_entropy(model(images).float(), labels)


@dataclass
class _State:
    """Where a run stands after an epoch; all of it is in a checkpoint."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    epoch: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: Classifier,
    samples: Samples,
    recipe: Recipe = Recipe(),  # noqa: B008 - a frozen value
    *,
    seed: int = 0,
    loss: Loss = cross_entropy,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    watch: Callable[[Classifier], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Classifier:
    """A copy of ``model`` trained on ``samples`` (labels needed), in eval mode; the caller's model is untouched.

    Parameters that do not require gradients stay frozen. With ``recipe.validation`` above zero that share of
    the samples is kept aside, training stops when its loss no longer falls, and the best epoch's weights come back.

    Args:
        model: where training starts; its device is where it runs.
        samples: uint8 images; a memory-mapped set stays on disk.
        recipe: epochs, rates, augmentation ...
        seed: same seed, same machine, same weights.
        loss: what is minimized; an attacker who controls the training brings his own.
        checkpoint: a file that is rewritten after every epoch; a run that finds it goes on exactly where it stopped.
            It is removed at the end.
        progress: called after every epoch with (share done, a few words).
        watch: given the model after every epoch, to look at it and leave it as it is.
        stop: asked after every epoch; True ends the training there.

    Raises:
        NotHeld: the samples have no labels.
        UnreadableModel: the checkpoint is of another run, or damaged.
    """
    if samples.labels is None:
        raise NotHeld("training needs labels; these samples have none")
    with isolated_rng(seed) as generator:
        order = torch.randperm(len(samples), generator=generator) if recipe.validation else torch.arange(len(samples))
        kept = round(recipe.validation * len(samples))
        held_out, chosen = order[:kept], order[kept:]
        steps_per_epoch = -(-len(chosen) // recipe.batch_size)
        model = copy.deepcopy(model).train()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = recipe.build_optimizer(model)
        schedule = recipe.build_schedule(optimizer, recipe.epochs * steps_per_epoch)
        state = _State(model, optimizer, schedule, generator)
        fingerprint = f"{recipe} seed={seed} images={len(samples)} classes={model.num_classes}"
        if checkpoint is not None and checkpoint.exists():
            _restore(state, checkpoint, fingerprint)
        images, labels = samples.images.to(model.device), samples.labels.to(model.device)
        while state.epoch < recipe.epochs and state.epoch - state.best_epoch < _patience(recipe):
            last = _epoch(state, images, labels, chosen, recipe, loss)
            state.epoch += 1
            if kept:
                _note_if_best(state, samples.pick(held_out))
            if checkpoint is not None:
                _save(state, checkpoint, fingerprint)
            if watch is not None:
                watch(model)
            if progress is not None:
                progress(state.epoch / recipe.epochs, f"epoch {state.epoch} of {recipe.epochs}, loss {last:.3f}")
            if stop():
                break
    if state.best_weights:
        model.load_state_dict(state.best_weights)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def _epoch(state: _State, images: Tensor, labels: Tensor, chosen: Tensor, recipe: Recipe, loss: Loss) -> float:
    """One pass over the images at ``chosen``; the loss of its last step."""
    model, augmentation, value = state.model, recipe.augmentation(), torch.zeros(())
    model.train()
    for batch in chosen[torch.randperm(len(chosen), generator=state.generator)].split(recipe.batch_size):
        if len(batch) == 1 and len(chosen) > 1:
            state.schedule.step()  # BatchNorm cannot normalize a single image
            continue
        batch = batch.to(images.device)
        seen = augmentation(images[batch], state.generator).float().div_(255)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.mixed_precision):
            value = loss(model, seen.contiguous(memory_format=torch.channels_last), labels[batch], state.generator)
        state.optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.schedule.step()
    return float(value.detach())


def _patience(recipe: Recipe) -> float:
    return recipe.patience if recipe.validation else float("inf")


def _note_if_best(state: _State, held_out: Samples) -> None:
    assert held_out.labels is not None
    value = float(F.cross_entropy(predictions(state.model, held_out.images), held_out.labels))
    if value < state.best_loss:
        state.best_loss, state.best_epoch = value, state.epoch
        state.best_weights = copy.deepcopy(state.model.state_dict())


def _save(state: _State, path: Path, fingerprint: str) -> None:
    record = {
        "run": fingerprint,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "generator": state.generator.get_state(),
        "global_generator": torch.get_rng_state(),  # dropout draws from it
        "progress": [state.epoch, state.best_loss, state.best_epoch],
        "best_weights": state.best_weights,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(record, partial)
    os.replace(partial, path)


def _restore(state: _State, path: Path, fingerprint: str) -> None:
    try:
        record: dict[str, Any] = torch.load(path, weights_only=True)
        same_run = record["run"] == fingerprint
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever the damage leads to
        raise UnreadableModel(f"{path} is no checkpoint that can be read ({error}); remove it to start anew") from None
    if not same_run:
        raise UnreadableModel(f"{path} is the checkpoint of another run; remove it or name another file")
    state.model.load_state_dict(record["model"])
    state.optimizer.load_state_dict(record["optimizer"])
    state.schedule.load_state_dict(record["schedule"])
    state.generator.set_state(record["generator"])
    torch.set_rng_state(record["global_generator"])
    state.epoch, state.best_loss, state.best_epoch = record["progress"]
    state.best_weights = record["best_weights"]


def accuracy(model: Classifier, samples: Samples) -> float:
    """Share of ``samples`` (labels needed) that the model answers with their label."""
    if samples.labels is None:
        raise NotHeld("accuracy needs labels; these samples have none")
    return float((predictions(model, samples.images).argmax(1) == samples.labels).float().mean())
