"""Rate: a share that keeps its counts, with its interval."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from goodnet.errors import ParameterError


@dataclass(frozen=True)
class Rate:
    """A share with what it was counted from.

    Attributes:
        hits: how many; 0..count.
        count: out of how many; 0 when there was nothing to count.
    """

    hits: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.count:
            raise ParameterError(f"hits must be in [0, count], got {self.hits} of {self.count}")

    @classmethod
    def of(cls, hit: NDArray[np.bool_]) -> "Rate":
        """How many are True, out of all."""
        return cls(int(hit.sum()), len(hit))

    @property
    def value(self) -> float | None:
        """The share in [0, 1]; None when nothing was counted."""
        return self.hits / self.count if self.count else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """The exact binomial interval of Clopper and Pearson (Biometrika 1934); None when nothing was counted."""
        check_confidence(confidence)
        if not self.count:
            return None
        low, high = binomtest(self.hits, self.count).proportion_ci(confidence, method="exact")
        return float(low), float(high)

    def as_json(self) -> dict[str, Any]:
        """Counts, share and 95 % interval as JSON values."""
        interval = self.interval()
        return {
            "hits": self.hits,
            "count": self.count,
            "value": self.value,
            "interval_95": None if interval is None else list(interval),
        }


def check_confidence(confidence: float) -> None:
    """Raise ParameterError unless ``confidence`` is between 0 and 1."""
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence must be between 0 and 1, got {confidence!r}")
