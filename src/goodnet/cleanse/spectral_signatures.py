"""Spectral Signatures: poison lies far out along the direction in which the features of its label vary most."""

from dataclasses import dataclass

import torch
from scipy.stats import chi2
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._clusters import principal
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of, robust_z
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run

_MARGIN = 1.5  # the paper removes so many times the share that it expects
# Of n normal samples, the variance in units of the squared median absolute deviation has a variance of 3.44 / n:
# that of the units, 5.44 / n at their efficiency of 0.37, less 2 / n of what both share. Below 50 it has long tails.
_FEWEST = 50
_ERROR = 3.44**0.5


@cleansers.register(
    Card(
        name="spectral-signatures",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET,
        source="Tran et al., Spectral Signatures in Backdoor Attacks, NeurIPS 2018",
        summary="how far out a sample lies along its label's leading direction",
        assumes=("poison is the smaller part of its label", "few labels are attacked"),
    )
)
@dataclass(frozen=True, kw_only=True)
class SpectralSignatures(Cleanser):
    """Score samples by their squared place along the leading singular vector of their label's centered features.

    What it does: for each given label the features are centered and projected on their top right singular vector. A
    sample's score is its squared distance from the median, in units of the label's robust variance (from the median
    absolute deviation), so that scores of different labels can be compared and a mean that the poison itself shifts
    does not hide it. A label stands out when the variance of the projections, in the same units, has an anomaly index
    above e^2 among the labels, each with the error that its own number of samples makes. Only there samples go: those
    above what 1 % of a normal label would reach, and at most 1.5 times ``share`` of the label.
    Needs: the model and the training set.
    Limits: labels with fewer than 50 samples are scored, never judged; with fewer than five that are judged, or when
    most of them are attacked (all-to-all), none stands out and nothing is removed; poison that is more than a third of
    its label moves the robust variance; clean-label poison hides.
    Source: Tran, Li, Madry, Spectral Signatures in Backdoor Attacks, NeurIPS 2018. The paper removes 1.5 ``share`` of
    every label; which labels and the robust units are ours, the bound e^2 is that of SCAn.
    """

    share: float = param(0.33, low=0.0, high=0.5, doc="upper bound on the poisoned share of a label")
    usual: float = param(0.01, low=0.0, high=1.0, doc="share of a normal label that would lie above the threshold")
    layer: str = param("", doc="whose output is looked at; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        assert held.labels is not None
        run.progress(0.0, "features")
        return self.score_features(features(model, held.images, self.layer), held.labels)

    def score_features(self, seen: Tensor, labels: Tensor) -> Scored:
        """The same for features that are there already, whatever made them; ``layer`` is not looked at.

        Args:
            seen: float (N, D), a row for each sample.
            labels: int64 (N,), as given in the training set.
        """
        places = places_of(labels)
        scores, removed = torch.zeros(len(seen)), torch.zeros(len(seen), dtype=torch.bool)
        for where in places.values():
            scores[where] = robust_z(principal(seen[where], 1)[:, 0]).square()
        judged = {label: where for label, where in places.items() if len(where) >= _FEWEST}
        indices = dict.fromkeys(places, 0.0) | outstanding(
            {label: float(scores[where].mean()) for label, where in judged.items()},
            {label: _ERROR / len(where) ** 0.5 for label, where in judged.items()},
        )
        for label, where in places.items():
            if indices[label] > OUTSTANDING:
                removed[where] = self._furthest(scores[where])
        return Scored(
            scores=scores,
            removed=removed,
            rule=f"labels of {_FEWEST} samples or more with an anomaly index above {OUTSTANDING:.2f} (the bound of "
            f"SCAn); of these the samples above what {self.usual:.0%} of a normal label would reach, at most "
            f"{_MARGIN * self.share:.0%}",
            per_class=findings(
                places,
                removed,
                indices,
                {label: {"variance": float(scores[where].mean())} for label, where in places.items()},
            ),
            counts={"images": len(seen), "features": seen.shape[1]},
        )

    def _furthest(self, scores: Tensor) -> Tensor:
        """bool (n,): above the threshold, and among the so many largest."""
        most = int(_MARGIN * self.share * len(scores))
        rank = scores.argsort(descending=True).argsort()
        return (scores > float(chi2.isf(self.usual, 1))) & (rank < most)
