"""Guards as folders; nothing in them is ever executed.

A GoodNet is two saved models and ``goodnet.json``; a fitted guard is its model, what it learned as
``learned.safetensors``, and ``guard.json``.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import goodnet
from goodnet.core.params import make, parameters_of
from goodnet.core.rates import Rate
from goodnet.core.run import Provenance
from goodnet.core.whole_folder import require_own, whole_folder
from goodnet.errors import GoodnetError, UnreadableModel
from goodnet.guard._base import Learned, guards
from goodnet.guard._records import Description, GuardDescription
from goodnet.guard.fitted import FittedGuard, GuardCalibration
from goodnet.guard.goodnet import Calibration, GoodNet, Price
from goodnet.guard.rules import RULES
from goodnet.models.formats import safetensors_file
from goodnet.models.formats._base import reading
from goodnet.models.load import load_model
from goodnet.models.save import save_model

DESCRIPTION = "goodnet.json"
_BADNET, _REPAIRED = "badnet", "repaired"
_CONTENTS = (DESCRIPTION, _BADNET, _REPAIRED)
GUARD_DESCRIPTION = "guard.json"
_MODEL, _LEARNED = "model", "learned.safetensors"
GUARD_CONTENTS = (GUARD_DESCRIPTION, _MODEL, _LEARNED)
_MAX_BYTES = 1 << 20
_MAX_ARRAY_BYTES = 4 << 30


def save_goodnet(model: GoodNet, folder: str | os.PathLike[str]) -> None:
    """Write both networks and the rule into ``folder``, which appears complete or not at all.

    Raises:
        UsageError: ``folder`` is something else than a saved GoodNet, or one of the networks cannot be saved.
    """
    folder = Path(folder)
    require_own(folder, _CONTENTS, (DESCRIPTION,))
    calibration: dict[str, Any] | None = None if model.calibration is None else asdict(model.calibration)
    description = Description.model_validate(
        {
            "goodnet": goodnet.__version__,
            "rule": model.rule.name,
            "thresholds": model.rule.thresholds(),
            "calibration": calibration,
        }
    )
    with whole_folder(folder) as made:
        save_model(model.badnet, made / _BADNET)
        save_model(model.repaired, made / _REPAIRED)
        (made / DESCRIPTION).write_text(description.model_dump_json(indent=1) + "\n")


def is_goodnet(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that looks like a saved GoodNet."""
    return (Path(path) / DESCRIPTION).is_file()


def load_goodnet(folder: str | os.PathLike[str]) -> GoodNet:
    """What ``save_goodnet`` wrote; nothing in the folder is executed.

    Raises:
        UnreadableModel: a file of it is missing, damaged or too large.
        UnsafeFile: one of the networks would execute something.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UnreadableModel(f"{folder} holds no {DESCRIPTION}; pass a folder of goodnet repair or save_goodnet")
    with reading(path, "the description of a GoodNet"):
        if path.stat().st_size > _MAX_BYTES:
            raise UnreadableModel(f"{path} is larger than {_MAX_BYTES:,} bytes; that is no description")
        record = Description.model_validate_json(path.read_bytes())
        if record.rule not in RULES:
            raise UnreadableModel(f"{path} names the rule {record.rule!r}, and there are {', '.join(RULES)}")
        rule = make(RULES[record.rule], record.thresholds, "rule")
    calibration = None
    if record.calibration is not None:
        values = record.calibration.model_dump()
        calibration = Calibration(**{**values, "prices": tuple(Price(**one) for one in values["prices"])})
    for part in (_BADNET, _REPAIRED):
        if not (folder / part).is_dir():
            raise UnreadableModel(f"{folder} lacks the folder {part} of a GoodNet")
    return GoodNet(load_model(folder / _BADNET), load_model(folder / _REPAIRED), rule, calibration)


def save_guard(fitted: FittedGuard, folder: str | os.PathLike[str]) -> None:
    """Write the model, what the guard learned and its threshold into ``folder``, which appears complete or not at all.

    Raises:
        UsageError: ``folder`` is something else than a saved guard, or the model cannot be saved.
    """
    folder = Path(folder)
    require_own(folder, GUARD_CONTENTS, (GUARD_DESCRIPTION,))
    description = GuardDescription.model_validate(
        {
            "goodnet": goodnet.__version__,
            "values": dict(fitted.learned.values),
            "learned_notes": fitted.learned.notes,
            "learned_counts": dict(fitted.learned.counts),
            "threshold": fitted.threshold,
            "calibration": asdict(fitted.calibration),
            "notes": fitted.notes,
            "provenance": asdict(fitted.provenance) | {"parameters": parameters_of(fitted.guard)},
        }
    )
    arrays = {name: value.detach().cpu().contiguous().clone() for name, value in fitted.learned.arrays.items()}
    with whole_folder(folder) as made:
        save_model(fitted.model, made / _MODEL)
        save_file(arrays, made / _LEARNED)
        (made / GUARD_DESCRIPTION).write_text(description.model_dump_json(indent=1) + "\n")


def is_guard(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that looks like a saved guard."""
    return (Path(path) / GUARD_DESCRIPTION).is_file()


