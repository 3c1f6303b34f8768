"""Few dimensions, and two groups in them."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

_MOST_FOR_SILHOUETTE = 2000  # rows; its price grows with their square
_STARTS, _TRIED = 10, 10  # of k-means, and the rounds after which all but the best are given up

Rows = npt.NDArray[np.float64]


def principal(values: Tensor, dimensions: int) -> Tensor:
    """Rows (N, D), centered, in their leading principal components, float32 (N, at most ``dimensions``).

    Takes the smaller of the two Gram matrices, so that neither many rows nor many columns are dear.
    """
    centered = (values - values.mean(0)).double()
    wanted = min(dimensions, *centered.shape)
    if centered.shape[1] <= centered.shape[0]:
        basis: Tensor = torch.linalg.eigh(centered.T @ centered).eigenvectors.flip(1)[:, :wanted]
        return (centered @ basis).float()
    found = torch.linalg.eigh(centered @ centered.T)
    strengths: Tensor = found.eigenvalues.flip(0)[:wanted].clamp_min(0).sqrt()
    components: Tensor = found.eigenvectors.flip(1)[:, :wanted] * strengths
    return components.float()


def reduced(values: Tensor, dimensions: int, how: Literal["ica", "pca"], generator: torch.Generator) -> Tensor:
    """Rows (N, D) in few dimensions: principal components, or independent ones of unit variance made from them."""
    components = principal(values, dimensions)
    components = components[:, components.std(0) > 1e-6 * components.std().clamp_min(1e-30)]
    if how == "pca" or components.shape[1] < 2:
        return components
    ica = FastICA(whiten="unit-variance", tol=0.005, max_iter=1000, random_state=_seed(generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the rotation found so far separates well enough
        found = ica.fit_transform(components.double().numpy())
    return torch.from_numpy(np.ascontiguousarray(found)).float()


@dataclass(frozen=True)
class Split:
    """Two groups of rows.

    Attributes:
        small: bool (N,), the smaller group.
        margin: float (N,) in [-1, 1]: how much closer a row is to the center of the smaller group, as a share.
        share: of the rows that are in the smaller group.
    """

    small: Tensor
    margin: Tensor
    share: float


def two_means(values: Tensor, generator: torch.Generator) -> Split:
    """k-means with two centers, the best of ten starts; see ``_best_start``."""
    if values.shape[1] == 0 or bool((values == values[0]).all()):
        return Split(torch.zeros(len(values), dtype=torch.bool), torch.zeros(len(values)), 0.0)
    found = _best_start(values.double().numpy(), _seed(generator))
    group = torch.from_numpy(found.labels_).bool()
    small = group if group.float().mean() <= 0.5 else ~group
    distances = torch.cdist(values, torch.from_numpy(found.cluster_centers_).float())
    if small is not group:
        distances = distances.flip(1)
    margin = (distances[:, 0] - distances[:, 1]) / distances.sum(1).clamp_min(1e-12)
    return Split(small, margin, float(small.float().mean()))


def _best_start(rows: Rows, seed: int) -> KMeans:
    """The start of k-means that leaves least within the groups after a few rounds, and that one to its end."""
    tried = KMeans(2, n_init=_STARTS, max_iter=_TRIED, random_state=seed).fit(rows)
    return KMeans(2, n_init=1, init=tried.cluster_centers_, random_state=seed).fit(rows)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


def silhouette(values: Tensor, small: Tensor, generator: torch.Generator) -> float:
    """The mean silhouette of two groups of rows, of at most so many rows drawn at random; 0 where one is empty."""
    chosen = torch.randperm(len(values), generator=generator)[:_MOST_FOR_SILHOUETTE]
    rows, groups = values[chosen], torch.stack((~small[chosen], small[chosen]), 1).float()
    sizes = groups.sum(0)
    if not bool((sizes > 0).all()):
        return 0.0
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") @ groups  # (n, 2), sums
    own = (apart * groups).sum(1) / (groups @ sizes - 1).clamp_min(1)
    other = (apart * groups.flip(1)).sum(1) / (groups.flip(1) @ sizes)
    widths = (other - own) / torch.maximum(other, own).clamp_min(1e-30)
    return float(torch.where(groups @ sizes > 1, widths, 0.0).mean())  # alone in its group counts 0
