"""What a network expects of its input: told by a name, or guessed from how it answers images."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, Preprocessing, predictions
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError

# from images in [0, 1]: scale, then mean and standard deviation per channel (one number: the same for every channel)
_RANGES: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "0..1": (1.0, (), ()),
    "0..255": (255.0, (), ()),
    "-1..1": (1.0, (0.5,), (0.5,)),
    "cifar10": (1.0, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
INPUT_RANGES = tuple(_RANGES)
_MOST_IMAGES = 500
_CLEAR = 0.1  # of variety; measured on twelve public networks, where it told 0..1 from the rest with 50 images


def preprocessing_for(input_range: str, channels: int) -> Preprocessing:
    """The preprocessing that a name in ``INPUT_RANGES`` stands for, for images of so many channels.

    Raises:
        ParameterError: no such name, or it is for colors and the images are grey.
    """
    if input_range not in _RANGES:
        raise ParameterError(f"input_range must be one of {', '.join(INPUT_RANGES)}, got {input_range!r}")
    scale, mean, std = _RANGES[input_range]
    if len(mean) > 1 and len(mean) != channels:
        raise ParameterError(f"input_range {input_range!r} is for {len(mean)} channels, the network takes {channels}")
    times = channels if len(mean) == 1 else 1
    return Preprocessing(scale=scale, mean=mean * times, std=std * times)


@dataclass(frozen=True)
class _Answers:
    """How a network answers the images in one input range.

    Attributes:
        variety: entropy of the predicted labels, as a share of the largest possible one.
        confidence: mean of the largest softmax output: 0 for chance, 1 for certainty.
        accuracy: on the labels, when they are the network's own; else nan.
    """

    variety: float
    confidence: float
    accuracy: float


def guess_input_range(classifier: Classifier, samples: Samples) -> Classifier:
    """The same network with the input range, of ``INPUT_RANGES``, in which it answers the images best.

    With labels that the network knows: the range of the highest accuracy. Without: in the wrong range a network gives
    nearly the same answer to all images, so the range with the most varied answers wins, but 0..1 stays unless another
    is clearly better. Needs at least about 50 varied images; what was compared is in ``origin.notes``.

    Args:
        classifier: returned as it is when its preprocessing was told or read from the file.
        samples: clean images, fitted to the network's input shape; at most 500 of them are used.

    Returns:
        A classifier that shares the network; ``preprocessing.guessed`` is True.
    """
    told = classifier.preprocessing
    if told != Preprocessing(channel_order=told.channel_order) or not len(samples):
        return classifier
    chosen = samples.pick(torch.linspace(0, len(samples) - 1, min(len(samples), _MOST_IMAGES)).long())
    chosen = chosen.fitted_to(classifier.input_shape)
    answers = {}
    for name in INPUT_RANGES:
        if len(_RANGES[name][1]) in (0, 1, classifier.input_shape[0]):
            preprocessing = replace(
                preprocessing_for(name, classifier.input_shape[0]), channel_order=told.channel_order
            )
            candidate = _with(classifier, preprocessing, "")
            answers[name] = _answers(predictions(candidate, chosen.images), chosen.labels)
    name, reason = _best(answers, chosen)
    preprocessing = replace(
        preprocessing_for(name, classifier.input_shape[0]), channel_order=told.channel_order, guessed=True
    )
    return _with(classifier, preprocessing, f"input range {name} is a guess from {len(chosen)} images: {reason}")


def _with(classifier: Classifier, preprocessing: Preprocessing, note: str) -> Classifier:
    notes = (*classifier.origin.notes, note) if note else classifier.origin.notes
    made = Classifier(
        classifier.net,
        input_shape=classifier.input_shape,
        num_classes=classifier.num_classes,
        preprocessing=preprocessing,
        architecture=classifier.architecture,
        class_names=classifier.class_names,
        origin=replace(classifier.origin, notes=notes),
    )
    return made.train(classifier.training)


def _answers(logits: Tensor, labels: Tensor | None) -> _Answers:
    count, classes = logits.shape
    predicted = logits.argmax(1)
    shares = predicted.bincount(minlength=classes).float() / count
    variety = float(torch.special.entr(shares).sum()) / max(math.log(min(count, classes)), 1e-9)
    certainty = float(logits.softmax(1).amax(1).mean())
    accuracy = float("nan") if labels is None else float((predicted == labels).float().mean())
    return _Answers(variety, (certainty * classes - 1) / max(classes - 1, 1), accuracy)


def _best(answers: dict[str, _Answers], samples: Samples) -> tuple[str, str]:
    """The name of the best range, and the reason with its figures."""
    if samples.labels is not None:
        best = max(answers, key=lambda name: answers[name].accuracy)
        share = float(samples.labels.clamp(min=0).bincount().max()) / len(samples)
        # labels are the network's own if it beats the most frequent label by four standard errors
        if answers[best].accuracy > share + 4 * math.sqrt(share * (1 - share) / len(samples)):
            listed = ", ".join(f"{name} {answer.accuracy:.1%}" for name, answer in answers.items())
            return best, f"accuracy {listed}"
    best = max(answers, key=lambda name: answers[name].variety)
    usual = answers["0..1"]
    listed = ", ".join(f"{name} {answer.variety:.2f}" for name, answer in answers.items())
    if answers[best].variety > usual.variety + _CLEAR:
        return best, f"variety of its answers, 0 to 1: {listed}"
    scaled = answers["0..255"]
    # a network without biases gives the same labels in both, but hardly above chance in the wrong one
    if usual.confidence < 0.1 and scaled.confidence > 0.5 and scaled.variety > usual.variety - _CLEAR:
        return "0..255", f"confidence 0..1 {usual.confidence:.2f}, 0..255 {scaled.confidence:.2f}"
    return "0..1", f"no other is clearly better; variety of its answers, 0 to 1: {listed}"
