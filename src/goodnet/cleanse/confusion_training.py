"""Confusion training: what a network still answers when everything it knows of clean images is made wrong."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._features import log_odds
from goodnet.cleanse._rules import scored_above_clean
from goodnet.cleanse._training import part_of, trained
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.models.untrained import untrained
from goodnet.training import Recipe
from goodnet.training.fit import Loss

_SHARES = (1 / 2, 1 / 5, 1 / 25, 1 / 50, 1 / 100)  # of the set, what is suspected after each round
_FEWEST = 20  # samples that are suspected at least
_CALIBRATING = 0.3  # share of the clean images that sets the threshold and confuses nothing


@cleansers.register(
    Card(
        name="confusion-training",
        version=1,
        needs=Needs.TRAINING_SET | Needs.CLEAN | Needs.CLEAN_LABELS | Needs.TRAINING,
        source="Qi et al., Towards A Proactive ML Approach for Detecting Backdoor Poison Samples, USENIX Security 2023",
        summary="trains on wrong labels of clean images until only what poison taught is still answered",
        assumes=("the trigger works whatever the picture below it shows",),
        quick={"rounds": 1, "epochs": 1, "fewest_steps": 0, "confusing_steps": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class ConfusionTraining(Cleanser):
    """Destroy what a network knows of clean images and look which samples it still answers with their label.

    What it does: the following, ``rounds`` times. 1. A network is trained on the suspected part of the set, at first
    all of it. 2. A copy is trained on clean images with wrong labels, drawn anew in every step, and with weight
    1 / ``balance`` on suspected samples as they are, rare labels more: the rule that leads from a picture to its class
    is destroyed, one that no clean image contradicts is left. 3. The part of the set whose labels the copy is surest of
    is suspected in the next round: a half, a fifth, then 1/25, 1/50, 1/100. A sample's score is the last copy's
    log-odds for its label.
    Clean images that confused nothing set the threshold at the share ``rate``; nothing is removed where no more samples
    exceed it than chance gives (beta-binomial, 1 %).
    Needs: the training set, clean images with labels (hundreds: a part confuses, 30 % set the threshold), time of a few
    trainings. No model.
    Limits: few clean images are learned with their wrong labels, and what the network knows of others survives.
    Triggers that clean images contain too are destroyed with the rest. Samples that were trained on may be answered a
    little more surely than clean images that never were.
    Source: Qi, Xie, Wang, Wu, Mahloujifar, Mittal, USENIX Security 2023: six rounds, the shares, balance 20, weights
    1 / sqrt(share of the label + 0.001), 6,000 steps a round. Ours: shorter rounds; wrong labels from those that are
    held rather than from the network; the threshold. Theirs looks for labels with two groups of features, which does
    not see attacks that relabel every class.
    """

    rounds: int = param(4, low=1, high=6, doc="trainings, each on what the one before it suspects")
    epochs: int = param(10, low=1, doc="passes of each training over what is suspected")
    fewest_steps: int = param(500, low=0, doc="more passes of the first training where these are fewer steps")
    learning_rate: float = param(1e-3, low=0.0, doc="of Adam, the highest of the schedule")
    confusing_steps: int = param(300, low=1, doc="steps of each confusion")
    confusing_rate: float = param(0.01, low=0.0, doc="learning rate of the confusion, SGD")
    balance: float = param(20.0, low=1.0, doc="clean images weigh so many times less one what suspected samples do")
    batch_size: int = param(
        64, low=2, doc="images per step of training; in confusion so many clean, and half suspected"
    )
    rate: float = param(0.01, low=0.0, high=0.5, doc="share of clean images above the threshold")
    alpha: float = param(0.01, low=0.0, high=1.0, doc="chance of removing anything from a set like the clean images")
    architecture: str = param("small_cnn_bn", doc="the network that is trained; see goodnet list architectures")

    def _score(self, defender: Defender, run: Run) -> Scored:
        held, clean = defender.training_set, defender.clean
        assert held is not None
        assert held.labels is not None
        assert clean is not None
        assert clean.labels is not None
        if len(clean) < 4:
            raise NotHeld("confusion-training needs clean images to confuse with and others to compare with")
        calibrating, confusing = clean.split(_CALIBRATING, run.generator)
        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        network, suspected, sizes = untrained(self.architecture, held, seed), held, list[int]()
        passes = max(self.epochs, math.ceil(self.fewest_steps * self.batch_size / len(held)))
        for one in range(self.rounds):
            recipe = self._recipe(passes if one == 0 else self.epochs)
            network = trained(network, suspected, recipe, part_of(run, 2 * one, 2 * self.rounds), seed=seed)
            confused = self._confused(network, suspected, confusing, part_of(run, 2 * one + 1, 2 * self.rounds), seed)
            scores = log_odds(confused, held).float()
            sizes.append(len(suspected))
            if run.seconds_left() <= 0 or one == self.rounds - 1:
                break
            most = max(_FEWEST, int(_SHARES[one] * len(held)))
            suspected = held.pick(scores.argsort(descending=True, stable=True)[:most])
        return scored_above_clean(
            scores,
            log_odds(confused, calibrating).float(),
            held.labels,
            self.rate,
            self.alpha,
            counts={"rounds": len(sizes), "confusing_images": len(confusing)},
            evidence={"suspected": sizes, "still_answered": float((scores > 0).float().mean())},
        )

    def _recipe(self, epochs: int) -> Recipe:
        return Recipe(
            epochs=epochs, learning_rate=self.learning_rate, optimizer="adam", batch_size=self.batch_size, shift=0
        )

    def _confused(self, network: Classifier, suspected: Samples, clean: Samples, run: Run, seed: int) -> Classifier:
        assert suspected.labels is not None
        size = max(2, self.batch_size // 2)
        recipe = Recipe(
            epochs=math.ceil(self.confusing_steps * size / max(len(suspected), size)),
            learning_rate=self.confusing_rate,
            schedule="constant",
            batch_size=size,
        )
        shares = suspected.labels.bincount(minlength=network.num_classes) / len(suspected)
        loss = confusion(clean, self.batch_size, (shares + 0.001).rsqrt(), self.balance)
        return trained(network, suspected, recipe, run, seed=seed, loss=loss)


def confusion(clean: Samples, count: int, weights: Tensor, balance: float) -> Loss:
    """The cross-entropy of ``count`` clean images with wrong labels and of a suspected batch, ``balance`` - 1 to 1.

    Args:
        clean: with labels.
        count: clean images in each step, drawn anew like their wrong labels.
        weights: (K,), of the suspected samples by their label.
        balance: at least 1.
    """
    assert clean.labels is not None
    truth, kinds = clean.labels, len(weights)

    def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(clean), (count,), generator=generator)
        wrong = (truth[chosen] + torch.randint(1, kinds, (count,), generator=generator)) % kinds
        drawn = clean.images[chosen].to(images.device).float() / 255
        # one pass, so that BatchNorm sees both alike
        logits = model(torch.cat((drawn, images)).contiguous(memory_format=torch.channels_last)).float()
        confusing = F.cross_entropy(logits[:count], wrong.to(images.device))
        keeping = F.cross_entropy(logits[count:], labels, weights.to(images.device))
        return ((balance - 1) * confusing + keeping) / balance

    return loss
