"""Rules by which a GoodNet answers: from what the BadNet and the repaired network say, to a class or to N.

Everywhere ``bad`` and ``good`` are probabilities (M, N) that the BadNet and the repaired network give M images.
"""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from goodnet.core.params import check_ranges, param
from goodnet.errors import NotHeld

_NEGLIGIBLE = 0.05  # confidence whose loss says nothing, even where clean images lose less
_LADDER = (0.5, 0.6, 0.7, 0.8, 0.85, 0.91, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 0.9999)  # thresholds that are tried


def lost_confidence(bad: Tensor, good: Tensor) -> Tensor:
    """Suspicion in [-1, 1], (M,): of the confidence that the BadNet has in its answer, how much the repair took away.

    A trigger makes a BadNet sure of the target, and a repair takes the ground for that away. Larger is more suspicious.
    """
    confidence, answer = bad.max(1)
    return confidence - good.gather(1, answer[:, None]).squeeze(1)


def allowed(count: int, rate: float) -> int:
    """How many of ``count`` clean images may look at least as suspicious as one that is flagged; 0 is too few to tell.

    Source: split conformal prediction: of n + 1 images that are alike, each is equally likely to be among the k most
    suspicious, so flagging what exceeds all but k - 1 of n is wrong on a share of at most k / (n + 1).
    """
    return int(rate * (count + 1) + 1e-9)


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Decides for each image between a class and N. A rule is a frozen dataclass of its thresholds."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def answers(self, bad: Tensor, good: Tensor) -> Tensor:
        """int64 (M,): 0..N-1, or N for "this input carries a trigger"."""

    @classmethod
    @abstractmethod
    def fitted(cls, bad: Tensor, good: Tensor, rate: float, stamped: tuple[Tensor, Tensor] | None = None) -> Self:
        """The rule with thresholds so that it answers N on a share of at most ``rate`` of clean images.

        Args:
            bad, good: on clean images that the repair did not see.
            rate: in (0, 1).
            stamped: the same two on images that carry reconstructed triggers, if there are any.

        Raises:
            NotHeld: too few images for this rate, or no thresholds that keep it.
        """

    def thresholds(self) -> dict[str, Any]:
        """The thresholds by name, as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Disagreement(Rule):
    """N where the two networks answer differently; no threshold, so the false-alarm rate is what it is.

    Source: the CSAW pruning reports, in which the GoodNet answers N wherever BadNet and pruned network disagree.
    """

    name = "disagreement"

    def answers(self, bad: Tensor, good: Tensor) -> Tensor:
        classes = good.argmax(1)
        return torch.where(bad.argmax(1) == classes, classes, good.shape[1])

    @classmethod
    def fitted(cls, bad: Tensor, good: Tensor, rate: float, stamped: tuple[Tensor, Tensor] | None = None) -> Self:
        return cls()


@dataclass(frozen=True, kw_only=True)
class LostConfidence(Rule):
    """N where the repair took more than ``threshold`` of the BadNet's confidence away, else the repaired answer.

    Source: ours; the rule of thumb in the CSAW BadNets report (a BadNet sure at 99.9 %, a repaired network at 70 %:
    backdoored) made one number, whose threshold comes from clean images by split conformal prediction.
    """

    name = "lost-confidence"

    threshold: float = param(0.5, low=0.0, high=1.0, doc="confidence that may be lost")

    def answers(self, bad: Tensor, good: Tensor) -> Tensor:
        return torch.where(lost_confidence(bad, good) > self.threshold, good.shape[1], good.argmax(1))

    @classmethod
    def fitted(cls, bad: Tensor, good: Tensor, rate: float, stamped: tuple[Tensor, Tensor] | None = None) -> Self:
        most = _at_least_one(len(bad), rate)
        highest = lost_confidence(bad, good).topk(most).values.tolist()
        # between two images rather than on one, so that no rounding decides
        limit = highest[-1] if most == 1 else (highest[-1] + highest[-2]) / 2
        return cls(threshold=min(1.0, max(_NEGLIGIBLE, limit)))


@dataclass(frozen=True, kw_only=True)
class SecondOpinion(LostConfidence):
    """N where ``LostConfidence`` says N, else the BadNet's own answer: the repaired network never answers by itself.

    So no image gets a wrong answer that the BadNet does not give already, however bad the repair is; what it may cost
    is the clean images answered N. For repairs that are not good enough to take the BadNet's place.

    Source: ours.
    """

    name = "second-opinion"

    def answers(self, bad: Tensor, good: Tensor) -> Tensor:
        return torch.where(lost_confidence(bad, good) > self.threshold, good.shape[1], bad.argmax(1))


@dataclass(frozen=True, kw_only=True)
class DecisionTree(Rule):
    """The decision tree of two thresholds: each network is confident, in between or unsure, and they agree or not.

    ============  ======================================  =========================================
    BadNet        where they agree                        where they differ
    ============  ======================================  =========================================
    confident     N if the repaired one is unsure, else   N
                  the class
    in between    the class                               the repaired one's class if it is
                                                          confident, else N
    unsure        the class                               the repaired one's class, or the BadNet's
                                                          if both are unsure
    ============  ======================================  =========================================

    A backdoor makes the BadNet confident; where the BadNet is unsure no trigger is at work.

    Source: CSAW BadNets report, section 3.3: nine outcomes of two thresholds, 0.99 and 0.91, "to be tuned according to
    different models". It names the thresholds and one outcome; the others are ours.
    """

    name = "decision-tree"

    confident: float = param(0.99, low=0.0, high=1.0, doc="at least so sure is confident")
    unsure: float = param(0.91, low=0.0, high=1.0, doc="less sure than that is unsure")

    def answers(self, bad: Tensor, good: Tensor) -> Tensor:
        sure_bad, class_bad = bad.max(1)
        sure_good, class_good = good.max(1)
        agree = class_bad == class_good
        confident_bad, unsure_bad = sure_bad >= self.confident, sure_bad < self.unsure
        confident_good, unsure_good = sure_good >= self.confident, sure_good < self.unsure
        between_bad = ~confident_bad & ~unsure_bad
        triggered = (confident_bad & (unsure_good | ~agree)) | (between_bad & ~confident_good & ~agree)
        classes = torch.where(unsure_bad & unsure_good, class_bad, class_good)
        return torch.where(triggered, good.shape[1], classes)

    @classmethod
    def fitted(cls, bad: Tensor, good: Tensor, rate: float, stamped: tuple[Tensor, Tensor] | None = None) -> Self:
        """Of all pairs of thresholds on a ladder that keep the rate, the one that answers N on most stamped images.

        Without stamped images the one that answers N on most clean images: the most that the rate allows.
        """
        most, best = _at_least_one(len(bad), rate) - 1, None
        for unsure, confident in itertools.combinations(_LADDER, 2):
            rule = cls(confident=confident, unsure=unsure)
            alarms = rule._count(bad, good)
            found = alarms if stamped is None else rule._count(*stamped)
            if alarms <= most and (best is None or found > best[0]):
                best = found, rule
        if best is None:
            raise NotHeld(
                f"no thresholds keep a false-alarm rate of {rate:.1%}: the two networks differ too much on clean images"
            )
        return best[1]

    def _count(self, bad: Tensor, good: Tensor) -> int:
        return int((self.answers(bad, good) == good.shape[1]).sum())


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (LostConfidence, SecondOpinion, Disagreement, DecisionTree)}


def _at_least_one(count: int, rate: float) -> int:
    most = allowed(count, rate)
    if most < 1:
        needed = int(1 / rate - 1e-9)
        raise NotHeld(f"a false-alarm rate of {rate:.1%} takes at least {needed} clean images, and there are {count}")
    return most
