"""What a threshold on suspicion catches, and what a cleansing removed.

``scores`` are float (N,), larger is more suspicious; infinities are allowed. ``truth`` is bool (N,), True for the
samples (or models) that carry the backdoor. A sample is flagged when its score is **above** the threshold; a score that
equals it is accepted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from goodnet.core.rates import Rate
from goodnet.errors import ParameterError
from goodnet.evaluation._arrays import Values, mask_of, same_length, scores_and_truth

WANTED = (0.01, 0.05)  # false-positive rates beside which an AUROC stands


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What one threshold does.

    Attributes:
        threshold: scores above it are flagged.
        true_positive_rate: samples with backdoor that are flagged.
        false_positive_rate: samples without that are flagged.
    """

    threshold: float
    true_positive_rate: Rate
    false_positive_rate: Rate

    @property
    def false_rejection_rate(self) -> Rate:
        """FRR, the guards' name for the false-positive rate: clean samples that are rejected."""
        return self.false_positive_rate

    @property
    def false_acceptance_rate(self) -> Rate:
        """FAR: samples with the trigger that are accepted."""
        caught = self.true_positive_rate
        return Rate(caught.count - caught.hits, caught.count)


def at_threshold(scores: Values, truth: Values, threshold: float) -> OperatingPoint:
    """What a given threshold does; it should come from data other than these.

    Raises:
        ParameterError: as in ``ranking``, or ``threshold`` is NaN.
    """
    if np.isnan(threshold):
        raise ParameterError("threshold is NaN; pass a number to compare scores with")
    suspicion, backdoored = scores_and_truth(scores, truth)
    flagged = suspicion > threshold
    return OperatingPoint(
        threshold=float(threshold),
        true_positive_rate=Rate.of(flagged[backdoored]),
        false_positive_rate=Rate.of(flagged[~backdoored]),
    )


def at_false_positive_rate(scores: Values, truth: Values, wanted: float) -> OperatingPoint | None:
    """The lowest threshold that flags at most the share ``wanted`` of the samples without backdoor, as TPR@FPR.

    It is one of their scores. Samples with equal scores are flagged together or not at all and nothing is
    interpolated, so the false-positive rate reached may be well below the wanted one; with fewer than 1 / wanted
    samples without backdoor it is 0. The threshold is chosen on the samples it is judged on: this measures a detector,
    and is no way to calibrate one.

    Returns:
        None when there are no samples without backdoor.

    Raises:
        ParameterError: as in ``ranking``, or ``wanted`` is not in [0, 1).
    """
    if not 0 <= wanted < 1:
        raise ParameterError(f"wanted must be in [0, 1), got {wanted!r}")
    suspicion, backdoored = scores_and_truth(scores, truth)
    clean = np.sort(suspicion[~backdoored])
    if not len(clean):
        return None
    candidates = np.unique(clean)
    above = len(clean) - np.searchsorted(clean, candidates, side="right")
    lowest = int(np.argmax(above / len(clean) <= wanted))  # the first that is; none lies above the largest
    return at_threshold(suspicion, backdoored, float(candidates[lowest]))


def usual_points(scores: Values, truth: Values) -> tuple[OperatingPoint, ...]:
    """``at_false_positive_rate`` for each of ``WANTED``; empty without samples that have no backdoor."""
    points = (at_false_positive_rate(scores, truth, wanted) for wanted in WANTED)
    return tuple(point for point in points if point is not None)


def points_as_json(points: Sequence[OperatingPoint]) -> list[dict[str, Any]]:
    """Those of ``usual_points`` as JSON values."""
    return [
        {
            "wanted_false_positive_rate": wanted,
            "false_positive_rate": point.false_positive_rate.as_json(),
            "true_positive_rate": point.true_positive_rate.as_json(),
        }
        for wanted, point in zip(WANTED, points, strict=False)
    ]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a cleansing of a training set removed.

    Attributes:
        recall: poisoned samples that were removed; its hits are the true positives.
        false_positive_rate: clean samples that were removed; its hits are the false positives.
        precision: removed samples that were poisoned; its value is None when nothing was removed.
    """

    recall: Rate
    false_positive_rate: Rate
    precision: Rate


def removal(removed: Values, truth: Values) -> Removal:
    """True and false positives, precision and recall of removed (or flagged) samples.

    Args:
        removed: bool (N,), what the method took out.
        truth: bool (N,), True where a sample is poisoned.

    Raises:
        ParameterError: the lengths differ, or these are no masks.
    """
    out, poisoned = mask_of("removed", removed), mask_of("truth", truth)
    same_length(removed=out, truth=poisoned)
    return Removal(
        recall=Rate.of(out[poisoned]), false_positive_rate=Rate.of(out[~poisoned]), precision=Rate.of(poisoned[out])
    )
