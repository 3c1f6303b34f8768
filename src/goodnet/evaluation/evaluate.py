"""Models against the truth: what they answer on test images, clean and stamped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from goodnet.attacks._base import Attack, to_bytes
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rates import Rate
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.evaluation.rates import Change, clean_accuracy, harm_per_class
from goodnet.evaluation.repair import defense_effectiveness, repair_succeeded
from goodnet.evaluation.stamped import attack_success, recovered_accuracy


@dataclass(frozen=True)
class Outcome:
    """How one model does on test images.

    Attributes:
        accuracy: on clean images.
        success: attack success, for each trigger of the attack; empty without an attack.
        recovered: stamped victims that are answered with their true label, for each trigger.
    """

    accuracy: Rate
    success: tuple[Rate, ...] = ()
    recovered: tuple[Rate, ...] = ()

    @property
    def worst_success(self) -> Rate | None:
        """The success of the trigger that works best; None without an attack."""
        return max(self.success, key=lambda rate: rate.value or 0.0, default=None)

    def as_json(self) -> dict[str, Any]:
        """Counts, shares and intervals as JSON values."""
        worst = self.worst_success
        return {
            "clean_accuracy": self.accuracy.as_json(),
            "attack_success_rate": None if worst is None else worst.as_json(),
            "per_trigger": [
                {"attack_success_rate": hit.as_json(), "recovered_accuracy": right.as_json()}
                for hit, right in zip(self.success, self.recovered, strict=True)
            ],
        }


@dataclass(frozen=True)
class Evaluation:
    """A model before and after a defense, on the same test images.

    Attributes:
        before, after: each on its own.
        harm: class → its accuracy before and after.
    """

    before: Outcome
    after: Outcome
    harm: Mapping[int, Change]

    @property
    def accuracy(self) -> Change:
        return Change(self.before.accuracy, self.after.accuracy)

    @property
    def attack(self) -> Change | None:
        """The success of the best trigger before and of the best one after; None without an attack."""
        before, after = self.before.worst_success, self.after.worst_success
        return None if before is None or after is None else Change(before, after)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, with the defense effectiveness rating and whether the repair succeeded."""
        attack, dropped = self.attack, [(change.drop or 0.0, label) for label, change in self.harm.items()]
        worst_drop, worst_class = max(dropped, default=(None, None))
        return {
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "accuracy_drop": self.accuracy.drop,
            "largest_class_drop": worst_drop,
            "largest_class_drop_at": worst_class,
            "defense_effectiveness": None if attack is None else defense_effectiveness(attack, self.accuracy),
            "repair_succeeded": None if attack is None else repair_succeeded(attack, self.accuracy),
        }


def measure(model: Classifier, test: Samples, attack: Attack | None = None) -> Outcome:
    """One model on ``test`` (labels needed), clean and, with ``attack``, stamped at 8 bits as the world stores images.

    Success is counted on the images that the attack is meant for, never on those of the wanted class.

    Raises:
        NotHeld: the images have no labels.
        ParameterError: they do not have the shape that the model wants.
    """
    labels = _labels(model, test)
    return _outcome(model, test, labels, predictions(model, test.images).argmax(1), attack)


def evaluate(before: Classifier, after: Classifier, test: Samples, attack: Attack | None = None) -> Evaluation:
    """Two models on the same images: what a defense changed. Arguments and errors as in ``measure``."""
    labels = _labels(after, test)
    old, new = (predictions(model, test.images).argmax(1) for model in (before, after))
    return Evaluation(
        before=_outcome(before, test, labels, old, attack),
        after=_outcome(after, test, labels, new, attack),
        harm=harm_per_class(old, new, labels),
    )


def _labels(model: Classifier, test: Samples) -> Tensor:
    if test.labels is None:
        raise NotHeld("evaluation needs labeled test images; these have no labels")
    if test.shape != model.input_shape:
        raise ParameterError(f"the images are {test.shape} and the model wants {model.input_shape}; see fitted_to")
    return test.labels


def _outcome(model: Classifier, test: Samples, labels: Tensor, answers: Tensor, attack: Attack | None) -> Outcome:
    success, recovered = [], []
    for part in attack.parts() if attack is not None else ():
        victims = test.pick(part.victims(labels))
        assert victims.labels is not None
        stamped = to_bytes(part.stamp(victims.floats()))
        given = predictions(model, stamped).argmax(1) if len(victims) else victims.labels
        goals = None if part.rule == "untargeted" else part.goal(victims.labels, model.num_classes)
        success.append(attack_success(given, victims.labels, goals))
        recovered.append(recovered_accuracy(given, victims.labels, goals))
    return Outcome(clean_accuracy(answers, labels), tuple(success), tuple(recovered))
