"""Accuracy, for all images and for each class, and what a defense changed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goodnet.core.rates import Rate
from goodnet.evaluation._arrays import Values, labels_of, same_length


@dataclass(frozen=True)
class Change:
    """One rate without and with a defense."""

    before: Rate
    after: Rate

    @property
    def drop(self) -> float | None:
        """Before minus after, in [-1, 1]: positive when the rate went down; None when one of them is of nothing."""
        before, after = self.before.value, self.after.value
        return None if before is None or after is None else before - after


def clean_accuracy(answers: Values, labels: Values) -> Rate:
    """Images without a trigger that are answered with their label.

    Args:
        answers: int (N,), the model's; N + 1 models may answer N, which is never right.
        labels: int (N,), the true ones.

    Raises:
        ParameterError: the lengths differ, or these are no classes.
    """
    given, true = _answers_and_labels(answers, labels)
    return Rate.of(given == true)


def accuracy_per_class(answers: Values, labels: Values) -> dict[int, Rate]:
    """Class → accuracy on its images, for the classes that occur in ``labels``; arguments as in ``clean_accuracy``."""
    given, true = _answers_and_labels(answers, labels)
    return {int(label): Rate.of(given[true == label] == label) for label in np.unique(true)}


def harm_per_class(before: Values, after: Values, labels: Values) -> dict[int, Change]:
    """Class → its accuracy before and after a defense, on the same images; a positive ``drop`` is harm.

    Args:
        before, after: int (N,), answers of the model without and with the defense.
        labels: int (N,), the true ones.

    Raises:
        ParameterError: the lengths differ, or these are no classes.
    """
    accuracy_before, accuracy_after = accuracy_per_class(before, labels), accuracy_per_class(after, labels)
    return {label: Change(accuracy_before[label], accuracy_after[label]) for label in accuracy_before}


def _answers_and_labels(answers: Values, labels: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    given, true = labels_of("answers", answers), labels_of("labels", labels)
    same_length(answers=given, labels=true)
    return given, true
