"""Cleansers against the truth: how well scores tell poison from clean samples, and what the decision removed."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from goodnet.cleanse._base import Cleansed
from goodnet.core.rates import Rate
from goodnet.evaluation.auroc import Ranking, ranking
from goodnet.evaluation.detection import OperatingPoint, Removal, points_as_json, removal, usual_points


@dataclass(frozen=True, kw_only=True)
class CleansingOutcome:
    """What a cleanser makes of a training set whose poison is known.

    Covers, which carry the trigger with their true label, are neither poison nor clean: to keep them does no harm
    once the poison is gone, and to remove them costs next to nothing. They are counted apart.

    Attributes:
        ranking: AUROC of the scores with its interval; of a set without poison it is None.
        points: for each of the usual false-positive rates what the best threshold in hindsight would catch.
        removal: what the cleanser's own decision removed of poison and of clean samples.
        covers_removed: and of the covers.
    """

    ranking: Ranking
    points: tuple[OperatingPoint, ...]
    removal: Removal
    covers_removed: Rate

    def as_json(self) -> dict[str, Any]:
        """Counts, shares and intervals as JSON values."""
        interval = self.ranking.auroc_interval
        return {
            "auroc": self.ranking.auroc,
            "auroc_interval_95": None if interval is None else list(interval),
            "average_precision": self.ranking.average_precision,
            "operating_points": points_as_json(self.points),
            "poison_removed": self.removal.recall.as_json(),
            "clean_removed": self.removal.false_positive_rate.as_json(),
            "covers_removed": self.covers_removed.as_json(),
        }


def measure_cleansing(cleansed: Cleansed, poisoned: Tensor, covers: Tensor) -> CleansingOutcome:
    """Set a cleanser's answer beside the truth.

    Args:
        cleansed: of a training set with N samples.
        poisoned, covers: bool (N,), as in ``Poisoned``; all False for a set without poison.

    Raises:
        ParameterError: the lengths differ, or a score is NaN.
    """
    judged = ~covers
    scores, truth, gone = cleansed.scores[judged].numpy(), poisoned[judged].numpy(), ~cleansed.keep
    return CleansingOutcome(
        ranking=ranking(scores, truth),
        points=usual_points(scores, truth),
        removal=removal(gone[judged].numpy(), truth),
        covers_removed=Rate.of(gone[covers].numpy()),
    )
