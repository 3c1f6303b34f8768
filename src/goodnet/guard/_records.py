"""What the JSON files of GoodNets and guards may hold."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Notes = Annotated[tuple[str, ...], Field(max_length=100)]


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


class RateRecord(_Record):
    """See ``goodnet.core.rates.Rate``."""

    hits: _Count
    count: _Count


class GuardCalibrationRecord(_Record):
    """See ``goodnet.guard.fitted.GuardCalibration``."""

    rate: _Share
    alarms: RateRecord
    median: _Number
    deviation: _Number


class ProvenanceRecord(_Record):
    """See ``goodnet.core.run.Provenance``."""

    method: str
    version: int
    parameters: dict[str, Any]
    seed: int
    seconds: _Number
    peak_memory_bytes: int
    device: str
    counts: dict[str, int]
    versions: dict[str, str]
    assumes: tuple[str, ...]


class GuardDescription(_Record):
    """What ``guard.json`` holds; the method and its parameters are those of the provenance."""

    version: Literal[1] = 1
    goodnet: str
    values: dict[str, Any]
    learned_notes: _Notes
    learned_counts: dict[str, int]
    threshold: _Number
    calibration: GuardCalibrationRecord
    notes: _Notes
    provenance: ProvenanceRecord
