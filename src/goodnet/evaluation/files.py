"""evaluate_file: from a model file, or two, and labeled images to accuracy and attack success."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from goodnet.attacks import Attack
from goodnet.core.classifier import Classifier
from goodnet.core.device import check_device
from goodnet.core.samples import Samples
from goodnet.data.load import load_data
from goodnet.errors import NotHeld, ParameterError, UnknownName, UsageError
from goodnet.evaluation.evaluate import Evaluation, Outcome, evaluate, measure
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model


@dataclass(frozen=True, kw_only=True)
class FileEvaluation:
    """What came of one model file.

    Attributes:
        model: as it was measured, with what was guessed about it.
        test: the images, fitted to the model.
        outcome: how the model does.
        compared: the model beside the one before it; None where there is none.
    """

    model: Classifier
    test: Samples
    outcome: Outcome
    compared: Evaluation | None


def evaluate_file(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str],
    attack: Attack | None = None,
    *,
    before: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    arch: str | None = None,
    input_range: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> FileEvaluation:
    """Load a model and labeled images, and measure the one on the other. Nothing in the file is executed.

    Args:
        path: see ``goodnet.load_model``.
        data: see ``goodnet.load_data``.
        attack: for attack success and recovered accuracy.
        before: the model that ``path`` was made from by a defense; both are measured on the same images.
        split: of the data; None for "test", or for all of a set that has no splits.
        limit: at most so many images, drawn at random by ``seed``; None for all.
        arch, input_range: as in ``load_model``; of two models for those that are no folders of ``save_model``.
        device: such as "cpu", "cuda" or "cuda:1".
        seed: of the draw of images.

    Raises:
        UsageError: an argument is wrong, or the images have no labels.
        UnsafeFile: loading a model the usual way would run code.
        UnreadableFile: a model or the images cannot be read.
    """
    check_device(device)
    places = [Path(path)] if before is None else [Path(path), Path(before)]
    told_of = [place for place in places if not place.is_dir()] or places
    loaded = [
        load_model(place, arch=arch, input_range=input_range) if place in told_of else load_model(place)
        for place in places
    ]
    test = load_test(data, split=split, limit=limit, seed=seed, shape=loaded[0].input_shape)
    models = [
        (model if place.is_dir() or input_range is not None else guess_input_range(model, test)).to(device)
        for place, model in zip(places, loaded, strict=True)
    ]
    if attack is not None:
        _check_attack(attack, models[0], test)
    compared = evaluate(models[1], models[0], test, attack) if before is not None else None
    outcome = compared.after if compared is not None else measure(models[0], test, attack)
    return FileEvaluation(model=models[0], test=test, outcome=outcome, compared=compared)


def _check_attack(attack: Attack, model: Classifier, test: Samples) -> None:
    """Raise NotHeld or ParameterError if the attack lacks what it learned, or wants what the model cannot answer."""
    for part in attack.parts():
        if part.rule in ("all-to-one", "source-to-target") and part.target >= model.num_classes:
            raise ParameterError(
                f"target {part.target} is none of the labels 0 to {model.num_classes - 1} of the model"
            )
        try:
            part.stamp(test.pick(torch.arange(1)).floats())
        except NotHeld:
            raise NotHeld(
                f"{part.card.name} learns its trigger from data, so its name alone does not say what it is: give the "
                "attack that the model was trained with (load_attack, or --attack with the folder of goodnet train)"
            ) from None


def load_test(
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    shape: tuple[int, int, int] | None = None,
) -> Samples:
    """Labeled images to measure on: the split "test" unless another one is named, all of a set without splits.

    Raises:
        UnknownName: the set has splits and none of this name; the message lists them.
        NotHeld: the images have no labels.
        UsageError, UnreadableFile: as ``load_data``.
    """
    try:
        test = load_data(data, split=split or "test", limit=limit, seed=seed, shape=shape)
    except UnknownName:
        raise
    except UsageError:
        if split is not None:
            raise
        test = load_data(data, limit=limit, seed=seed, shape=shape)
    if test.labels is None:
        raise NotHeld(f"{data} has no labels, and only on labeled images can a model be measured")
    return test
