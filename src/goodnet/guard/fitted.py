"""What judges images at run time: it answers 0..N-1, or N for "this input carries a trigger"."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rates import Rate
from goodnet.core.run import Provenance

if TYPE_CHECKING:
    from goodnet.guard._base import Guard, Learned


class Judged(Protocol):
    """What is said about M images.

    Attributes:
        answers: int64 (M,), 0..N-1, or N for "this input carries a trigger".
        suspicion: float (M,), larger is more suspicious; its scale is the guard's own.
        confidence: float (M,) in [0, 1], of the model in its own answer.
    """

    @property
    def answers(self) -> Tensor: ...
    @property
    def suspicion(self) -> Tensor: ...
    @property
    def confidence(self) -> Tensor: ...


class Judging(Protocol):
    """Whatever judges images at run time: a GoodNet, a fitted guard."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def num_classes(self) -> int:
        """N, which is also the answer that means "this input carries a trigger"."""

    def judge(self, images: Tensor) -> Judged:
        """Judge uint8 or [0, 1] float images (M, C, H, W), each by itself."""


@dataclass(frozen=True, kw_only=True)
class GuardCalibration:
    """What a threshold was fitted on: clean images that the guard's hook never saw.

    Attributes:
        rate: the false-alarm rate that was asked for.
        alarms: how many of the calibration images lie above the threshold, and of how many.
        median, deviation: of their scores, and the median absolute deviation from it.
    """

    rate: float
    alarms: Rate
    median: float
    deviation: float


@dataclass(frozen=True)
class GuardJudgement:
    """What a fitted guard says about M images; see Judged.

    Attributes:
        predicted: int64 (M,), what the model itself answers.
    """

    answers: Tensor
    suspicion: Tensor
    confidence: Tensor
    predicted: Tensor


@dataclass(frozen=True, kw_only=True)
class FittedGuard:
    """A model that is guarded: it answers as the model does, or N where an input is too suspicious.

    Attributes:
        guard: the method with its hyper-parameters.
        model: a private copy, in eval mode.
        learned: see Learned.
        threshold: N is answered above it.
        calibration: where it comes from.
        notes: what a person should know.
        provenance: method, parameters, seed, cost.
    """

    guard: "Guard"
    model: Classifier
    learned: "Learned"
    threshold: float
    calibration: GuardCalibration
    notes: tuple[str, ...]
    provenance: Provenance

    @property
    def num_classes(self) -> int:
        """N, which is also the answer that means "this input carries a trigger"."""
        return self.model.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the model takes."""
        return self.model.input_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the model; empty where they are unknown."""
        return self.model.class_names

    def score(self, images: Tensor) -> Tensor:
        """float64 (M,), larger is more suspicious, of uint8 or [0, 1] float images (M, C, H, W), each by itself."""
        return self.guard.scores(self.model, self.learned, images)

    def judge(self, images: Tensor) -> GuardJudgement:
        """Judge uint8 or [0, 1] float images (M, C, H, W).

        A guard that stops as soon as its decision is sure gives a suspicion that lies on the right side of the
        threshold; ``score`` gives the whole one.
        """
        suspicion = self.guard.scores(self.model, self.learned, images, self.threshold)
        logits = predictions(self.model, images) if len(images) else torch.zeros(0, self.num_classes)
        confidence, predicted = logits.double().softmax(1).max(1)
        answers = torch.where(suspicion > self.threshold, self.num_classes, predicted)
        return GuardJudgement(answers, suspicion, confidence, predicted)

    def decide(self, images: Tensor) -> Tensor:
        """int64 (M,): 0..N-1, or N for "this input carries a trigger"."""
        return self.judge(images).answers
