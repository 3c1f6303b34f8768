"""The JSON report, schema 1: the one place that defines its keys; ``docs/json.md`` repeats them and is tested.

New keys may be added within schema 1; a key that changes its meaning or goes makes schema 2.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class LabelRecord(BaseModel):
    """What was found for one label; further keys are the method's own numbers, such as ``mask_l1`` (pixels)."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, float | None]

    label: int = Field(ge=0, description="the label, 0..K-1")
    score: float | None = Field(description="larger is more suspicious; comparable between the labels of one model")
    flagged: bool = Field(description="whether this label is a suspected target")


class TriggerRecord(BaseModel):
    """One reconstructed trigger, without its pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: int = Field(ge=0, description="the label that images with this trigger are given")
    success_rate: float | None = Field(
        description="share of held-out images, not already answered as the target, that the trigger sends to it"
    )
    count: int = Field(description="how many held-out images that share is of")
    mask_l1: float | None = Field(description="size of the trigger: sum of its mask, in pixels")


class NaturalRecord(BaseModel):
    """The second look at one label that stood out: is its trigger a natural feature of a label like another?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: int = Field(ge=0, description="the label that the trigger leads to")
    victim: int | None = Field(description="the label that looks most like it; null where there are too few images")
    outcome: Literal["natural", "not natural", "undecided"] = Field(
        description="natural: the label was taken from the targets; the other two leave it there"
    )
    reason: str = Field(description="why, in a few words")
    layer: str = Field(description='the layer whose channels were compared; "" for none')
    overlap: float | None = Field(description="what the smaller of the two sets of channels shares with the other")
    crossed: list[float] = Field(description="success of each set of channels where the other was found; four shares")


class AuditRecord(BaseModel):
    """What is known about one model file. A file that was refused has the same keys, and says why in ``error``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(1, alias="schema", description="version of this format")
    file: str = Field(description="the model file, as it was given")
    sha256: str = Field(description='of the file, in hex; "" when it could not be read')
    flagged: bool | None = Field(
        None,
        description="true: backdoor found; false: no evidence of a backdoor, which is no proof that there is none; "
        "null: inconclusive, or not audited",
    )
    targets: list[int] = Field([], description="the target labels when flagged, most suspicious first; else empty")
    p_value: float | None = Field(
        None, description="how often a model without a backdoor scores as high; null when nothing fits to compare with"
    )
    method: str | None = Field(None, description="name of the auditor; null when not audited")
    labels: int | None = Field(None, description="K, the number of labels of the model; null when not audited")
    seconds: float | None = Field(None, description="wall time of the audit; null when not audited")
    peak_memory_bytes: int | None = Field(
        None, description="most memory held during the audit, on the GPU if it ran there; null when not audited"
    )
    per_label: list[LabelRecord] = Field([], description="one object for each label that was looked at, by label")
    file_findings: list[str] = Field([], description="what the scan of the file found, one line each")
    error: str | None = Field(None, description="why the file was not audited; null when it was")
    error_type: str | None = Field(
        None,
        description="UnsafeFile: loading it would execute something; UnreadableModel, UnknownArchitecture, ...: "
        "it cannot be read; null when audited",
    )
    score: float | None = Field(None, description="the model's score, larger is more suspicious")
    alpha: float | None = Field(None, description="the false-alarm rate at which flagged was decided")
    reason: str | None = Field(None, description="why the verdict is as it is, in one sentence")
    triggers: list[TriggerRecord] = Field([], description="the reconstructed triggers, most suspicious first")
    natural_features: list[NaturalRecord] = Field(
        [], description="the second look at each label that stood out; empty when it was not made"
    )
    evidence: dict[str, JsonValue] = Field({}, description="the method's own evidence; differs from method to method")
    method_version: int | None = Field(None, description="goes up when the method's answers change")
    parameters: dict[str, JsonValue] = Field({}, description="every parameter of the method")
    assumes: list[str] = Field([], description="what the method takes to be true of a backdoor; others can escape it")
    seed: int | None = Field(None, description="seed of the run; the same seed gives the same answer")
    device: str | None = Field(None, description="where it ran, such as cpu or cuda:0")
    counts: dict[str, int] = Field({}, description="how many images, labels, restarts ... were used")
    versions: dict[str, str] = Field({}, description="versions of goodnet, torch and python")


class ReportRecord(BaseModel):
    """``report.json``: one record for each file, in the order in which they were given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(1, alias="schema", description="version of this format")
    files: list[AuditRecord] = Field(description="one record for each model file, in the order given")
