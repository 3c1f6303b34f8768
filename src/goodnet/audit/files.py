"""audit_file: from a model file and a folder of clean images to a verdict, as the command line does it."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from goodnet.audit._bank import CleanBank
from goodnet.audit._base import Auditor, Verdict
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.data.load import load_data
from goodnet.errors import NotHeld
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model


@dataclass(frozen=True, kw_only=True)
class FileAudit:
    """What came of one model file.

    Attributes:
        verdict: the auditor's answer.
        model: as it was audited, with what was guessed about it.
        samples: the clean images, fitted to the model; None where the method needs none and none were given.
    """

    verdict: Verdict
    model: Classifier
    samples: Samples | None


def audit_file(
    path: str | os.PathLike[str],
    auditor: Auditor,
    *,
    data: str | os.PathLike[str] | None = None,
    limit: int | None = 1000,
    arch: str | None = None,
    input_range: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    alpha: float = 0.05,
    bank: CleanBank | None = None,
    progress: Progress | None = None,
) -> FileAudit:
    """Load a stranger's model and clean images, and audit the one on the other. Nothing in the file is executed.

    Args:
        path: see ``goodnet.load_model``.
        auditor: a method with its hyper-parameters, such as ``auditors["neural-cleanse"]()``.
        data: see ``goodnet.load_data``; None only for methods that need no clean images.
        limit: at most so many images, drawn at random by ``seed``; None for all.
        arch: for files that hold only weights; None finds it by names and shapes.
        input_range: what the network was trained on; None takes what the file says, else guesses it from the images.
        device: such as "cpu", "cuda" or "cuda:1".
        seed: of the audit and of the draw of images.
        budget: seconds for the audit itself, loading not counted; None for no limit.
        alpha: the rate at which clean models may be flagged.
        bank: scores of clean nets; None for the one that ships with goodnet and the user's own.
        progress: called with (share done, a few words).

    Raises:
        UsageError: an argument is wrong, or the method needs images and there are none.
        UnsafeFile: loading the model the usual way would run code.
        UnreadableFile: the model or the images cannot be read.
    """
    require_data(auditor, data)
    check_device(device)
    model = load_model(path, arch=arch, input_range=input_range)
    samples = None
    if data is not None:
        samples = load_data(data, limit=limit, seed=seed, shape=model.input_shape)
        if input_range is None and not Path(path).is_dir():  # folders of save_model say how images are prepared
            model = guess_input_range(model, samples)
    model = model.to(torch.device(device))
    verdict = auditor.run(
        Defender(model=model, clean=samples), seed=seed, budget=budget, alpha=alpha, bank=bank, progress=progress
    )
    return FileAudit(verdict=verdict, model=model, samples=samples)


def require_data(auditor: Auditor, data: str | os.PathLike[str] | None) -> None:
    """Raise NotHeld if ``auditor`` needs clean images and there are none."""
    if data is None and Needs.CLEAN in auditor.card.needs:
        raise NotHeld(f"{auditor.card.name} needs clean images: say where they are (data=..., or --data PATH)")
