"""From scores to decisions: which labels stand out among the others, which samples lie above what clean ones reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from scipy.stats import betabinom
from torch import Tensor

from goodnet.cleanse._base import ClassFinding, Scored

OUTSTANDING = math.exp(2)  # SCAn's bound on the anomaly index of a label
FEWEST_SAMPLES = 10  # labels with fewer are not judged
FEWEST_LABELS = 5  # with fewer there is no "usual" to stand out from
_SIGMA = 1.4826  # of a normal distribution, in units of its median absolute deviation


def robust_z(values: Tensor) -> Tensor:
    """How many standard deviations above the median, the deviation taken from the median absolute deviation."""
    offset = values - values.median()
    return offset / (_SIGMA * offset.abs().median()).clamp_min(1e-12)


def outstanding(statistics: dict[int, float], error: float | Mapping[int, float] = 0.0) -> dict[int, float]:
    """Label (or source) → anomaly index of its statistic among those of all; 0 for all where these are too few.

    The robust spread of all statistics holds the usual error and what labels really differ by. Each statistic is
    compared with the latter and its own error: with the larger of spread and error where all have the same error.

    Args:
        statistics: what is compared; larger is more suspicious.
        error: standard error of every statistic, or of each, by which they differ through chance alone.
    """
    if len(statistics) < FEWEST_LABELS:
        return dict.fromkeys(statistics, 0.0)
    values = torch.tensor(list(statistics.values()), dtype=torch.float64)
    own = [error[one] if isinstance(error, Mapping) else error for one in statistics]
    # numbers that hardly differ do not make anything outstanding
    errors = torch.tensor(own, dtype=torch.float64).clamp_min(max(1e-3 * float(values.abs().quantile(0.5)), 1e-12))
    offset = values - values.quantile(0.5)  # of an even number the mean of the middle two, unlike torch's median
    spread = _SIGMA * offset.abs().quantile(0.5)
    between = (spread.square() - errors.quantile(0.5).square()).clamp_min(0)
    return dict(zip(statistics, (offset / (between + errors.square()).sqrt()).tolist(), strict=True))


def places_of(labels: Tensor, fewest: int = FEWEST_SAMPLES) -> dict[int, Tensor]:
    """Label → positions of its samples, for labels with enough of them to be judged."""
    found = {int(label): (labels == label).nonzero()[:, 0] for label in labels.unique()}
    return {label: places for label, places in found.items() if len(places) >= fewest}


@dataclass(frozen=True)
class Excess:
    """What lies above the threshold that clean images set.

    Attributes:
        removed: bool (N,), the samples above it; none where their number is what chance would give.
        threshold: a score of the clean images.
        p_value: how often so many would lie above it, were the samples like the clean images.
    """

    removed: Tensor
    threshold: float
    p_value: float


def above_clean(scores: Tensor, clean: Tensor, rate: float, alpha: float) -> Excess:
    """Which samples score higher than all but the share ``rate`` of clean images, if there are too many of them.

    The threshold is the r-th largest clean score, r = rate (n + 1) rounded down and at least 1. A sample that is
    exchangeable with the n clean images lies above it with a chance that is Beta(r, n + 1 - r) distributed, so that the
    number above is beta-binomial: that is the test, at ``alpha``.
    """
    count = len(clean)
    rank = max(1, math.floor(rate * (count + 1)))
    threshold = float(clean.sort(descending=True).values[rank - 1])
    above = scores > threshold
    p_value = float(betabinom.sf(int(above.sum()) - 1, len(scores), rank, count + 1 - rank))
    return Excess(above if p_value <= alpha else torch.zeros_like(above), threshold, p_value)


def excess_in_words(excess: Excess, rate: float, alpha: float) -> str:
    """The rule of ``above_clean`` for a person."""
    told = f"samples above {excess.threshold:.4g}, which {rate:.0%} of the clean images exceed"
    if excess.removed.any():
        return f"{told}; so many of them come by chance with probability {excess.p_value:.2g}"
    return f"nothing: the number of {told}, is what chance gives (p = {excess.p_value:.2g}, bound {alpha:g})"


def scored_above_clean(
    scores: Tensor,
    clean: Tensor,
    labels: Tensor,
    rate: float,
    alpha: float,
    *,
    counts: Mapping[str, int],
    evidence: Mapping[str, Any] = MappingProxyType({}),
) -> Scored:
    """What a method answers that goes by ``above_clean``; a label's score is the share of its samples above."""
    excess, places = above_clean(scores, clean, rate, alpha), places_of(labels)
    above = {label: float((scores[where] > excess.threshold).float().mean()) for label, where in places.items()}
    return Scored(
        scores=scores,
        removed=excess.removed,
        rule=excess_in_words(excess, rate, alpha),
        per_class=findings(places, excess.removed, above, {}),
        counts={"images": len(scores), "clean_images": len(clean), **counts},
        evidence={"threshold": excess.threshold, "p_value": excess.p_value, **evidence},
    )


def findings(
    places: dict[int, Tensor], removed: Tensor, scores: dict[int, float], details: dict[int, dict[str, float | None]]
) -> tuple[ClassFinding, ...]:
    """One finding per judged label."""
    return tuple(
        ClassFinding(
            label=label,
            count=len(where),
            removed=int(removed[where].sum()),
            score=scores[label],
            details=details.get(label, {}),
        )
        for label, where in places.items()
    )
