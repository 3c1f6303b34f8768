"""SPECTRE: whiten a label's features by what most of its samples are like, then ask which samples are left over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._clusters import principal
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run

_MARGIN = 1.5  # the paper removes so many times the share that it expects
_ORDINARY = 0.99  # share of the samples of other labels that a removed one must exceed
_ROUNDS = 10  # of trimming; the estimate hardly moves after few


@cleansers.register(
    Card(
        name="spectre",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET,
        source="Hayase et al., SPECTRE: Defending Against Backdoor Attacks Using Robust Statistics, ICML 2021",
        summary="as spectral signatures, on features whitened by a robust covariance and in several directions at once",
        assumes=("poison is the smaller part of its label", "few labels are attacked"),
        quick={"dimensions": 4},
    )
)
@dataclass(frozen=True, kw_only=True)
class Spectre(Cleanser):
    """Score samples by the quantum entropy of their label's robustly whitened features.

    What it does: the features of each given label are brought to at most ``dimensions`` principal components, fewer for
    labels of few samples. Mean and covariance are estimated without the ``share`` that fits them worst (trimmed in
    rounds), and whiten the features, so that natural variation no longer hides what few samples have in common. With
    S the covariance of all whitened samples, M = exp(alpha (S - 1) / (|S| - 1)) weighs the directions that stick out; a
    sample x scores x'Mx / tr M, about 1 in a label without poison. tr(SM) / tr M says how much a label sticks out; the
    number of components is that, of several in square steps, which makes it largest. Labels whose value has an
    anomaly index above e^2 lose their highest 1.5 ``share``, as far as these exceed every ordinary score.
    Needs: the model and the training set.
    Limits: with fewer than five labels, or when most are attacked (all-to-all), none stands out. Trimming assumes that
    at most ``share`` of a label is poisoned.
    Source: Hayase, Kong, Somani, Oh, SPECTRE, ICML 2021: alpha, the filter's idea, 1.5 times the share. It runs for a
    label that is named; which labels is ours, by the bound of SCAn. Its filter is replaced by trimming.
    """

    dimensions: int = param(100, low=1, doc="principal components at most; a tenth of the label's samples if fewer")
    share: float = param(0.33, low=0.0, high=0.5, doc="upper bound on the poisoned share of a label")
    alpha: float = param(4.0, low=0.0, doc="how much the directions that stick out most count")
    layer: str = param("", doc="whose output is looked at; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        assert held.labels is not None
        seen, places = features(model, held.images, self.layer), places_of(held.labels)
        scores, removed = torch.zeros(len(held)), torch.zeros(len(held), dtype=torch.bool)
        sticking, used = {}, {}
        for done, (label, where) in enumerate(places.items()):
            run.progress(done / len(places), f"label {label}")
            scores[where], sticking[label], used[label] = self._of_label(seen[where])
        indices = outstanding(sticking)
        ordinary = [scores[where] for label, where in places.items() if indices[label] <= OUTSTANDING]
        usual = torch.cat(ordinary or [scores])
        for label, where in places.items():
            if indices[label] > OUTSTANDING:
                rank = scores[where].argsort(descending=True).argsort()
                most = int(_MARGIN * self.share * len(where))
                removed[where] = (rank < most) & (scores[where] > usual.quantile(_ORDINARY))
        return Scored(
            scores=scores,
            removed=removed,
            rule=f"labels with an anomaly index above {OUTSTANDING:.2f} (the bound of SCAn); of these at most the "
            f"highest {_MARGIN * self.share:.0%}, as far as they exceed {_ORDINARY:.0%} of the samples of other labels",
            per_class=findings(
                places,
                removed,
                indices,
                {label: {"sticking_out": sticking[label], "dimensions": float(used[label])} for label in places},
            ),
            counts={"images": len(held), "features": seen.shape[1]},
        )

    def _of_label(self, values: Tensor) -> tuple[Tensor, float, int]:
        """(scores, how much the label sticks out, components), for the number of components that shows most."""
        most = max(1, min(self.dimensions, len(values) // 10))
        components = principal(values, most).double()
        sizes = sorted({max(1, round(most * (step / 10) ** 2)) for step in range(1, 11)})
        tried = [(*quantum_entropy(components[:, :size], self.share, self.alpha), size) for size in sizes]
        scores, sticking, size = max(tried, key=lambda one: one[1])
        return scores.float(), sticking, size


def quantum_entropy(values: Tensor, share: float, alpha: float) -> tuple[Tensor, float]:
    """(x'Mx / tr M of every row, tr(SM) / tr M), after whitening by what most of the rows are like."""
    white = robustly_whitened(values, share)
    spread = white.T @ white / len(white)
    found = torch.linalg.eigh(spread)
    excess = (found.eigenvalues - 1) / (found.eigenvalues.max() - 1).clamp_min(1e-6)
    weights = torch.exp(alpha * (excess - excess.max()))  # of the same ratios as exp(alpha * excess)
    scores = ((white @ found.eigenvectors).square() * weights).sum(1) / weights.sum()
    return scores, float((found.eigenvalues * weights).sum() / weights.sum())


def robustly_whitened(values: Tensor, share: float) -> Tensor:
    """Rows less a mean and in units of a covariance from which the ``share`` that fits worst is left out."""
    kept = torch.ones(len(values), dtype=torch.bool)
    white = values
    for _ in range(_ROUNDS):
        mean = values[kept].mean(0)
        centered = values - mean
        covariance = centered[kept].T @ centered[kept] / kept.sum()
        found = torch.linalg.eigh(covariance)
        floor = 1e-6 * float(found.eigenvalues.max().clamp_min(1e-12))
        white = centered @ (found.eigenvectors / found.eigenvalues.clamp_min(floor).sqrt())
        distances = white.square().sum(1)
        # the covariance of the inner part is too small: in the middle a normal sample lies at its expected distance
        white = white * (values.shape[1] / distances.median().clamp_min(1e-12)).sqrt()
        inner = distances <= distances.quantile(1 - share)
        if torch.equal(inner, kept):
            break
        kept = inner
    return white
