"""FLARE: a trigger drives the same units of many layers to values that they hardly ever have, always the same ones."""

import math
from dataclasses import dataclass

import torch
from scipy.stats import binom
from sklearn.cluster import HDBSCAN
from torch import Tensor, nn

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._features import BATCH
from goodnet.cleanse._rules import findings, places_of, robust_z
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable

_MOST = 10_000  # samples that are clustered; the price grows with their square
_FEWEST = 10  # samples of a group, and of half a set
_WINDOWS = 5  # of equal width, from the middle of the rest to the middle of a group


@cleansers.register(
    Card(
        name="flare",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET,
        source="Hou et al., FLARE: Towards Universal Dataset Purification against Backdoor Attacks, TIFS 2025",
        summary="samples whose activations are unlikely, in many layers and in the same way",
        assumes=("BatchNorm", "poison is the smaller part of the set"),
    )
)
@dataclass(frozen=True, kw_only=True)
class Flare(Cleanser):
    """Find samples whose most unlikely activations are unlikely in the same way.

    What it does: BatchNorm knows mean and variance of each channel. In each such layer a sample's strangeness is minus
    the logarithm of the normal density of its most unlikely activation, here in robust standard deviations, large ones
    as logarithms. Half of the set is clustered by density (HDBSCAN). A group of less than half of these samples that is
    stranger than the rest in most layers is asked about on the other half: along the linear discriminant, between the
    middle of the rest and its own, there must be a gap, a window with fewer samples than those of the same width at
    either middle. Were there one peak only, it would hold as many as one of them at least: the test is binomial, at
    ``alpha`` over all tries. While there is no such group, the last layer is left out, down to half of them. What lies
    beyond the gap goes. The score is the place along the discriminant, 0 at the gap and 1 at the middle of the group;
    without a group the mean strangeness less its maximum.
    Needs: a model with BatchNorm and the training set. Nothing clean; labels are not looked at, so that attacks which
    relabel every class, or give labels at random, are seen.
    Limits: groups of fewer than ``share`` of the set; triggers that move no activation far; natural groups of strange
    images that nothing leads to, such as one source with a frame around its pictures, look the same.
    Source: Hou et al., FLARE, TIFS 2025: strangeness and leaving out layers. Theirs takes two dimensions of UMAP and a
    jump in the tree of clusters, which finds a group in clean sets too; strangeness above the rest, and the gap on
    samples that were not clustered, are ours.
    """

    share: float = param(0.005, low=0.0, high=0.5, doc="smallest group, of the set")
    alpha: float = param(0.01, low=0.0, high=1.0, doc="chance of a gap where there is one peak, over all tries")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        assert held.labels is not None
        run.progress(0.0, "activations")
        strange = strangeness(model, held.images)
        rows = torch.stack([_moderate(robust_z(layer)) for layer in strange.T], 1)
        halves = torch.randperm(len(rows), generator=run.generator).tensor_split(2)
        depths = range(rows.shape[1], rows.shape[1] // 2, -1)
        groups, used = list[Tensor](), 0
        for done, used in enumerate(depths):
            run.progress((1 + done) / (1 + len(depths)), f"groups in {used} layers")
            groups = self._groups(rows[:, :used], halves[0][:_MOST], halves[1], len(depths))
            if groups or run.seconds_left() <= 0:
                break
        usual = rows.mean(1)
        scores = torch.stack(groups).max(0).values if groups else usual - usual.max()
        removed, places = scores > 0, places_of(held.labels)
        return Scored(
            scores=scores,
            removed=removed,
            rule="samples beyond a gap in the strangeness of activations, beside which too few lie for one peak "
            f"(p at most {self.alpha:g})"
            if groups
            else f"nothing: no group is stranger than the rest and apart from it (p at most {self.alpha:g})",
            per_class=findings(
                places, removed, {label: float(scores[where].mean()) for label, where in places.items()}, {}
            ),
            counts={"images": len(held), "layers": used},
            evidence={"groups": len(groups), "threshold": 0.0},
        )

    def _groups(self, rows: Tensor, clustered: Tensor, asked: Tensor, tries: int) -> list[Tensor]:
        """For each group that stands the test the place of all rows along its discriminant, 0 at the gap, 1 within."""
        smallest = max(_FEWEST, math.ceil(self.share * len(clustered)))
        if len(clustered) < 2 * smallest or len(asked) < _FEWEST:
            return []
        found = torch.from_numpy(
            HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(rows[clustered].double().numpy())
        )
        known, groups = [int(one) for one in found.unique() if one >= 0], []
        for one in known:
            group, rest = clustered[found == one], clustered[found != one]
            stranger = (rows[group].median(0).values > rows[rest].median(0).values).float().mean() > 0.5
            if len(group) > len(rest) or not stranger:
                continue
            along = _along(rows, rest, group)
            gap, p_value = gap_between(along[clustered], along[asked])
            if p_value <= self.alpha / (tries * len(known)):
                groups.append((along - gap) / (1 - gap))
        return groups


def strangeness(model: Classifier, images: Tensor) -> Tensor:
    """float32 (N, L): for each BatchNorm layer minus the log-density of the most unlikely activation that it is given.

    Args:
        model: in eval mode.
        images: (N, C, H, W), uint8.

    Raises:
        NotApplicable: there is no such layer.
    """
    norms = [layer for _, layer in model.layers() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    if not norms:
        raise NotApplicable("flare compares activations with the statistics of BatchNorm, and this network has none")
    caught: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # a hook that returned would replace the input
        caught[layer] = _most_unlikely(layer, inputs[0].float())

    handles, parts = [layer.register_forward_pre_hook(look) for layer in norms], []
    try:
        with torch.no_grad():
            for batch in images.split(BATCH):
                model(batch.to(model.device).float() / 255)
                parts.append(torch.stack([caught[layer] for layer in norms], 1).cpu())
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(parts)


def _most_unlikely(layer: nn.Module, values: Tensor) -> Tensor:
    """(N,): the largest of 1/2 (x - mean)^2 / variance + 1/2 log(2 pi variance) over channels and places."""
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = (one[:, None, None] for one in (layer.running_mean, layer.running_var + layer.eps))
    surprise = ((values - mean).square() / variance + (2 * math.pi * variance).log()) / 2
    return surprise.flatten(1).max(1).values


def _moderate(values: Tensor) -> Tensor:
    """Logarithms of large values, small ones as they are."""
    return values.sign() * values.abs().log1p()


def _along(rows: Tensor, rest: Tensor, group: Tensor) -> Tensor:
    """The place (N,) of all rows along the linear discriminant of two groups, 0 and 1 at the medians of these."""
    values = rows.double()
    centered = torch.cat([values[one] - values[one].mean(0) for one in (rest, group)])
    within = centered.T @ centered / len(centered)
    within += 1e-3 * within.diagonal().mean().clamp_min(1e-12) * torch.eye(len(within))
    weights: Tensor = torch.linalg.solve(within, values[group].mean(0) - values[rest].mean(0))
    along = values @ weights
    low, high = along[rest].median(), along[group].median()
    return ((along - low) / (high - low).clamp_min(1e-12)).float()


def gap_between(first: Tensor, second: Tensor) -> tuple[float, float]:
    """(where the gap between 0 and 1 is, the chance of so deep a one where there is a single peak).

    Args:
        first: (N,), places of samples that choose the gap, the emptiest of windows of equal width between 0 and 1.
        second: (M,), those of others, by which it is judged.
    """
    middles, width = torch.linspace(0, 1, _WINDOWS)[1:-1], 1 / (_WINDOWS - 1)

    def held(places: Tensor, middle: float) -> int:
        return int(((places - middle).abs() < width / 2).sum())

    gap = min(middles.tolist(), key=lambda middle: held(first, middle))
    empty, chances = held(second, gap), []
    for middle in (0.0, 1.0):
        full = held(second, middle)
        chances.append(float(binom.cdf(empty, empty + full, 0.5)) if empty + full else 1.0)
    return gap, max(chances)
