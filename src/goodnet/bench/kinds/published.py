"""A "published" cell: a model file as it is, measured on images that are none of its training's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from goodnet.bench.kinds._common import attack_of, published_model
from goodnet.evaluation import measure


def measure_published(parameters: Mapping[str, Any], data: Path | None) -> dict[str, JsonValue]:
    """Without clean accuracy, which the model's own answers cannot tell."""
    model, own = published_model(parameters, data)
    made = measure(model, own, attack_of(parameters["attack"], data)).as_json()
    return {"test_images": len(own), **made, "clean_accuracy": None}
