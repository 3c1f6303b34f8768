"""TED++: through which neighbors an input travels from layer to layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._features import pooled, read_layers
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard, Learned, guards
from goodnet.guard._clean import rightly_answered

_KINDS = (torch.nn.Conv2d, torch.nn.Linear)
_FEWEST = 2  # clean images of a label, to have a distance within it


@guards.register(
    Card(
        name="ted",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Mo et al., TED, IEEE S&P 2024, with the rank adjustment of TED++, 2025",
        summary="how far down the list of clean neighbors the first one of the predicted label is, layer by layer",
        quick={"layers": 3},
    )
)
@dataclass(frozen=True, kw_only=True)
class Ted(Guard):
    """Follow an input through the layers by the rank of its nearest clean neighbor of the predicted label.

    What it does: at each of up to ``layers`` layers, spread evenly over the convolutions and linear layers (maps are
    averaged over places), clean images are ordered by their distance to the input. The rank, in [0, 1], says how many
    are nearer than the nearest one of the label that the model predicts. Where that one is farther away than images of
    its label usually are from each other (the farthest of the nearest share ``alpha`` of their distances), the rank is
    the worst, as in TED++. The score is how badly the principal components that explain ``explained`` of the variance
    of clean ranks reconstruct those of the input, and how far out it lies on them.
    Needs: the model, clean images; labels where they are held, so that only rightly answered images serve.
    Limits: memory for the features of all clean images. Labels of which fewer than two clean images are held always
    get the worst rank.
    Source: Mo et al., IEEE S&P 2024; TED++, 2025. Their contamination of .1 is a guess; here the threshold is split
    conformal.
    """

    layers: int = param(12, low=1, doc="so many layers at most are looked at")
    alpha: float = param(0.5, low=0.01, high=1.0, doc="share of the distances within a label that is usual")
    explained: float = param(0.95, low=0.1, high=1.0, doc="variance of clean ranks that is usual")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model = defender.model
        assert model is not None
        images, labels = rightly_answered(defender)
        if len(images) < 2 * _FEWEST:
            raise NotHeld(f"ted needs clean images to compare with, and there are {len(images)}")
        found = [name for name, layer in model.layers() if isinstance(layer, _KINDS)]
        places = torch.linspace(0, len(found) - 1, min(self.layers, len(found))).round().long().unique()
        chosen = [found[place] for place in places.tolist()]
        arrays, ranks = {"labels": labels}, []
        for place, values in enumerate(read_layers(model, images, chosen, pooled)):
            run.progress(place / len(chosen), f"layer {chosen[place]}")
            distances = _distances(values, values)
            radius = torch.zeros(model.num_classes)
            for label in labels.unique().tolist():
                mine = labels == label
                within = distances[mine][:, mine]
                if len(within) >= _FEWEST:
                    pairs = within[~torch.eye(len(within), dtype=torch.bool)].sort().values
                    radius[label] = pairs[max(0, int(self.alpha * len(pairs)) - 1)]
            arrays |= {f"features.{place}": values, f"radius.{place}": radius}
            ranks.append(_ranks(distances.fill_diagonal_(float("inf")), labels, labels, radius))
        arrays |= self._usual(torch.stack(ranks, 1))
        return Learned(arrays=arrays, values={"layers": chosen}, counts={"clean_images": len(images)})

    def _usual(self, ranks: Tensor) -> dict[str, Tensor]:
        """Mean, components and scales of clean trajectories (n, L)."""
        mean = ranks.mean(0)
        _, sizes, components = torch.linalg.svd(ranks - mean, full_matrices=False)
        variance = sizes.square()
        kept = 1 + int((variance.cumsum(0) < self.explained * variance.sum()).sum())
        scale = (variance / max(1, len(ranks) - 1)).sqrt().clamp_min(1e-3)
        return {"mean": mean, "components": components[:kept], "scale": scale[:kept]}

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        arrays, chosen = learned.arrays, list(learned.values["layers"])
        predicted = model(images).argmax(1).cpu()
        ranks = [
            _ranks(
                _distances(values, arrays[f"features.{place}"]), predicted, arrays["labels"], arrays[f"radius.{place}"]
            )
            for place, values in enumerate(read_layers(model, images, chosen, pooled))
        ]
        offset = torch.stack(ranks, 1) - arrays["mean"]
        inside = offset @ arrays["components"].T
        rest = torch.linalg.vector_norm(offset - inside @ arrays["components"], dim=1)
        along = torch.linalg.vector_norm(inside / arrays["scale"], dim=1)
        total: Tensor = along + rest / arrays["scale"].min()
        return total


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """(M, n), each computed by itself: by a matrix product they would depend on what else is in the batch."""
    distances: Tensor = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def _ranks(distances: Tensor, predicted: Tensor, labels: Tensor, radius: Tensor) -> Tensor:
    """(M,) in [0, 1]: the share of clean images nearer than the nearest of the predicted label; 1 if it is too far."""
    other = labels[None] != predicted[:, None]
    nearest = distances.masked_fill(other, float("inf")).min(1).values
    rank = (distances < nearest[:, None]).sum(1) / distances.shape[1]
    return torch.where(nearest > radius[predicted], torch.ones_like(rank), rank)
