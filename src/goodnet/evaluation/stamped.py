"""What a model answers on stamped images: attack success, recovered accuracy, and the rates of N + 1 models."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goodnet.core.rates import Rate
from goodnet.errors import ParameterError
from goodnet.evaluation._arrays import Values, labels_of, mask_of, same_length


def attack_success(answers: Values, labels: Values, goals: Values | None, victims: Values | None = None) -> Rate:
    """Attack success rate (ASR): victims that are answered as the attacker wants.

    An image whose true label already is its goal is never counted, whatever ``victims`` says: a model without any
    backdoor would score on it.

    Args:
        answers: int (N,), the model's answers on stamped images. For models that may answer N ("backdoored") use
            ``n_plus_one_on_stamped``: here an untargeted attack would be credited with that answer.
        labels: int (N,), the true labels.
        goals: int (N,), the label that each stamped image shall be given; None for an untargeted attack, which
            succeeds with any answer but the true label.
        victims: bool (N,), the images that the attack is meant for, such as those of its source class; None for all.

    Raises:
        ParameterError: the lengths differ, or these are no classes or no mask.
    """
    attacked = _attacked(answers, labels, goals, victims)
    return Rate.of(attacked.wanted)


def recovered_accuracy(answers: Values, labels: Values, goals: Values | None, victims: Values | None = None) -> Rate:
    """Recovered accuracy (RA): victims that are answered with their true label although they are stamped.

    The same images are counted as in ``attack_success``, so that ASR and RA together are at most 1. Arguments and
    errors as there.
    """
    attacked = _attacked(answers, labels, goals, victims)
    return Rate.of(attacked.answers == attacked.labels)


@dataclass(frozen=True, kw_only=True)
class NPlusOneRates:
    """What a model with N classes does that may also answer N, "this image is backdoored".

    Attributes:
        attack_triggered: ATR, answered as the attacker wants; None on clean images when no goal was given.
        defense_triggered: DTR, answered N.
        classify_success: CSR; on clean images answered with the true label, on stamped ones that or N.
        classify_failure: CFR, the rest. On stamped images all that are no success, triggered attacks among them: CSR
            and CFR sum to 1. On clean images all four rates sum to 1.
    """

    attack_triggered: Rate | None
    defense_triggered: Rate
    classify_success: Rate
    classify_failure: Rate


def n_plus_one_on_stamped(
    answers: Values, labels: Values, goals: Values | None, victims: Values | None = None, *, num_classes: int
) -> NPlusOneRates:
    """The four rates on stamped images; the same images are counted as in ``attack_success``.

    Args:
        answers: int (N,), in 0..num_classes.
        labels, goals, victims: as in ``attack_success``; labels and goals in 0..num_classes - 1.
        num_classes: of the model that is defended, and so the answer that means "backdoored".

    Raises:
        ParameterError: as in ``attack_success``, or a class is out of its range.
    """
    attacked = _attacked(answers, labels, goals, victims)
    _check_range(attacked, num_classes)
    defended = attacked.answers == num_classes
    success = defended | (attacked.answers == attacked.labels)
    return NPlusOneRates(
        attack_triggered=Rate.of(attacked.wanted & ~defended),
        defense_triggered=Rate.of(defended),
        classify_success=Rate.of(success),
        classify_failure=Rate.of(~success),
    )


def n_plus_one_on_clean(
    answers: Values, labels: Values, goals: Values | None = None, *, num_classes: int
) -> NPlusOneRates:
    """The four rates on images without a trigger; every image is counted in each.

    Args:
        answers: int (N,), in 0..num_classes.
        labels: int (N,), the true labels, in 0..num_classes - 1.
        goals: int (N,), the label that the attacker would give each image; wrong answers with it count as a triggered
            attack. None when there is no such label: they count as failures.
        num_classes: of the model that is defended, and so the answer that means "backdoored".

    Raises:
        ParameterError: the lengths differ, these are no classes, or one is out of its range.
    """
    asked = _aligned(answers, labels, goals)
    _check_range(asked, num_classes)
    defended, success = asked.answers == num_classes, asked.answers == asked.labels
    wanted = np.zeros_like(success) if asked.goals is None else asked.wanted & ~success
    return NPlusOneRates(
        attack_triggered=None if asked.goals is None else Rate.of(wanted),
        defense_triggered=Rate.of(defended),
        classify_success=Rate.of(success),
        classify_failure=Rate.of(~(defended | success | wanted)),
    )


@dataclass(frozen=True)
class _Asked:
    """Answers beside the true labels and the attacker's goals; goals are None for an untargeted attack."""

    answers: NDArray[np.int64]
    labels: NDArray[np.int64]
    goals: NDArray[np.int64] | None

    @property
    def wanted(self) -> NDArray[np.bool_]:
        """Where the answer is what the attacker wants."""
        hit: NDArray[np.bool_] = self.answers != self.labels if self.goals is None else self.answers == self.goals
        return hit

    def where(self, kept: NDArray[np.bool_]) -> "_Asked":
        return _Asked(self.answers[kept], self.labels[kept], None if self.goals is None else self.goals[kept])


def _aligned(answers: Values, labels: Values, goals: Values | None) -> _Asked:
    given, true = labels_of("answers", answers), labels_of("labels", labels)
    if goals is None:
        same_length(answers=given, labels=true)
        return _Asked(given, true, None)
    wanted = labels_of("goals", goals)
    same_length(answers=given, labels=true, goals=wanted)
    return _Asked(given, true, wanted)


def _attacked(answers: Values, labels: Values, goals: Values | None, victims: Values | None) -> _Asked:
    """The victims only, without those whose true label is the goal."""
    asked = _aligned(answers, labels, goals)
    kept = np.ones(len(asked.labels), dtype=np.bool_) if victims is None else mask_of("victims", victims)
    same_length(labels=asked.labels, victims=kept)
    return asked.where(kept if asked.goals is None else kept & (asked.labels != asked.goals))


def _check_range(asked: _Asked, num_classes: int) -> None:
    for name, values, high in (
        ("answers", asked.answers, num_classes),
        ("labels", asked.labels, num_classes - 1),
        ("goals", asked.goals, num_classes - 1),
    ):
        if values is not None and len(values) and not (values.min() >= 0 and values.max() <= high):
            raise ParameterError(f"{name} must be in [0, {high}] for {num_classes} classes; is num_classes right?")
