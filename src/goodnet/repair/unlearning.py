"""Unlearning: show the suspect its reconstructed triggers once more, this time with the right answers."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import share_right, tune, wanted_answers
from goodnet.training import Recipe

_HARMLESS = 0.02  # share of right answers that may go without another attempt


@repairers.register(
    Card(
        name="unlearning",
        version=2,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN | Needs.TRIGGERS,
        uses=Needs.CLEAN_LABELS,
        source="Wang et al., Neural Cleanse, IEEE S&P 2019, section VI.D",
        summary="trains on clean images, a fifth of them with a reconstructed trigger and the right answer",
        assumes=("reconstructed triggers work like the attacker's",),
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Unlearning(Repairer):
    """Teach the suspect that its reconstructed triggers mean nothing.

    What it does: one epoch on the defender's images; a fifth of every batch carries one of the triggers and keeps the
    answer that it has without. Images of a trigger's own target class do not get that trigger: with it they would
    teach that the trigger means the target. Several triggers are unlearned at a time; they share the fifth. Triggers
    are stamped after the random shifts, so that they stay where they were found. Where that costs more than two points
    of right answers on these very images, it is done again from the start at a tenth of the learning rate, and again;
    the attempt with the most right answers beyond what the triggers still turn is taken.
    Needs: the model with gradients, triggers from an audit, clean images; without labels the suspect's own answers on
    the unstamped images take their place.
    Limits: what is unlearned is the reconstruction; an attacker's trigger that looks otherwise to the network may
    survive. The paper takes a tenth of the training set; here it is all that the defender holds.
    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, section VI.D. Shifts, schedule and further attempts are ours;
    0 turns shifts off, and 1 the attempts.
    """

    epochs: int = param(1, low=1, doc="passes over the clean images")
    share: float = param(0.2, low=0.0, high=1.0, doc="share of every batch that carries a trigger")
    learning_rate: float = param(0.01, low=0.0, doc="the highest of the one-cycle schedule")
    batch_size: int = param(32, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")
    attempts: int = param(3, low=1, doc="how often it may begin, each time at a tenth of the learning rate")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        assert defender.model is not None
        assert defender.clean is not None
        assert defender.triggers is not None
        triggers = defender.triggers

        def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
            answers = wanted if wanted.ndim == 1 else wanted.argmax(1)
            seen = stamp_share(images, answers, triggers, self.share, generator)
            return F.cross_entropy(model(seen).float(), wanted)

        wanted = wanted_answers(defender)
        enough, best = share_right(defender.model, defender.clean.images, wanted) - _HARMLESS, -1.0
        for attempt in range(self.attempts):
            recipe = Recipe(
                epochs=self.epochs,
                learning_rate=self.learning_rate / 10**attempt,
                batch_size=self.batch_size,
                shift=self.shift,
            )
            tuned = tune(defender.model, defender.clean, wanted, recipe, run, loss=loss)
            right = share_right(tuned, defender.clean.images, wanted)
            worth = right - _success(tuned, defender.clean, triggers)
            if attempt == 0 or worth > best:
                model, rate, best = tuned, recipe.learning_rate, worth
            if right >= enough or run.seconds_left() < 0:
                break
        counts = {"images": len(defender.clean), "epochs": self.epochs * (attempt + 1), "triggers": len(triggers)}
        return Fixed(model=model, notes={"learning_rate": rate}, counts=counts)


def _success(model: Classifier, clean: Samples, triggers: tuple[Trigger, ...]) -> float:
    """The largest share of ``clean`` that one of the triggers turns, of the images that are not its target's bare."""
    shares, bare = [0.0], predictions(model, clean.images).argmax(1)
    for trigger in triggers:
        victims = clean.pick(bare != trigger.target)
        if len(victims):
            turned = predictions(model, trigger.stamp(victims.floats())).argmax(1) == trigger.target
            shares.append(float(turned.double().mean()))
    return max(shares)


def stamp_share(
    images: Tensor, answers: Tensor, triggers: tuple[Trigger, ...], share: float, generator: torch.Generator
) -> Tensor:
    """``images`` (N, C, H, W), of which ``share``, rounded up, carry one of the ``triggers``, each by chance.

    Where the right answer (N,) is the trigger's own target the image stays as it is.
    """
    which = torch.randint(len(triggers), (len(images),), generator=generator)
    targets = torch.tensor([trigger.target for trigger in triggers])[which]
    victims = (targets != answers.cpu()).nonzero().flatten()
    count = math.ceil(share * len(images) - 1e-9)  # 0.2 * 30 is a little more than 6 in binary
    chosen = victims[torch.randperm(len(victims), generator=generator)[:count]]
    stamped = images.clone()
    for place, trigger in enumerate(triggers):
        rows = chosen[which[chosen] == place].to(images.device)
        stamped[rows] = trigger.stamp(images[rows])
    return stamped
