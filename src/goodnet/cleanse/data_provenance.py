"""Data provenance: a source whose labels no network confirms that has learned from the other sources."""

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._rules import FEWEST_SAMPLES, OUTSTANDING, findings, outstanding, places_of
from goodnet.cleanse._training import part_of, trained_anew
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.models.untrained import untrained
from goodnet.training import Recipe


@cleansers.register(
    Card(
        name="data-provenance",
        version=1,
        needs=Needs.TRAINING_SET | Needs.SOURCES | Needs.TRAINING,
        source="Baracaldo et al., Detecting Poisoning Attacks on Machine Learning in IoT Environments, 2018",
        summary="networks trained on some sources say which other source's labels nobody confirms",
        assumes=("few sources are poisoned", "labels of poison are wrong"),
        quick={"epochs": 1, "fewest_steps": 0},
    )
)
@dataclass(frozen=True, kw_only=True)
class DataProvenance(Cleanser):
    """Have the samples of each source judged by a network that has seen none of them.

    What it does: the sources are dealt into ``folds``; one network for each is trained on all other folds. For two
    folds that is the price of one training, whatever the number of sources. A sample is contradicted when the network
    that has not seen its source prefers another label; a source is flagged when its share of contradicted samples has
    an anomaly index above e^2 among the sources, and loses these samples. The score is how much another label is
    preferred, from 0 to 1, plus 1 in flagged sources.
    Needs: the training set with the source of each sample, five sources at least, the time of ``folds`` - 1 trainings.
    Limits: poison that comes from all folds is learned by every network and contradicted by none; clean-label poison
    is never contradicted. A source that is merely different, or worse labeled, looks the same as a poisoned one.
    Source: the question is that of Baracaldo, Chen, Ludwig, Safavi, Detecting Poisoning Attacks on Machine Learning in
    IoT Environments, 2018. Theirs leaves each source out in turn and compares accuracies on a quiz, which costs a
    training for each source and which a backdoor, that leaves accuracy alone, passes; the answer is ours.
    """

    folds: int = param(2, low=2, doc="groups of sources, each judged by a network trained on the others")
    epochs: int = param(10, low=1, doc="passes of each training")
    fewest_steps: int = param(1000, low=0, doc="more passes where these are fewer steps")
    learning_rate: float = param(1e-3, low=0.0, doc="of Adam, the highest of the schedule")
    batch_size: int = param(64, low=2, doc="images per step")
    architecture: str = param("small_cnn_bn", doc="the network that is trained; see goodnet list architectures")

    def _score(self, defender: Defender, run: Run) -> Scored:
        held = defender.training_set
        assert held is not None
        assert held.labels is not None
        assert held.sources is not None
        known, source = held.sources.unique(return_inverse=True)
        if len(known) < 2:
            raise NotHeld("data-provenance compares sources, and all samples come from one")
        folds = min(self.folds, len(known))
        dealt = torch.randperm(len(known), generator=run.generator) % folds
        logits = self._cross_fitted(held, dealt[source], folds, run)
        label = held.labels[:, None]
        others = logits.scatter(1, label, float("-inf")).max(1).values
        preferred = torch.sigmoid(others - logits.gather(1, label)[:, 0])
        contradicted = others > logits.gather(1, label)[:, 0]
        shares = {
            one: float(contradicted[source == one].float().mean())
            for one in range(len(known))
            if int((source == one).sum()) >= FEWEST_SAMPLES
        }
        flagged = [one for one, index in outstanding(shares, _error(shares, source)).items() if index > OUTSTANDING]
        in_flagged = torch.isin(source, torch.tensor(flagged, dtype=source.dtype))
        removed, places = in_flagged & contradicted, places_of(held.labels)
        return Scored(
            scores=preferred + in_flagged,
            removed=removed,
            rule="samples that are contradicted, of sources whose share of these has an anomaly index above "
            f"{OUTSTANDING:.2f} (the bound of SCAn)",
            per_class=findings(
                places, removed, {one: float(preferred[where].mean()) for one, where in places.items()}, {}
            ),
            counts={"images": len(held), "sources": len(known), "trainings": folds},
            evidence={
                "contradicted": {str(int(known[one])): share for one, share in shares.items()},
                "flagged_sources": [int(known[one]) for one in flagged],
            },
        )

    def _cross_fitted(self, held: Samples, fold: Tensor, folds: int, run: Run) -> Tensor:
        """Logits (N, K) of each sample by the network that has not seen its fold."""
        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        start = untrained(self.architecture, held, seed)
        logits = torch.empty(len(held), start.num_classes)
        for one in range(folds):
            rest = fold != one
            passes = max(self.epochs, self.fewest_steps * self.batch_size // max(int(rest.sum()), 1))
            recipe = Recipe(
                epochs=passes, learning_rate=self.learning_rate, optimizer="adam", batch_size=self.batch_size
            )
            trained = trained_anew(start, held.pick(rest), recipe, part_of(run, one, folds), seed=seed)
            logits[~rest] = predictions(trained, held.images[~rest])
        return logits


def _error(shares: dict[int, float], source: Tensor) -> float:
    """Standard error of the share of a usual source."""
    if not shares:
        return 0.0
    count = statistics.median(int((source == one).sum()) for one in shares)
    usual = min(max(statistics.median(shares.values()), 1 / count), 0.5)
    return float((usual * (1 - usual) / count) ** 0.5)
