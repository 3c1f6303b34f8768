"""Loss isolation: backdoors are learned before anything else, so that their samples have the smallest losses."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._rules import OUTSTANDING, findings, outstanding, places_of, robust_z
from goodnet.cleanse._training import trained_anew
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.models.untrained import untrained
from goodnet.training import Recipe
from goodnet.training.fit import Loss


@cleansers.register(
    Card(
        name="loss-isolation",
        version=1,
        needs=Needs.TRAINING_SET | Needs.TRAINING,
        source="Li et al., Anti-Backdoor Learning: Training Clean Models on Poisoned Data, NeurIPS 2021",
        summary="trains a short time with local gradient ascent; what has the smallest loss then is suspicious",
        assumes=("the backdoor is learned fast",),
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class LossIsolation(Cleanser):
    """Train a fresh network for few epochs in such a way that only what is learned very fast gets a small loss.

    What it does: a network is trained with local gradient ascent: the loss of a batch is minimized above ``gamma`` and
    maximized below, so that ordinary samples stay around it; those of a backdoor slip below. A sample's score is minus
    its loss at the end, without augmentation. A label stands out when the losses of its samples reach so far below
    their median that its anomaly index among the labels exceeds e^2; of these labels the samples go that are among the
    ``share`` with the smallest losses of the whole set. So a clean set loses nothing, or ``share`` at most.
    Needs: the training set, and the time of a short training. No model: a fully trained one fits everything.
    Limits: attacks that are learned slowly (SIG, adaptive blends, low shares) have ordinary losses. It isolates few
    samples surely, enough to unlearn with; it is not meant to find all. With fewer than five labels nothing stands out.
    The passes are those of 50,000 images: on a set of a tenth nothing is learned yet, and ``epochs`` must be raised.
    Source: Li et al., Anti-Backdoor Learning, NeurIPS 2021: gamma, share, and the recipe; which labels is ours, with
    the bound of SCAn.
    """

    gamma: float = param(0.5, low=0.0, doc="loss around which ordinary samples are kept")
    share: float = param(0.01, low=0.0, high=1.0, doc="of the set, at most so much is isolated")
    epochs: int = param(10, low=1, doc="passes over the training set")
    learning_rate: float = param(0.1, low=0.0, doc="constant")
    batch_size: int = param(128, low=2, doc="images per step")
    architecture: str = param("small_cnn_bn", doc="the network that is trained; see goodnet list architectures")

    def _score(self, defender: Defender, run: Run) -> Scored:
        held = defender.training_set
        assert held is not None
        assert held.labels is not None
        seed = int(torch.randint(2**31, (1,), generator=run.generator))
        start = untrained(self.architecture, held, seed)
        recipe = isolation_recipe(self.epochs, self.learning_rate, self.batch_size)
        trained = trained_anew(start, held, recipe, run, seed=seed, loss=local_gradient_ascent(self.gamma))
        losses = losses_of(trained, held)
        # the smallest float32 loss is 0, and a logarithm is wanted: what is far below the usual loss of a label
        depth, places = -losses.clamp_min(1e-8).log(), places_of(held.labels)
        indices = outstanding(
            {label: float(robust_z(depth[where]).clamp_min(0).square().mean()) for label, where in places.items()}
        )
        isolated = lowest(losses, int(self.share * len(held)))
        removed = torch.zeros_like(isolated)
        for label, where in places.items():
            removed[where] = isolated[where] & (indices[label] > OUTSTANDING)
        return Scored(
            scores=-losses,
            removed=removed,
            rule=f"the {self.share:.0%} with the smallest losses, of labels with an anomaly index above "
            f"{OUTSTANDING:.2f} (the bound of SCAn)",
            per_class=findings(
                places,
                removed,
                indices,
                {label: {"isolated": float(isolated[where].sum())} for label, where in places.items()},
            ),
            counts={"images": len(held), "epochs": self.epochs},
            evidence={"median_loss": float(losses.median())},
        )


def isolation_recipe(epochs: int, learning_rate: float, batch_size: int) -> Recipe:
    """How a network is trained whose losses tell poison: constant rate, no augmentation."""
    return Recipe(
        epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, schedule="constant", weight_decay=1e-4
    )


def losses_of(model: Classifier, samples: Samples) -> Tensor:
    """The cross-entropy (N,) of each sample with its label, as it is, without augmentation."""
    assert samples.labels is not None
    return F.cross_entropy(predictions(model, samples.images), samples.labels, reduction="none")


def lowest(losses: Tensor, count: int) -> Tensor:
    """bool (N,): the ``count`` smallest losses; of equal ones those that come first."""
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
