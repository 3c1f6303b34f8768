"""Loss isolation: backdoors are learned before anything else, so that their samples have the smallest losses."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._features import log_odds
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of
from goodnet.cleanse._training import trained_anew
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.models.untrained import untrained
from goodnet.training import Recipe
from goodnet.training.fit import Loss

_SHALLOW, _DEEP = 0.25, 0.95  # quantiles of a label: ordinary up to 3/4 of poison, poison from a twentieth on
_FAR = -30.0  # below this log-odds the loss is their exponential, to thirteen digits


@cleansers.register(
    Card(
        name="loss-isolation",
        version=2,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Li et al., Anti-Backdoor Learning: Training Clean Models on Poisoned Data, NeurIPS 2021",
        summary="trains a short time with local gradient ascent; what has the smallest loss then is suspicious",
        assumes=("the backdoor is learned fast",),
        known_failures={
            "planted_world": "digits are learned as fast as the trigger, which one seed of eight ranks first"
        },
        quick={"epochs": 1, "fewest_steps": 0},
    )
)
@dataclass(frozen=True, kw_only=True)
class LossIsolation(Cleanser):
    """Train a fresh network for few epochs in such a way that only what is learned very fast gets a small loss.

    What it does: a network is trained with local gradient ascent: the loss of a batch is minimized above ``gamma`` and
    maximized below, so that ordinary samples stay around it; those of a backdoor slip below. A sample's depth, its
    score, is minus the logarithm of its loss without augmentation, mean over the later half of the epochs: from one
    epoch to the next the ascent moves whole labels up and down. A label stands out when its deepest twentieth begins so
    far below its shallowest quarter that this distance has an anomaly index above e^2 among the labels; of these labels
    the samples go that are among the ``share`` deepest of the whole set. So a clean set loses nothing, or ``share`` at
    most; and nothing goes where half of the losses exceed that of a guess, log K: then nothing was learned.
    Needs: the training set, and the time of a short training. No model: a fully trained one fits everything.
    Limits: attacks that are learned slowly (SIG, adaptive blends, low shares) have ordinary losses. It isolates few
    samples surely, enough to unlearn with; it is not meant to find all. With fewer than five labels nothing stands out.
    Source: Li et al., Anti-Backdoor Learning, NeurIPS 2021: gamma and share, and a rate of 0.1 in batches of 128 for
    thousands of steps, which is for residual networks and 50,000 images: the small network here diverges at it, and
    small sets make too few steps. The mean over epochs, and which labels, is ours, with the bound of SCAn.
    """

    gamma: float = param(0.5, low=0.0, doc="loss around which ordinary samples are kept")
    share: float = param(0.01, low=0.0, high=1.0, doc="of the set, at most so much is isolated")
    epochs: int = param(10, low=1, doc="passes over the training set")
    fewest_steps: int = param(1000, low=0, doc="more passes where these are fewer steps")
    learning_rate: float = param(0.01, low=0.0, doc="constant; the paper's 0.1 is for residual networks")
    batch_size: int = param(64, low=2, doc="images per step")
    architecture: str = param("small_cnn_bn", doc="the network that is trained; see goodnet list architectures")

    def _score(self, defender: Defender, run: Run) -> Scored:
        held = defender.training_set
        assert held is not None
        assert held.labels is not None
        epochs = max(self.epochs, math.ceil(self.fewest_steps * self.batch_size / len(held)))
        losses = self._log_losses(held, epochs, run)
        depth, places = -losses.mean(0), places_of(held.labels)
        learned = float(losses[-1].median()) < math.log(math.log(max(2, len(held.labels.unique()))))
        reach = {label: _reach(depth[where]) for label, where in places.items()}
        indices = outstanding(reach)
        isolated = lowest(-depth, int(self.share * len(held)))
        removed = torch.zeros_like(isolated)
        for label, where in places.items():
            removed[where] = isolated[where] & (indices[label] > OUTSTANDING) & learned
        return Scored(
            scores=depth,
            removed=removed,
            rule=f"the {self.share:.0%} with the smallest losses, of labels with an anomaly index above "
            f"{OUTSTANDING:.2f} (the bound of SCAn)"
            if learned
            else "nothing: the network learned nothing, half of its losses exceed that of a guess; lower learning_rate",
            per_class=findings(
                places,
                removed,
                indices,
                {
                    label: {"isolated": float(isolated[where].sum()), "reach": reach[label]}
                    for label, where in places.items()
                },
            ),
            counts={"images": len(held), "epochs": len(losses)},
            evidence={"median_log_loss": float(losses[-1].median())},
        )

    def _log_losses(self, held: Samples, epochs: int, run: Run) -> Tensor:
        """Logarithms of the losses (epochs, N) after each epoch of the later half."""
        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        start = untrained(self.architecture, held, seed)
        recipe = isolation_recipe(epochs, self.learning_rate, self.batch_size)
        seen = list[Tensor]()
        trained_anew(
            start,
            held,
            recipe,
            run,
            seed=seed,
            loss=local_gradient_ascent(self.gamma),
            watch=lambda model: seen.append(log_losses_of(model, held)),
        )
        return torch.stack(seen[len(seen) // 2 :])


def _reach(depth: Tensor) -> float:
    """How far the deepest of a label lie below its ordinary samples: e-foldings of the loss."""
    return float(depth.quantile(_DEEP) - depth.quantile(_SHALLOW))


def isolation_recipe(epochs: int, learning_rate: float, batch_size: int) -> Recipe:
    """How a network is trained whose losses tell poison: constant rate, no augmentation."""
    return Recipe(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, schedule="constant", weight_decay=1e-4
    )


def losses_of(model: Classifier, samples: Samples) -> Tensor:
    """The cross-entropy, float64 (N,), of each sample with its label, as it is, without augmentation."""
    return log_losses_of(model, samples).exp()


def log_losses_of(model: Classifier, samples: Samples) -> Tensor:
    """The logarithm of it, which tells losses apart that are 0 in float32: those below 1e-7, half of a learned set."""
    odds = -log_odds(model, samples)
    return torch.where(odds < _FAR, odds, F.softplus(odds, threshold=100.0).log())


def lowest(losses: Tensor, count: int) -> Tensor:
    """bool (N,): the ``count`` smallest losses; of equal ones, as the same image twice has, those that come first."""
    chosen = torch.zeros(len(losses), dtype=torch.bool)
    chosen[losses.argsort(stable=True)[:count]] = True
    return chosen


def local_gradient_ascent(gamma: float) -> Loss:
    """Cross-entropy that is minimized above ``gamma`` and maximized below it."""

    def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        value = F.cross_entropy(model(images).float(), labels)
        return torch.sign(value.detach() - gamma) * value

    return loss


def flooding(level: float) -> Loss:
    """Cross-entropy that is kept from falling below ``level``: |loss - level| + level (Ishida et al., ICML 2020)."""

    def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return (F.cross_entropy(model(images).float(), labels) - level).abs() + level

    return loss
