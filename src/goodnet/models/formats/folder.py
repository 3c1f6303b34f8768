"""goodnet's own folder: ``model.safetensors`` with the arrays and ``model.json`` with everything else."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from goodnet.errors import UnreadableModel
from goodnet.models.formats import safetensors_file
from goodnet.models.formats._base import ModelFile, reading

ARRAYS, DESCRIPTION = "model.safetensors", "model.json"
_MAX_BYTES = 64 << 20

Side = Annotated[int, Field(ge=1, le=8192)]


class PreprocessingRecord(BaseModel):
    """See ``goodnet.core.classifier.Preprocessing``."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(gt=0, allow_inf_nan=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["RGB", "BGR"]
    guessed: bool


class OriginRecord(BaseModel):
    """See ``goodnet.core.classifier.Origin``."""

    model_config = ConfigDict(extra="forbid")

    file: str
    sha256: str
    format: str
    notes: tuple[str, ...]
    history: tuple[dict[str, Any], ...]


class Description(BaseModel):
    """What ``model.json`` holds: exactly one of ``architecture`` and ``graph`` says how the network is built."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    goodnet: str
    architecture: str
    graph: dict[str, Any] | None
    input_shape: tuple[Side, Side, Side]
    num_classes: int = Field(ge=2, le=1 << 24)
    class_names: tuple[str, ...]
    preprocessing: PreprocessingRecord
    origin: OriginRecord


def read(path: Path) -> ModelFile:
    """What ``goodnet.save_model`` wrote into the folder ``path``.

    Raises:
        UnreadableModel: a file of it is missing or damaged.
    """
    for name in (DESCRIPTION, ARRAYS):
        if not (path / name).is_file():
            raise UnreadableModel(
                f"{path} is a folder without {name}; pass a model file or a folder of goodnet.save_model"
            )
    with reading(path / DESCRIPTION, "the description of a saved model"):
        if (path / DESCRIPTION).stat().st_size > _MAX_BYTES:
            raise UnreadableModel(f"{path / DESCRIPTION} is larger than {_MAX_BYTES:,} bytes; that is no description")
        description = Description.model_validate_json((path / DESCRIPTION).read_bytes())
    arrays = safetensors_file.read(path / ARRAYS).arrays
    return ModelFile("goodnet folder", arrays, layout="torch", graph=description.graph, description=description)
