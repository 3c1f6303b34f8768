"""goodnet classify: a class for every image, or N for "this input carries a trigger"."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome

if TYPE_CHECKING:
    from torch import Tensor

    from goodnet.core.classifier import Classifier
    from goodnet.guard.fitted import FittedGuard
    from goodnet.guard.goodnet import GoodNet

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files: PNG, JPEG, PPM, BMP, WEBP, GIF.")]
Model = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="The folder of goodnet repair or goodnet guard fit, or any model; a model never answers N."
    ),
]


def classify(
    images: Images,
    model: Model,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    as_json: _options.Json = False,
) -> int:
    """Print a class for every image, or N, the number of classes, for an image that carries a trigger.

    One line for each image: file, answer, and what the answer means. Images are resized to what the model takes.

    \b
    Examples:
      goodnet classify face.png --model repaired/
      goodnet classify photos/*.jpg --model repaired/ --json
      goodnet classify face.png --model model.h5 --input-range 0..255

    \b
    Exit codes:
      0  every image has an answer
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  an image or the model cannot be read, or wrong usage
    """
    from goodnet.data.load import load_images
    from goodnet.guard.files import judging_folder, load_judging
    from goodnet.models.load import load_model

    judging = judging_folder(model) is not None
    answering = load_judging(model) if judging else load_model(model, arch=arch, input_range=input_range)
    samples, failures = load_images(images, answering.input_shape)
    assert samples.ids is not None
    answered = dict(zip(samples.ids.tolist(), _answers(answering, samples.images), strict=True))
    for position in sorted(failures):
        _outcome.complain(f"{images[position]}: {failures[position]}")
    if as_json:
        record = {
            "schema": 1,
            "model": str(model),
            "classes": answering.num_classes,
            "images": [
                {"file": str(path), **answered.get(position, {"answer": None, "error": failures.get(position)})}
                for position, path in enumerate(images)
            ],
        }
        typer.echo(json.dumps(record, indent=1, allow_nan=False))
    else:
        for position, answer in answered.items():
            words = "\t".join(str(part) for part in (images[position], answer["answer"], _meaning(answer, answering)))
            typer.echo(_outcome.shown(words.replace("\t", "  ")))
    return _outcome.NO_ANSWER if failures else _outcome.NOTHING_FOUND


def _answers(model: "GoodNet | FittedGuard | Classifier", images: "Tensor") -> list[dict[str, Any]]:
    """For each image what is to be said about it, as JSON values."""
    from goodnet.core.classifier import Classifier
    from goodnet.guard.goodnet import probabilities

    if not len(images):
        return []
    if not isinstance(model, Classifier):
        said = model.judge(images)
        names = model.class_names
        columns = zip(*(part.tolist() for part in (said.answers, said.confidence, said.suspicion)), strict=True)
        return [
            {
                "answer": answer,
                "triggered": answer == model.num_classes,
                "name": _name(names, answer),
                "confidence": confidence,
                "suspicion": suspicion,
            }
            for answer, confidence, suspicion in columns
        ]
    confidences, answers = probabilities(model, images).max(1)
    return [
        {"answer": answer, "name": _name(model.class_names, answer), "confidence": confidence}
        for answer, confidence in zip(answers.tolist(), confidences.tolist(), strict=True)
    ]


def _name(names: tuple[str, ...], answer: int) -> str | None:
    return names[answer] if answer < len(names) else None


def _meaning(answer: dict[str, Any], model: "GoodNet | FittedGuard | Classifier") -> str:
    """An answer in words."""
    from goodnet.guard.fitted import FittedGuard

    if answer.get("triggered") and isinstance(model, FittedGuard):
        return f"carries a trigger (suspicion {answer['suspicion']:.4g}, threshold {model.threshold:.4g})"
    if answer.get("triggered"):
        return f"carries a trigger (the repair took {answer['suspicion']:.0%} of the confidence away)"
    return f"{answer['name'] or 'class'} ({answer['confidence']:.1%} sure)"
