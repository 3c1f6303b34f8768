"""fit_guard: from a model file and clean images to a fitted guard."""

import os
from pathlib import Path

import torch

from goodnet.audit._base import auditors
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.data.load import load_data
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard
from goodnet.guard.fitted import FittedGuard
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.repair.files import flagged_triggers


def fit_guard(
    path: str | os.PathLike[str],
    guard: Guard,
    *,
    data: str | os.PathLike[str],
    split: str | None = None,
    limit: int | None = 2000,
    rate: float = 0.01,
    arch: str | None = None,
    input_range: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
) -> FittedGuard:
    """Load a model and clean images, and fit ``guard`` to them. Nothing in the files is executed or changed.

    Args:
        path: see ``goodnet.load_model``.
        guard: a method with its hyper-parameters; one that needs triggers is given those that an audit reconstructs.
        data, split, limit, seed: see ``goodnet.load_data``; labels are used where there are some.
        rate: the share of clean images that may be answered N, in (0, 1).
        arch, input_range, device: as in ``audit_file``.
        budget, progress: as in ``Guard.fit``.

    Raises:
        UsageError, UnsafeFile, UnreadableFile: as ``audit_file``; NotHeld also where the audit flags no label.
    """
    check_device(device)
    model = load_model(path, arch=arch, input_range=input_range)
    clean = load_data(data, split=split, limit=limit, seed=seed, shape=model.input_shape)
    if input_range is None and not Path(path).is_dir():
        model = guess_input_range(model, clean)
    model = model.to(torch.device(device))
    if clean.labels is not None and int(clean.labels.max()) >= model.num_classes:
        clean = clean.without_labels()  # of another naming than the model's
    triggers = _reconstructed(model, clean, guard.card.name, seed) if Needs.TRIGGERS in guard.card.needs else None
    held = Defender(model=model, clean=clean, triggers=triggers)
    return guard.fit(held, seed=seed, rate=rate, budget=budget, progress=progress)


def _reconstructed(model: Classifier, clean: Samples, name: str, seed: int) -> tuple[Trigger, ...]:
    verdict = auditors["neural-cleanse"]().run(Defender(model=model, clean=clean), seed=seed)
    triggers = flagged_triggers(verdict)
    if not triggers:
        raise NotHeld(f"{name} works from reconstructed triggers, and the audit flags no label ({verdict.reason})")
    return triggers
