"""Activation Clustering: two groups among the features of each label, and the question which group does not belong."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._clusters import Split, reduced, silhouette, two_means
from goodnet.cleanse._exclusion import answers_about
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld

_RULES = ("outstanding", "exclusion", "silhouette", "size", "distance")

Splits = dict[int, Split]
Measures = dict[int, dict[str, float | None]]
Judged = dict[int, tuple[float, bool]]  # label → (score in 0..1, whether its smaller group goes)


@cleansers.register(
    Card(
        name="activation-clustering",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.TRAINING,
        source="Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering, 2018",
        summary="two clusters per label; the smaller goes where the two are far better separated than in other labels",
        assumes=("poison is the smaller part of its label", "the model has learned the backdoor"),
        quick={"decide": "exclusion", "silhouette_bound": -1.0, "largest_share": 0.5, "epochs": 1, "fewest_steps": 0},
    )
)
@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Cleanser):
    """Split the features of each label into two groups, and remove the smaller one where it does not belong.

    What it does: the features of the samples of each given label are brought to ``dimensions`` and split by 2-means.
    Every label has a smaller group, also a clean one, so that being smaller decides nothing. ``decide`` says what does:
    silhouette (above ``silhouette_bound``, and the group below ``largest_share``); outstanding (that, and a silhouette
    whose anomaly index among the labels exceeds e^2); exclusion (that of silhouette, and a network trained without all
    such groups gives one another label ``exclusion_ratio`` times as often as its own); size (below ``largest_share``);
    distance (its center lies nearer to another label's). A sample's score is how much closer it is to the smaller
    group, from -1 to 1, times the label's own score.
    Needs: the model, the training set; for exclusion the time of one training.
    Limits: poison that shares its label's features (clean-label attacks, adaptive blends) or is below about one percent
    of its label forms no group. outstanding needs five labels, of which few are attacked. Exclusion tells dirty labels
    only, and takes natural groups of labels that are hard to learn for poison; silhouette and size do so everywhere.
    Source: Chen et al., Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering, 2018. 35 % and
    0.10 are its bounds, the ratio 1 is that of its exclusionary reclassification; outstanding is ours, by the bound of
    SCAn. The paper takes independent components; principal ones are the default of its authors' library, ART.
    """

    decide: Literal["outstanding", "exclusion", "silhouette", "size", "distance"] = param(
        "outstanding", choices=_RULES, doc="what speaks against a label's smaller group"
    )
    dimensions: int = param(10, low=1, doc="to which features are reduced")
    reduction: Literal["ica", "pca"] = param("pca", choices=("ica", "pca"), doc="independent or principal components")
    largest_share: float = param(0.35, low=0.0, high=0.5, doc="smaller groups above it are left alone")
    silhouette_bound: float = param(0.1, low=-1.0, high=1.0, doc="groups that are worse separated are left alone")
    exclusion_ratio: float = param(1.0, low=0.0, doc="for exclusion: most frequent other label against the own")
    epochs: int = param(10, low=1, doc="for exclusion: passes of the training")
    fewest_steps: int = param(1000, low=0, doc="for exclusion: more passes where these are fewer steps")
    layer: str = param("", doc="whose output is clustered; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held = defender.model, defender.training_set
        assert model is not None
        assert held is not None
        assert held.labels is not None
        run.progress(0.0, "features")
        seen, places = features(model, held.images, self.layer), places_of(held.labels)
        if self.decide != "exclusion":
            return self._judged_by_features(seen, places, run.generator)
        splits, measures = self._split(seen, places, run.generator)
        judged = self._by_exclusion(model, held, places, splits, measures, run)
        return self._scored(len(held), places, splits, measures, judged)

    def score_features(self, seen: Tensor, labels: Tensor, *, seed: int = 0) -> Scored:
        """The same for features that are there already, whatever made them; ``layer`` is not looked at.

        Args:
            seen: float (N, D), a row for each sample.
            labels: int64 (N,), as given in the training set.
            seed: of the starts of k-means.

        Raises:
            NotHeld: ``decide`` is "exclusion", which trains a network on images.
        """
        if self.decide == "exclusion":
            raise NotHeld("decide='exclusion' trains a network on images; with features alone decide by something else")
        return self._judged_by_features(seen, places_of(labels), torch.Generator().manual_seed(seed))

    def _judged_by_features(self, seen: Tensor, places: dict[int, Tensor], generator: torch.Generator) -> Scored:
        splits, measures = self._split(seen, places, generator)
        judged = _by_distance(seen, places, splits) if self.decide == "distance" else self._by_shape(measures)
        return self._scored(len(seen), places, splits, measures, judged)

    def _split(self, seen: Tensor, places: dict[int, Tensor], generator: torch.Generator) -> tuple[Splits, Measures]:
        """Two groups of each label, and how small and well separated the smaller one is."""
        splits, measures = Splits(), Measures()
        for label, where in places.items():
            rows = reduced(seen[where], self.dimensions, self.reduction, generator)
            splits[label] = two_means(rows, generator)
            measured = silhouette(rows, splits[label].small, generator)
            measures[label] = {"share": splits[label].share, "silhouette": measured}
        return splits, measures

    def _scored(
        self, count: int, places: dict[int, Tensor], splits: Splits, measures: Measures, judged: Judged
    ) -> Scored:
        scores, removed = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
        for label, where in places.items():
            score, flagged = judged[label]
            scores[where] = score * splits[label].margin
            removed[where] = splits[label].small & flagged
        return Scored(
            scores=scores,
            removed=removed,
            rule=self._in_words(),
            per_class=findings(places, removed, {label: one for label, (one, _) in judged.items()}, measures),
            counts={"images": count, "dimensions": self.dimensions},
        )

    def _by_shape(self, measures: Measures) -> Judged:
        """By how small and how well separated a group is, alone or among the labels."""
        separated = {label: one["silhouette"] or 0.0 for label, one in measures.items()}
        indices, found = outstanding(separated), {}
        for label, one in measures.items():
            share = one["share"] or 0.0
            flagged = 0 < share < self.largest_share
            if self.decide == "size":
                found[label] = (1 - 2 * share, flagged)
                continue
            flagged = flagged and separated[label] > self.silhouette_bound
            if self.decide == "outstanding":
                flagged = flagged and indices[label] > OUTSTANDING
                one["anomaly_index"] = indices[label]
            found[label] = (max(0.0, separated[label]), flagged)
        return found

    def _by_exclusion(
        self,
        model: Classifier,
        held: Samples,
        places: dict[int, Tensor],
        splits: Splits,
        measures: Measures,
        run: Run,
    ) -> Judged:
        """By what a network says that has not seen the groups in question."""
        suspicious = {
            label: where[splits[label].small]
            for label, where in places.items()
            if 0 < splits[label].share < self.largest_share
            and (measures[label]["silhouette"] or 0.0) > self.silhouette_bound
        }
        judged: Judged = dict.fromkeys(places, (0.0, False))
        for label, said in answers_about(model, held, suspicious, self.epochs, self.fewest_steps, run).items():
            measures[label] |= {"learned": said.learned, "own": said.own, "other": said.other}
            judged[label] = (said.score, said.speak_against(self.exclusion_ratio))
        return judged

    def _in_words(self) -> str:
        shape = f"smaller groups below {self.largest_share:.0%} of their label"
        separated = f"{shape}, silhouette above {self.silhouette_bound:g} (the paper's bounds)"
        return {
            "size": f"{shape} (the paper's bound)",
            "silhouette": separated,
            "outstanding": f"{separated}, with an anomaly index above {OUTSTANDING:.2f} (the bound of SCAn)",
            "exclusion": f"{separated}, to which a network trained without them gives another label "
            f"{self.exclusion_ratio:g} times as often as their own",
            "distance": "smaller groups whose center is nearer to that of another label",
        }[self.decide]


def _by_distance(seen: Tensor, places: dict[int, Tensor], splits: dict[int, Split]) -> Judged:
    """By how much nearer a group's center is to that of another label's larger group than to that of its own."""
    centers = torch.stack([seen[where][~splits[label].small].mean(0) for label, where in places.items()])
    found: Judged = {}
    for row, (label, where) in enumerate(places.items()):
        if not splits[label].small.any() or len(places) < 2:
            found[label] = (0.0, False)
            continue
        distances = (centers - seen[where][splits[label].small].mean(0)).norm(dim=1)
        own, other = float(distances[row]), float(distances[torch.arange(len(distances)) != row].min())
        found[label] = (own / max(own + other, 1e-12), other < own)
    return found
