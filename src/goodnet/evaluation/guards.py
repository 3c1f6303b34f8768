"""Guards against the truth: how well suspicion tells stamped images from clean ones, and what the threshold does."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from goodnet.core.rates import Rate
from goodnet.errors import NotHeld
from goodnet.evaluation.auroc import Ranking, ranking
from goodnet.evaluation.detection import OperatingPoint, points_as_json, usual_points
from goodnet.guard.fitted import FittedGuard
from goodnet.guard.goodnet import GoodNet


@dataclass(frozen=True, kw_only=True)
class GuardOutcome:
    """What a guard, or a GoodNet, makes of clean and of stamped images.

    Attributes:
        ranking: AUROC with its interval.
        points: for each of the usual false-positive rates what the best threshold in hindsight would catch.
        false_rejections: clean images that are answered N at the fitted threshold.
        false_acceptances: stamped images that are not.
    """

    ranking: Ranking
    points: tuple[OperatingPoint, ...]
    false_rejections: Rate
    false_acceptances: Rate

    def as_json(self) -> dict[str, Any]:
        """Counts, shares and intervals as JSON values."""
        interval = self.ranking.auroc_interval
        return {
            "auroc": self.ranking.auroc,
            "auroc_interval_95": None if interval is None else list(interval),
            "operating_points": points_as_json(self.points),
            "false_rejection_rate": self.false_rejections.as_json(),
            "false_acceptance_rate": self.false_acceptances.as_json(),
        }


def measure_guard(judging: GoodNet | FittedGuard, clean: Tensor, stamped: Tensor) -> GuardOutcome:
    """Judge clean and stamped images that the guard was not fitted on, uint8 or [0, 1] float (M, C, H, W).

    Raises:
        NotHeld: there is no image of one of the two kinds.
    """
    if not len(clean) or not len(stamped):
        raise NotHeld("a guard is measured on clean and on stamped images; one of the two is empty")
    said = [judging.judge(images) for images in (clean, stamped)]
    if isinstance(judging, FittedGuard):
        scores = [judging.score(images) for images in (clean, stamped)]  # those of judge may have ended early
    else:
        scores = [one.suspicion for one in said]
    suspicion = torch.cat(scores).numpy()
    truth = (torch.arange(len(suspicion)) >= len(clean)).numpy()
    rejected, caught = ((one.answers == judging.num_classes).numpy() for one in said)
    return GuardOutcome(
        ranking=ranking(suspicion, truth),
        points=usual_points(suspicion, truth),
        false_rejections=Rate.of(rejected),
        false_acceptances=Rate.of(~caught),
    )
