"""Beatrix: how features go together, in Gram matrices of several orders, against what is usual for the label."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._features import Read, read_layer
from goodnet.cleanse._gram import deviation, gram_entries, usual_range
from goodnet.cleanse._rules import places_of, scored_above_clean
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable, NotHeld

_FOLDS = 5
_FEWEST = 4  # clean images of a label, to have a median deviation


@cleansers.register(
    Card(
        name="beatrix",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.CLEAN | Needs.CLEAN_LABELS,
        source="Ma et al., The Beatrix Resurrections: Robust Backdoor Detection via Gram Matrices, NDSS 2023",
        summary="how far the correlations of a sample's feature maps leave the range of clean images of its label",
        quick={"orders": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class Beatrix(Cleanser):
    """Compare the Gram matrices of feature maps with those of clean images of the same label.

    What it does: for a layer's maps F (channels, places) and each order p up to ``orders`` the upper triangle of
    (F^p F^pT)^(1/p) is taken, powers element by element. Clean images of a label give the median of every entry and its
    median absolute deviation; what lies outside the median plus or minus ``width`` deviations counts with its distance
    in units of the bound. The score is the mean over all entries and ``layers``. Clean images, scored in five folds by
    bounds that they did not help to make, set the threshold at the share ``rate``; nothing is removed where no more
    samples exceed it than chance gives (beta-binomial, 1 %).
    Needs: the model, with convolutions, the training set, clean images with labels, at least four of a label.
    Limits: bounds from few images are loose. Samples of a label of which nothing clean is held score 0.
    Source: Ma et al., Beatrix, NDSS 2023: orders 8, width 10, five folds. The verdict on whole labels by kernel MMD is
    left out.
    """

    orders: int = param(8, low=1, high=16, doc="powers of the features")
    width: float = param(10.0, low=0.0, doc="median absolute deviations that are usual")
    layers: int = param(1, low=1, doc="so many of the last convolutions are looked at")
    rate: float = param(0.01, low=0.0, high=0.5, doc="share of clean images above the threshold")
    alpha: float = param(0.01, low=0.0, high=1.0, doc="chance of removing anything from a set like the clean images")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held, clean = defender.model, defender.training_set, defender.clean
        assert model is not None
        assert held is not None
        assert held.labels is not None
        assert clean is not None
        assert clean.labels is not None
        convolutions = [name for name, layer in model.layers() if isinstance(layer, torch.nn.Conv2d)]
        if not convolutions:
            raise NotApplicable("beatrix compares the maps of convolutions, and this network has none")
        order = torch.randperm(len(clean), generator=run.generator)
        scores, usual = torch.zeros(len(held)), torch.zeros(len(clean))
        chosen = convolutions[-self.layers :]
        for place, layer in enumerate(chosen):
            run.progress(place / len(chosen), f"layer {layer}")
            of_held, of_clean = self._deviations(model, layer, held, clean.pick(order))
            scores += of_held / len(chosen)
            usual += of_clean / len(chosen)
        judged = usual[usual.isfinite()]
        if not len(judged):
            raise NotHeld("beatrix needs at least four clean images of some label; give more of them")
        return scored_above_clean(
            scores,
            judged,
            held.labels,
            self.rate,
            self.alpha,
            counts={"layers": len(chosen)},
            evidence={"layers": chosen},
        )

    def _deviations(self, model: Classifier, layer: str, held: Samples, clean: Samples) -> tuple[Tensor, Tensor]:
        """(of the samples, of the clean images; NaN where a label has too few of these), one label at a time."""
        assert held.labels is not None
        assert clean.labels is not None
        of_held, of_clean = torch.zeros(len(held)), torch.full((len(clean),), float("nan"))
        for label, where in places_of(clean.labels, _FEWEST).items():
            grams = read_layer(model, clean.images[where], layer, self._read)
            fold = torch.arange(len(grams)) % _FOLDS
            for one in range(_FOLDS):
                bounds = usual_range(grams[fold != one], self.width)
                of_clean[where[fold == one]] = deviation(grams[fold == one], *bounds)
            low, high = usual_range(grams, self.width)
            mine = (held.labels == label).nonzero()[:, 0]
            if len(mine):  # in batches: the matrices of a whole label need not fit in memory
                read = _against(low, high, self._read)
                of_held[mine] = read_layer(model, held.images[mine], layer, read)[:, 0]
        return of_held, of_clean

    def _read(self, maps: Tensor) -> Tensor:
        return gram_entries(maps, self.orders)


def _against(low: Tensor, high: Tensor, read: Read) -> Read:
    """How far what is read leaves its range, one number for each image."""
    return lambda maps: deviation(read(maps), low.to(maps.device), high.to(maps.device))[:, None]
