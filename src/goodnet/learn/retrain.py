"""Retraining: cleanse the training set, then train on what is kept."""

from dataclasses import dataclass

from goodnet.cleanse._base import cleansers
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.learn._base import LEARNS, Learner, Taught, learners
from goodnet.learn._cleansing import cleanse, seen_by
from goodnet.learn._training import train


@learners.register(
    Card(
        name="retrain",
        version=1,
        needs=LEARNS,
        uses=Needs.CLEAN | Needs.CLEAN_LABELS | Needs.SOURCES,
        source="Chen et al., Activation Clustering, SafeAI 2019; Tran et al., Spectral Signatures, NeurIPS 2018",
        summary="cleanses the set with any cleanser, then trains anew on what is kept",
        quick={"cleanser": "spectral-signatures"},
    )
)
@dataclass(frozen=True, kw_only=True)
class Retrain(Learner):
    """Train on everything, take out what a cleanser finds in that, and train anew on the rest.

    What it does: where the cleanser looks into a network, one is trained on the whole set first; a second one, with
    fresh weights, then on what the cleanser keeps. Of a label of which nothing would be kept, everything is.
    Needs: the training set; whatever the cleanser needs beside it.
    Limits: those of the cleanser: a few percent of the poison that it leaves is often enough for the backdoor, and what
    it takes out wrongly is missing. With a cleanser that looks into a network it costs two trainings.
    Source: what papers on cleansing do after it: Chen et al., SafeAI 2019; Tran et al., NeurIPS 2018.
    """

    cleanser: str = param("activation-clustering", doc="the name of a cleanser; see goodnet list cleansers")

    def _learn(self, defender: Defender, run: Run) -> Taught:
        assert defender.model is not None
        assert defender.training_set is not None
        held, cleanser = defender.training_set, cleansers[self.cleanser]()
        shown = seen_by(cleanser, defender.model, defender, self.recipe, run, span=(0.0, 0.4))
        kept = cleanse(cleanser, shown, run, span=(0.4, 0.6))
        trained = train(defender.model, held.pick(kept.keep), self.recipe, run, span=(0.6, 1.0))
        removed = int((~kept.keep).sum())
        return Taught(
            model=trained,
            notes={"removed": removed},
            distrusted=~kept.keep,
            counts={"images": len(held), "kept": len(held) - removed},
            evidence={"rule": kept.rule},
        )
