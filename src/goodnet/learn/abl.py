"""Anti-Backdoor Learning: isolate what is learned first, train on the rest, unlearn what was isolated."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from goodnet.cleanse.loss_isolation import flooding, isolation_recipe, local_gradient_ascent, losses_of, lowest
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card
from goodnet.core.run import Run
from goodnet.learn._ascent import unlearn, watched_places
from goodnet.learn._base import LEARNS, Learner, Taught, learners
from goodnet.learn._curves import loss_curves
from goodnet.learn._training import part_of, train

_ISOLATION_ENDS, _TRAINING_ENDS = 0.4, 0.9  # shares of a run


@learners.register(
    Card(
        name="abl",
        version=1,
        needs=LEARNS,
        source="Li et al., Anti-Backdoor Learning: Training Clean Models on Poisoned Data, NeurIPS 2021",
        summary="isolates what is learned first, trains on the rest, and unlearns what was isolated",
        assumes=("the backdoor is learned fast",),
        known_failures={
            "planted_world": "the bundled digits are a fiftieth of the images that its passes are made for: a part of "
            "what it isolates is poison, and noise in the few watched images ends the ascent"
        },
        quick={"isolation_epochs": 1, "steps": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class Abl(Learner):
    """Isolate the samples that are learned first, train on all others, then unlearn the isolated ones with care.

    What it does: 1. A network is trained with local gradient ascent (losses pushed back up to ``gamma``), or flooding;
    the ``share`` of the set with the smallest losses then, measured without augmentation, is isolated. 2. It is trained
    further on the rest by the recipe, augmentation included. 3. The loss of the isolated samples is driven up, each at
    most to that of a guess, step by step, until kept samples are answered worse: that step is taken back, and it is
    over. Damage is looked for where poison is unlikely; see ``watched_places``.
    Needs: the training set. Nothing clean.
    Limits: attacks that are learned as slowly as everything else (SIG, adaptive blends, few poisoned images) are not
    isolated. Where poison has all labels alike (all-to-all), kept poison is watched as well and ends the ascent at
    once. ``isolation_epochs`` are those of 50,000 images. Of a clean set ``share`` is isolated all the same, and a
    little accuracy may be lost. ``share`` of a source-specific attack may be ordinary images of an easy label.
    Source: Li et al., NeurIPS 2021: gamma 0.5, 20 epochs, 1 %, ascent at 5e-4 for 80 steps, as 20 epochs of 500 images
    are. Ours: growing steps, the clipped loss, BatchNorm that keeps its statistics, and the step that is taken back;
    without them ABL loses more than 10 points in two of three cells of a public leaderboard.
    """

    isolation: Literal["ascent", "flooding"] = param(
        "ascent", choices=("ascent", "flooding"), doc="how ordinary losses are kept from getting small"
    )
    gamma: float = param(0.5, low=0.0, doc="loss around which ordinary samples are kept")
    share: float = param(0.01, low=0.0, high=0.5, doc="of the set, so much is isolated")
    isolation_epochs: int = param(20, low=1, doc="passes over the set before isolation")
    isolation_rate: float = param(0.1, low=0.0, doc="learning rate of these passes, constant")
    batch_size: int = param(128, low=2, doc="images per step of isolation and ascent")
    steps: int = param(80, low=0, doc="at most so many steps of ascent")
    unlearning_rate: float = param(5e-4, low=0.0, doc="learning rate of the first step of ascent")
    growth: float = param(1.1, low=1.0, high=2.0, doc="how much longer each step is than the one before; 1: the paper")
    most_damage: float = param(0.01, low=0.0, high=1.0, doc="accuracy on kept samples that the ascent may cost")
    watched: int = param(500, low=1, doc="about so many kept samples are looked at after each step")

    def _learn(self, defender: Defender, run: Run) -> Taught:
        assert defender.model is not None
        assert defender.training_set is not None
        held = defender.training_set
        assert held.labels is not None
        start, losses = self._isolating(defender, run)
        last = losses[-1]
        isolated = lowest(last, max(1, round(self.share * len(held))))
        trained = train(start, held.pick(~isolated), self.recipe, run, span=(_ISOLATION_ENDS, _TRAINING_ENDS))
        watched = watched_places(held.labels, last, isolated, self.watched, run.generator)
        ascent = unlearn(
            trained,
            held.pick(isolated),
            held.pick(watched),
            run,
            steps=self.steps,
            learning_rate=self.unlearning_rate,
            growth=self.growth,
            batch_size=self.batch_size,
            most_damage=self.most_damage,
            progress=part_of(run.progress, (_TRAINING_ENDS, 1.0)),
        )
        return Taught(
            model=ascent.model,
            notes={
                "isolated": int(isolated.sum()),
                "unlearning_steps": ascent.steps,
                "remembered_before": ascent.remembered[0],
                "remembered_after": ascent.remembered[1],
                "watched_accuracy_before": ascent.accuracy[0],
                "watched_accuracy_after": ascent.accuracy[1],
            },
            distrusted=isolated,
            losses=losses,
            counts={"images": len(held), "watched": len(watched), "epochs": self.isolation_epochs + self.recipe.epochs},
            evidence={
                "loss_curves": loss_curves(losses, isolated),
                "isolated_labels": held.labels[isolated].bincount(minlength=defender.model.num_classes).tolist(),
                "stopped_by_damage": ascent.damaged,
            },
        )

    def _isolating(self, defender: Defender, run: Run) -> tuple[Classifier, Tensor]:
        """The network of the first stage, and the losses (epochs, N) of all samples after each of its epochs."""
        assert defender.model is not None
        assert defender.training_set is not None
        held, seen = defender.training_set, []
        loss = local_gradient_ascent(self.gamma) if self.isolation == "ascent" else flooding(self.gamma)
        trained = train(
            defender.model,
            held,
            isolation_recipe(self.isolation_epochs, self.isolation_rate, self.batch_size),
            run,
            loss=loss,
            watch=lambda model: seen.append(losses_of(model, held)),
            span=(0.0, _ISOLATION_ENDS),
        )
        return trained, torch.stack(seen)
