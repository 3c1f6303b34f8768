"""Row: what a suite may say about one combination of data, network, attack, and what is done against it."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

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


class SourceSpec(BaseModel):
    """Who brought the images of a training set, made up by the row's seed: sources of equal size, as far as possible.

    Attributes:
        count: how many sources there are.
        poisoned: how many of them, the last ones, bring all of the poison and the covers, dealt out at random.
        mixed: whether these bring clean images too, until they are as large as the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=2)
    poisoned: int = Field(1, ge=1)
    mixed: bool = True

    @model_validator(mode="after")
    def _some_are_clean(self) -> Self:
        if self.poisoned >= self.count:
            raise ValueError(f"of {self.count} sources {self.poisoned} cannot be poisoned; leave one that is clean")
        return self


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
        cleanse: name and parameters of a cleanser of the training set, or "none".
        learn: name and parameters of a learner that is given the training set instead, or "none".
        held: clean images that the defender holds; they are drawn from the test images and never measured on.
        labeled: whether a repairer, cleanser or learner is given their labels.
        sources: of the training set, for methods that ask for them; None: those that the data have.
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
    cleanse: Named = "none"
    learn: Named = "none"
    held: int = Field(500, ge=1)
    labeled: bool = True
    sources: SourceSpec | None = None
    triggers: Literal["audit", "target", "original"] = "audit"
    seed: int = Field(0, ge=0)
    label: str = ""
    published: dict[str, JsonValue] = {}
