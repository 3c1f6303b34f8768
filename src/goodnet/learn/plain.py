"""Plain training: the recipe on everything, as nobody does who knows that the set is poisoned."""

from dataclasses import dataclass

from goodnet.core.defender import Defender
from goodnet.core.registry import Card
from goodnet.core.run import Run
from goodnet.learn._base import LEARNS, Learner, Taught, learners
from goodnet.learn._training import train


@learners.register(
    Card(
        name="plain",
        version=1,
        needs=LEARNS,
        source="no defense",
        summary="trains on everything: what no defense gives, to compare the others with",
        known_failures={"planted_world": "it defends against nothing"},
    )
)
@dataclass(frozen=True, kw_only=True)
class Plain(Learner):
    """Train on the whole set.

    What it does: the recipe, on every sample with the label that it has.
    Needs: the training set.
    Limits: a backdoor is learned like everything else. This is the row that every other learner is compared with.
    Source: none.
    """

    def _learn(self, defender: Defender, run: Run) -> Taught:
        assert defender.model is not None
        assert defender.training_set is not None
        held = defender.training_set
        trained = train(defender.model, held, self.recipe, run)
        return Taught(model=trained, counts={"images": len(held), "epochs": self.recipe.epochs})
