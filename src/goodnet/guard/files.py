"""A GoodNet as a folder: two saved models, and ``goodnet.json`` with the rule and what it was fitted on."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import goodnet
from goodnet.core.params import make
from goodnet.core.whole_folder import require_own, whole_folder
from goodnet.errors import UnreadableModel
from goodnet.guard.goodnet import Calibration, GoodNet, Price
from goodnet.guard.rules import RULES
from goodnet.models.formats._base import reading
from goodnet.models.load import load_model
from goodnet.models.save import save_model

DESCRIPTION = "goodnet.json"
_BADNET, _REPAIRED = "badnet", "repaired"
_CONTENTS = (DESCRIPTION, _BADNET, _REPAIRED)
_MAX_BYTES = 1 << 20

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PriceRecord(_Record):
    """See ``goodnet.guard.goodnet.Price``."""

    threshold: _Share
    false_alarms: _Count
    stopped: _Count


class CalibrationRecord(_Record):
    """See ``goodnet.guard.goodnet.Calibration``."""

    rate: _Share
    count: _Count
    false_alarms: _Count
    stamped: _Count
    caught: _Count
    succeeded: _Count
    prices: Annotated[tuple[PriceRecord, ...], Field(max_length=1000)]


class Description(_Record):
    """What ``goodnet.json`` holds."""

    version: Literal[1] = 1
    goodnet: str
    rule: str
    thresholds: dict[str, float]
    calibration: CalibrationRecord | None


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