def load_guard(folder: str | os.PathLike[str]) -> FittedGuard:
    """What ``save_guard`` wrote; nothing in the folder is executed.

    Raises:
        UnreadableModel: a file of it is missing, damaged or too large, or does not fit the others.
        UnsafeFile: the model would execute something.
        UnknownName, ParameterError: there is no such guard, or its parameters are out of range.
    """
    folder = Path(folder)
    path = folder / GUARD_DESCRIPTION
    if not path.is_file():
        raise UnreadableModel(f"{folder} holds no {GUARD_DESCRIPTION}; pass a folder of goodnet guard fit")
    for part, most in ((path, _MAX_BYTES), (folder / _LEARNED, _MAX_ARRAY_BYTES)):
        if not part.is_file():
            raise UnreadableModel(f"{folder} lacks the file {part.name} of a guard")
        if part.stat().st_size > most:
            raise UnreadableModel(f"{part} is larger than {most:,} bytes; that is no part of a guard")
    with reading(path, "the description of a guard"):
        record = GuardDescription.model_validate_json(path.read_bytes())
        told = record.provenance
        method = guards[told.method]
        if told.version != method.card.version:
            raise UnreadableModel(
                f"{path} is of {told.method} version {told.version}, which now is {method.card.version}: fit it again"
            )
        guard = make(method, told.parameters, told.method)
    if not (folder / _MODEL).is_dir():
        raise UnreadableModel(f"{folder} lacks the folder {_MODEL} of a guard")
    calibration = record.calibration
    fitted = FittedGuard(
        guard=guard,
        model=load_model(folder / _MODEL).requires_grad_(False),
        learned=Learned(
            arrays=safetensors_file.read(folder / _LEARNED).arrays,
            values=record.values,
            notes=record.learned_notes,
            counts=record.learned_counts,
        ),
        threshold=record.threshold,
        calibration=GuardCalibration(
            rate=calibration.rate,
            alarms=Rate(calibration.alarms.hits, calibration.alarms.count),
            median=calibration.median,
            deviation=calibration.deviation,
        ),
        notes=record.notes,
        provenance=Provenance(**told.model_dump()),
    )
    _require_working(fitted, folder)
    return fitted


def _require_working(fitted: FittedGuard, folder: Path) -> None:
    """Score one grey image: what was learned fits the model and the method, or is refused here and not later."""
    try:
        score = fitted.score(torch.full((1, *fitted.input_shape), 0.5))
    except (GoodnetError, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnreadableModel(f"{folder / _LEARNED} does not fit this guard and this model: {error}") from None
    if score.shape != (1,) or not bool(score.isfinite().all()):
        raise UnreadableModel(f"{folder / _LEARNED} does not fit this guard and this model: its scores are no numbers")


def judging_folder(path: str | os.PathLike[str]) -> Path | None:
    """The folder of a GoodNet or guard at ``path``: itself, or the GoodNet in a folder of goodnet repair; else None."""
    folder = Path(path)
    if is_goodnet(folder) or is_guard(folder):
        return folder
    return folder / "goodnet" if is_goodnet(folder / "goodnet") else None


def load_judging(path: str | os.PathLike[str]) -> GoodNet | FittedGuard:
    """Whatever can judge images: the folder of a GoodNet, of goodnet repair, or of a guard.

    Raises:
        UnreadableModel: it is none of them, or damaged.
        UnsafeFile: a model in it would execute something.
    """
    folder = judging_folder(path)
    if folder is None:
        raise UnreadableModel(f"{path} is no folder of goodnet guard fit, goodnet repair or save_goodnet")
    return load_guard(folder) if is_guard(folder) else load_goodnet(folder)
