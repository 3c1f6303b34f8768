"""SCAn: a label whose features are better told by two means than by one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._clusters import two_means
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run

_STEPS, _CLOSE = 100, 1e-5  # of the estimation


@cleansers.register(
    Card(
        name="scan",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.CLEAN | Needs.CLEAN_LABELS,
        source="Tang et al., Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination "
        "Detection, USENIX Security 2021",
        summary="a likelihood-ratio test of two means against one for each label, with the noise of clean images",
        assumes=("few labels are attacked",),
    )
)
@dataclass(frozen=True, kw_only=True)
class Scan(Cleanser):
    """Test for each label whether its features have two means, given how features vary within clean labels.

    What it does: on clean images features are a label's mean plus noise; both covariances are estimated by expectation
    maximization. In units of the noise the likelihood of two means with common noise is maximal where 2-means puts
    them. The statistic is twice the log-likelihood ratio per sample, so that large labels are not suspicious for their
    size; a label is flagged when its anomaly index exceeds ``bound``. The group that holds the smaller share of the
    label's clean images goes. A sample's score is twice the log-likelihood ratio of the two groups: how many squared
    noise deviations it is nearer to the suspicious one.
    Needs: the model, the training set, clean images with labels (some dozens for each label).
    Limits: with fewer than five labels, or when most are attacked (all-to-all), none stands out; features are first
    brought to the ``dimensions`` in which the training set, poison included, varies most: noise in more cannot be
    estimated from few clean images.
    Source: Tang, Wang, Tang, Zhang, Demon in the Variant, USENIX Security 2021; e^2 is its bound.
    """

    dimensions: int = param(50, low=1, doc="features are brought to so many, at most a fourth of the clean images")
    bound: float = param(OUTSTANDING, low=0.0, doc="anomaly index above which a label is flagged")
    layer: str = param("", doc="whose output is looked at; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held, clean = defender.model, defender.training_set, defender.clean
        assert model is not None
        assert held is not None
        assert held.labels is not None
        assert clean is not None
        assert clean.labels is not None
        run.progress(0.0, "features")
        seen, known = (features(model, one.images, self.layer) for one in (held, clean))
        basis = _basis(seen, max(1, min(self.dimensions, len(known) // 4)))
        seen, known = (seen - seen.mean(0)) @ basis, (known - seen.mean(0)) @ basis
        run.progress(0.5, "noise within labels")
        white = whitening(noise_within(known, clean.labels))
        seen, known = seen @ white, known @ white
        places = places_of(held.labels)
        scores, second = torch.zeros(len(held)), torch.zeros(len(held), dtype=torch.bool)
        statistics = {}
        for label, where in places.items():
            trusted = known[clean.labels == label]
            nearer, statistics[label] = _two_against_one(seen[where], trusted, run.generator)
            scores[where], second[where] = nearer, nearer > 0
        indices = outstanding(statistics)
        removed = torch.zeros_like(second)
        for label, where in places.items():
            removed[where] = second[where] & (indices[label] > self.bound)
        return Scored(
            scores=scores,
            removed=removed,
            rule=f"the group with fewer clean images, of labels with an anomaly index above {self.bound:.2f}",
            per_class=findings(places, removed, indices, {label: {"ratio": statistics[label]} for label in places}),
            counts={"images": len(held), "clean_images": len(clean), "dimensions": basis.shape[1]},
        )


def _basis(values: Tensor, dimensions: int) -> Tensor:
    """The leading principal directions (D, dimensions) of these rows."""
    centered = (values - values.mean(0)).double()
    basis: Tensor = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :dimensions]
    return basis.float()


def _two_against_one(seen: Tensor, trusted: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """(how much nearer each row is to the suspicious mean, twice the log-likelihood ratio per row); noise is one."""
    split = two_means(seen, generator)
    if split.share == 0:
        return torch.zeros(len(seen)), 0.0
    centers = torch.stack([seen[~split.small].mean(0), seen[split.small].mean(0)])
    gap = float((centers[0] - centers[1]).square().sum())
    with_first = float(_nearer_to_second(trusted, centers).le(0).float().mean()) if len(trusted) else 1.0
    in_first, in_second = with_first / (1 - split.share), (1 - with_first) / split.share
    nearer = _nearer_to_second(seen, centers)
    # in units of the noise, the ratio is what the split takes from the sum of squares
    return (nearer if in_first >= in_second else -nearer), split.share * (1 - split.share) * gap


def _nearer_to_second(rows: Tensor, centers: Tensor) -> Tensor:
    """Squared distance to the first center minus that to the second."""
    distances = torch.cdist(rows, centers).square()
    return distances[:, 0] - distances[:, 1]


def noise_within(values: Tensor, labels: Tensor) -> Tensor:
    """The covariance (D, D) of noise within labels, estimated together with that of the labels' means.

    Expectation maximization for values = mean of the label + noise, both normal; all labels at once.
    """
    values = values.double()
    known, rows = labels.unique(return_inverse=True)
    counts = rows.bincount().double()
    sums = torch.zeros(len(known), values.shape[1], dtype=torch.float64).index_add_(0, rows, values)
    averages = sums / counts[:, None]
    small = 1e-6 * values.var(0).mean().clamp_min(1e-12) * torch.eye(values.shape[1], dtype=torch.float64)
    residue, offset = values - averages[rows], averages - averages.mean(0)
    noise: Tensor = residue.T @ residue / len(values) + small
    between: Tensor = offset.T @ offset / len(known) + small
    for _ in range(_STEPS):
        inner = between + noise / counts[:, None, None]  # (labels, D, D): covariance of a label's average
        gain = torch.linalg.solve(inner, between.expand_as(inner)).transpose(1, 2)
        means = (gain @ averages[:, :, None])[:, :, 0]
        spread = between - gain @ between  # what is not known about a label's mean
        between = (means.T @ means + spread.sum(0)) / len(known) + small
        residue = values - means[rows]
        updated = (residue.T @ residue + (counts[:, None, None] * spread).sum(0)) / len(values) + small
        moved = float((updated - noise).norm() / noise.norm())
        noise = (updated + updated.T) / 2
        if moved < _CLOSE:
            break
    return noise


def whitening(covariance: Tensor) -> Tensor:
    """float32 (D, D): multiplied with it, rows of this covariance have unit covariance."""
    found = torch.linalg.eigh(covariance)
    deviations: Tensor = found.eigenvalues.clamp_min(1e-6 * float(found.eigenvalues.max())).sqrt()
    scaled: Tensor = found.eigenvectors / deviations
    return scaled.float()
