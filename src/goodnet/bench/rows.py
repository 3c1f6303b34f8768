"""Row: what a suite may say about one combination of data, network, attack, and audit or repair."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from goodnet.bench.datasets import DataSpec

Named = str | dict[str, JsonValue]  # "badnets", or {name = "badnets", size = 4}


class Published(BaseModel):
    """A model file that somebody else made, under the benchmark's data folder.

    Attributes:
        file: its path below that folder.
        arch, input_range: as in ``load_model``, for files that do not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    arch: str | None = None
    input_range: str | None = None


class Row(BaseModel):
    """One row of a suite.

    Attributes:
        data: what is trained and tested on.
        architecture: name of the network that is trained, or
        model: a published model file, which is measured, and repaired, with the trigger of ``attack`` as it is. Where
            its classes are not those of the data its own answers on clean images stand for labels.
        attack: name and parameters, or "none".
        recipe: how the net is trained.
        audit: name and parameters of an auditor that judges the net, or "none".
        repair: name and parameters of a repairer, or "none".
        held: clean images that the defender holds; they are drawn from the test images and never measured on.
        labeled: whether a repairer is given their labels.
        triggers: where a repairer that works on triggers has them from: "audit", as ``goodnet repair``; "target", which
            knows the attack's targets and inverts triggers to them; "original", which holds the attacker's own. No
            defender has the last one, few have the second.
        seed: of poisoning, initial weights, training and defense.
        label, published: words and figures to show beside the result; no part of the cell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | DataSpec
    architecture: str = ""
    model: Published | None = None
    attack: Named = "none"
    recipe: dict[str, JsonValue] = {}
    audit: Named = "none"
    repair: Named = "none"
    held: int = Field(500, ge=1)
    labeled: bool = True
    triggers: Literal["audit", "target", "original"] = "audit"
    seed: int = Field(0, ge=0)
    label: str = ""
    published: dict[str, JsonValue] = {}
