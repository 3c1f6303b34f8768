"""How well suspicion ranks samples, whatever the threshold: AUROC with its interval, average precision, ROC points.

``scores`` are float (N,), larger is more suspicious; infinities are allowed. ``truth`` is bool (N,), True for the
samples (or models) that carry the backdoor.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from goodnet.core.rates import check_confidence
from goodnet.evaluation._arrays import Values, scores_and_truth


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How well scores rank samples with a backdoor above those without, whatever the threshold.

    Attributes:
        auroc: chance that a sample with backdoor scores above one without, ties counting half; None with one class.
        auroc_interval: see ``ranking``; None with one class.
        average_precision: mean precision over the recalls reached; its chance level is positives / (positives +
            negatives), so it cannot be compared between sets of different shares. None with one class.
        positives, negatives: how many samples with and without backdoor.
    """

    auroc: float | None
    auroc_interval: tuple[float, float] | None
    average_precision: float | None
    positives: int
    negatives: int


def ranking(scores: Values, truth: Values, *, confidence: float = 0.95) -> Ranking:
    """AUROC with its interval, and average precision.

    The interval takes the variance of DeLong et al. (Biometrics 1988) on the logit scale, as Perme and Manevski
    (Statistical Methods in Medical Research 2019) recommend: it stays in [0, 1] and assumes no distribution. Where that
    variance cannot be estimated (perfect separation, all scores equal, a class of one) the interval is Wilson's with
    the largest variance possible, AUROC (1 - AUROC) / (size of the smaller class) (van Dantzig 1951), so that twenty
    perfect answers do not pass for certainty. Close to 1 with small classes it is somewhat too narrow.

    Raises:
        ParameterError: the lengths differ, scores hold NaN, truth is no mask, or ``confidence`` is out of its range.
    """
    check_confidence(confidence)
    suspicion, backdoored = scores_and_truth(scores, truth)
    ranks = rankdata(suspicion)  # rank statistics; scikit-learn refuses infinite scores
    with_backdoor, without = ranks[backdoored], ranks[~backdoored]
    auroc, interval, precision = None, None, None
    if len(with_backdoor) and len(without):
        auroc = float(roc_auc_score(backdoored, ranks))
        interval = _auroc_interval(auroc, with_backdoor, without, confidence)
        precision = float(average_precision_score(backdoored, ranks))
    return Ranking(
        auroc=auroc,
        auroc_interval=interval,
        average_precision=precision,
        positives=len(with_backdoor),
        negatives=len(without),
    )


def roc_points(scores: Values, truth: Values) -> tuple[tuple[float, float], ...]:
    """(false-positive rate, true-positive rate) from (0, 0) to (1, 1), for plotting; empty with one class.

    Points on a straight line between others are left out. Tied scores make one slanted step.

    Raises:
        ParameterError: as in ``ranking``.
    """
    suspicion, backdoored = scores_and_truth(scores, truth)
    if backdoored.all() or not backdoored.any():
        return ()
    false_positive_rates, true_positive_rates, _ = roc_curve(backdoored, rankdata(suspicion))
    return tuple(zip(false_positive_rates.tolist(), true_positive_rates.tolist(), strict=True))


def _auroc_interval(
    auroc: float, positives: NDArray[np.float64], negatives: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """See ``ranking``; ``positives`` and ``negatives`` are ranks among all samples."""
    z = float(norm.ppf((1 + confidence) / 2))
    variance = _delong_variance(positives, negatives)
    if variance > 0:
        half = z * np.sqrt(variance) / (auroc * (1 - auroc))
        return float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half))
    size = min(len(positives), len(negatives))
    center = (auroc + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(auroc * (1 - auroc) / size + z**2 / (4 * size**2))
    return max(0.0, min(auroc, float(center - half))), min(1.0, max(auroc, float(center + half)))  # rounding


def _delong_variance(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Variance of the AUROC from placements (the share of the other class below each sample); 0 when not estimable.

    By ranks, after Sun and Xu (IEEE Signal Processing Letters 2014): a rank among all minus the rank within its own
    class counts the samples of the other class below.
    """
    if min(len(positives), len(negatives)) < 2:
        return 0.0
    below = (positives - rankdata(positives)) / len(negatives)
    above = 1 - (negatives - rankdata(negatives)) / len(positives)
    return float(below.var(ddof=1) / len(positives) + above.var(ddof=1) / len(negatives))
