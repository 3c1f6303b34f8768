"""Beatrix at run time: how features go together, against what is usual for the label that the model predicts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._features import read_layers
from goodnet.cleanse._gram import deviation, gram_entries, usual_range
from goodnet.cleanse._rules import places_of
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable, NotHeld
from goodnet.guard._base import Guard, Learned, guards
from goodnet.guard._clean import rightly_answered

_FEWEST = 4  # clean images of a label, to have a median deviation


@guards.register(
    Card(
        name="beatrix",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Ma et al., The Beatrix Resurrections: Robust Backdoor Detection via Gram Matrices, NDSS 2023",
        summary="how far the correlations of an input's feature maps leave the range of clean images of its answer",
        quick={"orders": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class Beatrix(Guard):
    """Compare the Gram matrices of an input's feature maps with those of clean images that get the same answer.

    What it does: as the cleanser of that name: entries of Gram matrices of up to ``orders`` powers of the maps of the
    last ``layers`` convolutions; what lies outside the median plus or minus ``width`` median absolute deviations of
    clean images of the predicted label counts with its distance. The score is the mean over entries and layers.
    Needs: the model, with convolutions, clean images, at least four of a label; their labels where they are held, so
    that only rightly answered images serve.
    Limits: bounds from few images are loose. Labels of which fewer than four clean images are held are compared with
    the bounds of all images together. Bounds take memory: squares of channels, for every label.
    Source: Ma et al., Beatrix, NDSS 2023: orders 8, width 10.
    """

    orders: int = param(8, low=1, high=16, doc="powers of the features")
    width: float = param(10.0, low=0.0, doc="median absolute deviations that are usual")
    layers: int = param(1, low=1, doc="so many of the last convolutions are looked at")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model = defender.model
        assert model is not None
        convolutions = [name for name, layer in model.layers() if isinstance(layer, torch.nn.Conv2d)]
        if not convolutions:
            raise NotApplicable("beatrix compares the maps of convolutions, and this network has none")
        images, labels = rightly_answered(defender)
        if len(images) < _FEWEST:
            raise NotHeld(f"beatrix needs at least {_FEWEST} clean images to compare with, and there are {len(images)}")
        chosen, places = convolutions[-self.layers :], places_of(labels, _FEWEST)
        rows = torch.zeros(model.num_classes, dtype=torch.int64)  # row 0 is of all images together
        arrays: dict[str, Tensor] = {}
        for row, label in enumerate(places, start=1):
            rows[label] = row
        for place, grams in enumerate(read_layers(model, images, chosen, self._read)):
            run.progress(place / len(chosen), f"layer {chosen[place]}")
            bounds = [usual_range(part, self.width) for part in (grams, *(grams[where] for where in places.values()))]
            arrays |= {f"low.{place}": torch.stack([low for low, _ in bounds])}
            arrays |= {f"high.{place}": torch.stack([high for _, high in bounds])}
        missing = model.num_classes - len(places)
        told = (f"too few clean images of {missing} labels; they are compared with all",) if missing else ()
        return Learned(
            arrays={"rows": rows, **arrays}, values={"layers": chosen}, notes=told, counts={"clean_images": len(images)}
        )

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        chosen = list(learned.values["layers"])
        rows = learned.arrays["rows"][model(images).argmax(1).cpu()]
        scores = torch.zeros(len(images))
        for place, grams in enumerate(read_layers(model, images, chosen, self._read)):
            low, high = (learned.arrays[f"{side}.{place}"] for side in ("low", "high"))
            for row in rows.unique().tolist():
                scores[rows == row] += deviation(grams[rows == row], low[row], high[row]) / len(chosen)
        return scores

    def _read(self, maps: Tensor) -> Tensor:
        return gram_entries(maps, self.orders)
