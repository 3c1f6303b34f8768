"""Which labels have triggers that are too small? Three readings of the same sizes."""

import math
from dataclasses import dataclass

import torch
from scipy.stats import f as f_distribution
from torch import Tensor

_MOST_TARGETS = 5
_ROUNDING = 1e-9  # sizes that differ by less, relative to the median, are equal


def anomaly_index(sizes: Tensor, typical: Tensor | None = None) -> Tensor:
    """Neural Cleanse's index (L,): how many scaled median absolute deviations below the median each size lies.

    Sizes above the median get 0: large triggers are not suspicious. ``typical``: the sizes that median and deviation
    are taken of, by default all. A deviation of zero, but for rounding, gives 0 at the median
    and infinity below it.
    """
    typical = sizes if typical is None else typical
    median = _median(typical)
    deviation = 1.4826 * _median((typical - median).abs())  # 1.4826: consistent with a normal's standard deviation
    below = (median - sizes).clamp(min=0)
    if deviation <= _ROUNDING * median.abs():
        return torch.where(below > 0, float("inf"), 0.0)
    return below / deviation


def _median(values: Tensor) -> Tensor:
    """The median; the mean of the middle two when the count is even (torch takes the lower)."""
    return values.double().quantile(0.5).to(values.dtype)


@dataclass(frozen=True)
class Separation:
    """The widest gap among the smallest sizes.

    Attributes:
        gap: log(next size / largest size of the suspects); e^gap is how many times smaller they are.
        suspects: how many labels lie below the gap.
        many_label_p_value: chance of such a gap if the smallest sizes are the tail of one population; None for few.
    """

    gap: float
    suspects: int
    many_label_p_value: float | None


def separation(log_sizes: Tensor, num_classes: int) -> Separation:
    """Split the smallest few sizes from the rest where the gap is widest.

    ``log_sizes`` are of the labels that were followed to the end: all K, or the smallest ones when K is large. Another
    quantity with an exponential tail, smaller meaning more suspicious, may stand for them.
    The test rests on Rényi's representation: in the tail of a population, j * (the gap after the j-th smallest) are
    independent exponentials of one scale in the log domain, so each over the mean of those further out follows an
    F distribution. It is Bonferroni-corrected for the number of gaps tried.
    """
    ordered = log_sizes.sort().values.tolist()
    gaps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
    tried = max(1, min(_MOST_TARGETS, len(ordered) // 3))
    widest = max(range(min(tried, len(gaps))), key=lambda place: gaps[place], default=None)
    if widest is None:
        return Separation(0.0, 0, None)
    spacings = [(place + 1) * gap for place, gap in enumerate(gaps)]
    further = spacings[widest + 1 :]
    p_value = None
    if num_classes >= 100 and len(further) >= 10 and sum(further) > 0:
        ratio = spacings[widest] / (sum(further) / len(further))
        p_value = min(1.0, tried * float(f_distribution.sf(ratio, 2, 2 * len(further))))
    return Separation(gaps[widest], widest + 1, p_value)


def log_size(sizes: Tensor, largest: float) -> Tensor:
    """log of mask sizes in pixels, at least one pixel; labels without a trigger count as the whole image."""
    return torch.where(sizes.isinf(), math.log(largest), sizes.clamp(min=1, max=largest).log())
