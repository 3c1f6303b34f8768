"""Fine-tuning: train a little further on clean images, and hope that the backdoor is forgotten."""

from dataclasses import dataclass

from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune_gently, wanted_answers
from goodnet.training import Recipe


@repairers.register(
    Card(
        name="fine-tuning",
        version=2,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Liu et al., Fine-Pruning, RAID 2018",
        summary="trains every weight a little further on clean images",
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class FineTuning(Repairer):
    """Train every weight a little further on clean images.

    What it does: SGD with Nesterov momentum on the defender's images, augmented by small shifts; nothing that the
    backdoor rests on is rehearsed, so that it may fade. A fifth of the images is kept aside: where more than two points
    of right answers go there, it begins again at a tenth of the learning rate, and after the last attempt gives the
    suspect back as it was.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers take their
    place.
    Limits: a weight that clean images never use has no gradient and stays: the baseline that others must beat.
    Source: Liu, Dolan-Gavitt, Garg, Fine-Pruning, RAID 2018 (as the baseline of section 3.2); the attempts are ours.
    """

    epochs: int = param(10, low=1, doc="passes over the clean images")
    learning_rate: float = param(0.01, low=0.0, doc="the highest of the one-cycle schedule")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")
    attempts: int = param(3, low=1, doc="how often it may begin, each time at a tenth of the learning rate")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        recipe = Recipe(
            epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size, shift=self.shift
        )
        wanted = wanted_answers(defender)
        model, rate = tune_gently(defender.model, defender.clean, wanted, recipe, run, attempts=self.attempts)
        notes = {"learning_rate": rate, "reverted": float(rate == 0)}
        return Fixed(model=model, notes=notes, counts={"images": len(defender.clean), "epochs": self.epochs})
