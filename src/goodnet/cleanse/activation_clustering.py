"""Activation Clustering: two groups among the features of each label, and the question which group does not belong."""

from dataclasses import dataclass
from typing import Literal

import torch
from sklearn.metrics import silhouette_score
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._clusters import Split, reduced, two_means
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import findings, places_of
from goodnet.cleanse._training import trained_anew
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.training import Recipe

_MOST_FOR_SILHOUETTE = 2000  # rows; its price grows with their square
_RULES = ("exclusion", "silhouette", "size", "distance")
_BATCH = 64
_LEARNED = 0.5  # share of a label's larger group that a retrained network must know before it is asked about the rest


@cleansers.register(
    Card(
        name="activation-clustering",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.TRAINING,
        source="Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering, 2018",
        summary="two clusters per label; a network trained without the smaller ones says which do not belong",
        assumes=("poison is the smaller part of its label", "the model has learned the backdoor"),
        quick={"epochs": 1, "fewest_steps": 0},
    )
)
@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Cleanser):
    """Split the features of each label into two groups, and remove the smaller one where it does not belong.

    What it does: the features of the samples of each given label are brought to ``dimensions`` and split by 2-means.
    Every label has a smaller group, also a clean one, so that being smaller decides nothing. ``decide`` says what does:
    exclusion (a network trained without all smaller groups must give one another label ``exclusion_ratio`` times as
    often as its own; a label whose rest it has not learned is left alone), silhouette (above ``silhouette_bound``, and
    below ``largest_share``), size (below ``largest_share``), distance (its center lies nearer to another label's).
    A sample's score is how much closer it is to the smaller group, from -1 to 1, times the label's own score.
    Needs: the model, the training set; for exclusion the time of one training.
    Limits: poison that shares its label's features (clean-label attacks, adaptive blends) or is below about one percent
    of its label forms no group. Exclusion tells dirty labels, not clean-label poison. silhouette and size take natural
    groups for poison: they cost clean sets much.
    Source: Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering, 2018. 35 % and
    0.10 are its bounds, the ratio 1 is that of its exclusionary reclassification. It takes independent components; the
    principal ones are what its authors' library, ART, does without being asked.
    """

    decide: Literal["exclusion", "silhouette", "size", "distance"] = param(
        "exclusion", choices=_RULES, doc="what speaks against a label's smaller group"
    )
    dimensions: int = param(10, low=1, doc="to which features are reduced")
    reduction: Literal["ica", "pca"] = param("pca", choices=("ica", "pca"), doc="independent or principal components")
    largest_share: float = param(0.35, low=0.0, high=0.5, doc="for size and silhouette: groups below are suspicious")
    silhouette_bound: float = param(0.1, low=-1.0, high=1.0, doc="for silhouette: better separated is suspicious")
    exclusion_ratio: float = param(1.0, low=0.0, doc="for exclusion: most frequent other label against the own")
    epochs: int = param(10, low=1, doc="for exclusion: passes of the training")
    fewest_steps: int = param(1000, low=0, doc="for exclusion: more passes where these are fewer steps")
    layer: str = param("", doc="whose output is clustered; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        assert held.labels is not None
        seen, places = features(model, held.images, self.layer), places_of(held.labels)
        splits = {
            label: two_means(reduced(seen[where], self.dimensions, self.reduction, run.generator), run.generator)
            for label, where in places.items()
        }
        measures: dict[int, dict[str, float | None]] = {label: {"share": one.share} for label, one in splits.items()}
        if self.decide == "exclusion":
            evidence = self._by_exclusion(defender, run, places, splits, measures)
        elif self.decide == "distance":
            evidence = _by_distance(seen, places, splits)
        else:
            for label, where in places.items():
                measures[label]["silhouette"] = _silhouette(seen[where], splits[label], run.generator)
            evidence = {label: self._by_shape(one) for label, one in measures.items()}
        scores, removed = torch.zeros(len(held)), torch.zeros(len(held), dtype=torch.bool)
        for label, where in places.items():
            score, flagged = evidence[label]
            scores[where] = score * splits[label].margin
            removed[where] = splits[label].small & flagged
        return Scored(
            scores=scores,
            removed=removed,
            rule=self._in_words(),
            per_class=findings(places, removed, {label: one for label, (one, _) in evidence.items()}, measures),
            counts={"images": len(held), "dimensions": self.dimensions},
        )

    def _by_shape(self, measured: dict[str, float | None]) -> tuple[float, bool]:
        share, silhouette = measured["share"] or 0.0, measured["silhouette"] or 0.0
        small = 0 < share < self.largest_share
        if self.decide == "size":
            return max(0.0, 1 - 2 * share), small
        return max(0.0, silhouette), small and silhouette > self.silhouette_bound

    def _by_exclusion(
        self,
        defender: Defender,
        run: Run,
        places: dict[int, Tensor],
        splits: dict[int, Split],
        measures: dict[int, dict[str, float | None]],
    ) -> dict[int, tuple[float, bool]]:
        """Label → (share of other answers, flagged), by a network that has seen no smaller group."""
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        rest = torch.ones(len(held), dtype=torch.bool)
        for label, where in places.items():
            rest[where] = ~splits[label].small
        recipe = Recipe(
            epochs=max(self.epochs, self.fewest_steps * _BATCH // max(int(rest.sum()), 1)),
            learning_rate=1e-3,
            optimizer="adam",
            batch_size=_BATCH,
        )
        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        answers = predictions(trained_anew(model, held.pick(rest), recipe, run, seed=seed), held.images).argmax(1)
        found = {}
        for label, where in places.items():
            small = splits[label].small
            own = answers[where][small].bincount(minlength=model.num_classes).float()
            kept, other = float(own[label]), float(own[torch.arange(len(own)) != label].max())
            learned = float((answers[where][~small] == label).float().mean())
            measures[label] |= {"learned": learned, "own": kept, "other": other}
            asked = learned >= _LEARNED and bool(small.any())
            found[label] = (other / max(kept + other, 1.0), asked and other > self.exclusion_ratio * kept)
        return found

    def _in_words(self) -> str:
        return {
            "exclusion": "smaller groups to which a network trained without them gives another label "
            f"{self.exclusion_ratio:g} times as often as their own",
            "silhouette": f"smaller groups below {self.largest_share:.0%} of their label, silhouette above "
            f"{self.silhouette_bound:g}: the paper's bounds",
            "size": f"smaller groups below {self.largest_share:.0%} of their label: the paper's bound",
            "distance": "smaller groups whose center is nearer to that of another label",
        }[self.decide]


def _silhouette(values: Tensor, split: Split, generator: torch.Generator) -> float:
    """The mean silhouette of a split in these features, of at most so many rows."""
    chosen = torch.randperm(len(values), generator=generator)[:_MOST_FOR_SILHOUETTE]
    groups = split.small[chosen]
    if not 0 < int(groups.sum()) < len(groups):
        return 0.0
    return float(silhouette_score(values[chosen].numpy(), groups.numpy()))


def _by_distance(seen: Tensor, places: dict[int, Tensor], splits: dict[int, Split]) -> dict[int, tuple[float, bool]]:
    """Label → (how much nearer its smaller group is to another label, flagged); centers of larger groups."""
    centers = torch.stack([seen[where][~splits[label].small].mean(0) for label, where in places.items()])
    found = {}
    for row, (label, where) in enumerate(places.items()):
        if not splits[label].small.any() or len(places) < 2:
            found[label] = (0.0, False)
            continue
        distances = (centers - seen[where][splits[label].small].mean(0)).norm(dim=1)
        own, other = float(distances[row]), float(distances[torch.arange(len(distances)) != row].min())
        found[label] = (own / max(own + other, 1e-12), other < own)
    return found
