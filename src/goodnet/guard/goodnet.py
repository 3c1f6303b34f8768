"""GoodNet: a BadNet and its repaired twin in one model that answers 0..N-1, or N for "this input carries a trigger"."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.errors import ParameterError
from goodnet.guard.rules import LostConfidence, Rule, allowed, lost_confidence


@dataclass(frozen=True)
class Price:
    """One point of the price curve: what a threshold on lost confidence costs, and what it buys.

    Attributes:
        threshold: N is answered above it.
        false_alarms: clean images answered N, of ``Calibration.count``.
        stopped: stamped images that are not answered as the target, of ``Calibration.stamped``.
    """

    threshold: float
    false_alarms: int
    stopped: int


@dataclass(frozen=True)
class Calibration:
    """What a GoodNet's thresholds were fitted on: clean images, and the same ones under reconstructed triggers.

    Attributes:
        rate: the false-alarm rate that was asked for.
        count: clean images.
        false_alarms: how many of them are answered N.
        stamped: images under reconstructed triggers that do not belong to the trigger's target; 0 without triggers.
        caught: how many of these are answered N.
        succeeded: how many of these are answered as the target.
        prices: the price curve, from never N to often.
    """

    rate: float
    count: int
    false_alarms: int
    stamped: int
    caught: int
    succeeded: int
    prices: tuple[Price, ...]

    @property
    def kept(self) -> bool:
        """Whether the clean images bear out the rate that was asked for."""
        return self.false_alarms <= allowed(self.count, self.rate)


@dataclass(frozen=True)
class Judgement:
    """What a GoodNet says about M images.

    Attributes:
        answers: int64 (M,), 0..N-1, or N for "this input carries a trigger".
        suspicion: float64 (M,) in [-1, 1], the confidence that the repair took away; larger is more suspicious.
        confidence: float64 (M,) in [0, 1], of the repaired network in its own answer.
        badnet, repaired: int64 (M,), what each of the two answers.
    """

    answers: Tensor
    suspicion: Tensor
    confidence: Tensor
    badnet: Tensor
    repaired: Tensor


@dataclass(frozen=True)
class GoodNet:
    """A BadNet and its repaired twin, which answer together.

    Attributes:
        badnet, repaired: two classifiers of the same images and classes.
        rule: how an answer is found; its thresholds belong to these two networks.
        calibration: what the thresholds were fitted on; None where they were given.

    Limits: an input on which the repair changed nothing looks clean, so a backdoor that the repair left in place is
    served as before. Clean images that the repair unlearned look triggered.
    """

    badnet: Classifier
    repaired: Classifier
    rule: Rule = LostConfidence()
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for name in ("input_shape", "num_classes"):
            ours, other = getattr(self.badnet, name), getattr(self.repaired, name)
            if ours != other:
                raise ParameterError(f"BadNet and repaired network must have one {name}, got {ours} and {other}")

    @property
    def num_classes(self) -> int:
        """N, which is also the answer that means "this input carries a trigger"."""
        return self.badnet.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that both networks take."""
        return self.badnet.input_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the BadNet; empty where they are unknown."""
        return self.badnet.class_names

    def judge(self, images: Tensor) -> Judgement:
        """Judge uint8 or [0, 1] float images (M, C, H, W); an image is judged by itself, whatever comes with it."""
        bad, good = probabilities(self.badnet, images), probabilities(self.repaired, images)
        return Judgement(
            answers=self.rule.answers(bad, good),
            suspicion=lost_confidence(bad, good),
            confidence=good.max(1).values,
            badnet=bad.argmax(1),
            repaired=good.argmax(1),
        )

    def answers(self, images: Tensor) -> Tensor:
        """int64 (M,): 0..N-1, or N for "this input carries a trigger"."""
        return self.judge(images).answers


def probabilities(model: Classifier, images: Tensor) -> Tensor:
    """float64 (M, N) of images as ``predictions`` takes them: fine enough to tell 0.999999 from 1."""
    return predictions(model, images).double().softmax(1)
