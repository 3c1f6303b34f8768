"""Figures: what somebody published for a row of a suite."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from goodnet.errors import UsageError


class Figures(BaseModel):
    """What somebody published for a row: the table ``published`` of a suite.

    Attributes:
        source: where it stands.
        clean_accuracy, attack_success_rate: shares in [0, 1]; None where nothing was said.
        clean_accuracy_after, attack_success_rate_after: of what a repair or a learner made.
        poison_removed, clean_removed: by a cleanser, of the poison and of the clean samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = ""
    clean_accuracy: float | None = Field(None, ge=0, le=1)
    attack_success_rate: float | None = Field(None, ge=0, le=1)
    clean_accuracy_after: float | None = Field(None, ge=0, le=1)
    attack_success_rate_after: float | None = Field(None, ge=0, le=1)
    poison_removed: float | None = Field(None, ge=0, le=1)
    clean_removed: float | None = Field(None, ge=0, le=1)


def figures_of(published: JsonValue) -> Figures | None:
    """From what a row says; None where it says nothing.

    Raises:
        UsageError: a key or a share is wrong.
    """
    if not published:
        return None
    try:
        return Figures.model_validate(published)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(f"what a row of the suite has under published is wrong: {wrong}") from None
