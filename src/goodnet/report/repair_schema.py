"""The JSON of a repair, schema 1: the one place that defines its keys; ``docs/json.md`` repeats them and is tested.

New keys may be added within schema 1; a key that changes its meaning or goes makes schema 2.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Interval = tuple[float, float] | None
_STRICT = ConfigDict(extra="forbid", frozen=True)


class FlaggedRecord(BaseModel):
    """What the audit before a repair said."""

    model_config = _STRICT

    flagged: bool | None = Field(description="as in `report.json`")
    targets: list[int] = Field(description="the labels that were repaired")
    p_value: float | None = Field(description="as in `report.json`")


class TriggerProofRecord(BaseModel):
    """One reconstructed trigger before and after."""

    model_config = _STRICT

    target: int = Field(ge=0, description="the label that images with this trigger are given")
    before: int = Field(description="stamped images that the old model answers with the target")
    after: int = Field(description="stamped images that the new model answers with the target")
    recovered: int = Field(description="stamped images that the new model answers as they should be")
    count: int = Field(description="how many images were stamped")
    intervals_95: dict[str, Interval] = Field(description="of the shares `before`, `after`, `recovered`; null of none")


class ProofRecord(BaseModel):
    """Old and new model on images that neither the audit nor the repair saw."""

    model_config = _STRICT

    labeled: bool = Field(description="true: right is the image's label; false: right is the old model's answer")
    before: int = Field(description="images that the old model answers right")
    after: int = Field(description="images that the new model answers right")
    lost: int = Field(description="images right before and not after")
    won: int = Field(description="images right after and not before")
    shifted_before: int = Field(description="as `before`, each image shifted by up to two pixels")
    shifted_after: int = Field(description="as `after`, likewise")
    count: int = Field(description="how many images there are")
    triggers: list[TriggerProofRecord] = Field(description="one object for each reconstructed trigger")
    drop: float = Field(description="share of the images that is lost on balance; may be negative")
    drop_at_most: float = Field(description="with 95 % confidence no larger share is lost")
    harm: float = Field(description="`drop`, or that on the shifted images where it is larger")
    margin_95: float = Field(description="how far the share that is right after may be off either way")
    intervals_95: dict[str, Interval] = Field(description="of the shares `before` and `after`; null of none")


class RetunedRecord(BaseModel):
    """What a trigger does when a few images show it to the new model again."""

    model_config = _STRICT

    target: int = Field(ge=0, description="the label that the trigger leads to")
    regained: int = Field(description="stamped images that go to the target again")
    control: int = Field(description="the same for a mark that the model has never known")
    count: int = Field(description="out of how many, each")
    suppressed: bool | None = Field(description="true: it comes back faster than a new mark; null: cannot be told")


class PriceRecord(BaseModel):
    """One threshold of a GoodNet."""

    model_config = _STRICT

    threshold: float = Field(description="N is answered where more confidence is lost")
    false_alarms: int = Field(description="clean images answered N")
    stopped: int = Field(description="stamped images that do not go to the target")


class GoodNetRecord(BaseModel):
    """The model in `DIR/goodnet`, which answers N, as a class that does not exist, for an input with a trigger."""

    model_config = _STRICT

    rule: str = Field(description="how it decides; `second-opinion` gives the old model's own answers or N")
    thresholds: dict[str, float] = Field(description="of the rule, by name")
    classes: int = Field(description="N")
    rate: float = Field(description="the share of clean images answered N that was asked for")
    count: int = Field(description="clean images that the thresholds were fitted on")
    false_alarms: int = Field(description="how many of them are answered N")
    stamped: int = Field(description="images under reconstructed triggers")
    caught: int = Field(description="how many of them are answered N")
    succeeded: int = Field(description="how many of them go to the target")
    prices: list[PriceRecord] = Field(description="the price curve, from never N to often")


class RepairRecord(BaseModel):
    """``repair.json``: what came of the repair of one model file."""

    model_config = _STRICT

    version: Literal[1] = Field(1, alias="schema", description="version of this format")
    file: str = Field(description="the model file, as it was given")
    sha256: str = Field(description='of the file, in hex; "" of a folder')
    accepted: bool = Field(description="true: DIR/model is the repaired model; false: it is the old one")
    reason: str = Field(description="why, in one sentence")
    audit: FlaggedRecord | None = Field(description="null where no audit was needed, or the targets were named")
    method: str | None = Field(description="name of the repairer; null when there was nothing to repair")
    method_version: int | None = Field(description="goes up when the method's answers change")
    parameters: dict[str, JsonValue] | None = Field(description="every parameter of the method")
    seed: int | None = Field(description="seed of the run; the same seed gives the same answer")
    seconds: float = Field(description="wall time of audit and repair")
    device: str | None = Field(description="where it ran, such as cpu or cuda:0")
    counts: dict[str, int] = Field(description="how many images, epochs, channels ... were used")
    versions: dict[str, str] = Field(description="versions of goodnet, torch and python")
    notes: dict[str, float] = Field(description="the method's own numbers")
    evidence: dict[str, JsonValue] = Field(description="the method's own evidence; differs from method to method")
    proof: ProofRecord | None = Field(description="null when there was nothing to repair")
    retuned: list[RetunedRecord] = Field(description="one object for each trigger; empty where nothing was accepted")
    goodnet: GoodNetRecord | None = Field(description="null where none was written")
