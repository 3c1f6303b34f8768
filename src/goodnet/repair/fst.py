"""Feature shift tuning: a new last layer that is pushed away from the old one, so that the features must move."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import tune, wanted_answers
from goodnet.training import Recipe
from goodnet.training.fit import Loss


@repairers.register(
    Card(
        name="fst",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Min et al., Towards Stable Backdoor Purification through Feature Shift Tuning, NeurIPS 2023",
        summary="fine-tunes with a new last layer that is kept away from the old one",
        assumes=("a linear last layer",),
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Fst(Repairer):
    """Fine-tune with a last layer that starts anew and is kept away from the old one.

    What it does: the last linear layer gets fresh weights W; every weight is trained to minimize cross-entropy plus
    ``alpha`` times the inner product of W and the old W, in units of the old W's squared norm; after every step W is
    scaled back to the old norm, without which the product could be lowered for ever. Features that the old W read as
    the target are read so no longer.
    Needs: the model with gradients, a linear last layer, clean images; without labels the model's own answers.
    Limits: the last layer is learned from the clean images alone, so that a class with few of them suffers; with very
    many classes ``alpha`` must be near 0.
    Source: Min, Qin, Shen, Cheng, Towards Stable Backdoor Purification through Feature Shift Tuning, NeurIPS 2023. Its
    alpha (0.1) multiplies the bare product, which the size of W scales: squared norms of 13 to 700 among five networks.
    Ours is theirs times that squared norm, so that one value suits them all.
    """

    alpha: float = param(1.0, low=0.0, doc="how hard the last layer is pushed away from the old one")
    epochs: int = param(10, low=1, doc="passes over the clean images")
    learning_rate: float = param(0.01, low=0.0, doc="where the cosine schedule begins")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        head = model.head()
        if head is None:
            raise NotApplicable("fst renews the last linear layer, and this network does not end in one")
        wanted = wanted_answers(defender)  # without labels these are the suspect's answers: before its head is gone
        name = next(name for name, module in model.named_modules() if module is head)
        old = head.weight.detach().clone()
        start_anew(head, run.generator)
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            schedule="cosine",
            shift=self.shift,
        )
        tuned = tune(model, clean, wanted, recipe, run, loss=shifting_loss(name, old, self.alpha))
        new = _head(tuned, name)
        rescale(new, old)  # after the last step, which no loss follows
        cosine = F.cosine_similarity(new.weight.detach().flatten(), old.flatten(), dim=0)
        return Fixed(
            model=tuned,
            notes={"head_cosine": float(cosine)},
            counts={"images": len(clean), "epochs": self.epochs},
        )


def start_anew(layer: nn.Linear, generator: torch.Generator) -> None:
    """Weights and biases of a new layer: uniform in +-1/sqrt(inputs), as the paper's code and torch have it."""
    bound = layer.in_features**-0.5
    with torch.no_grad():
        for values in layer.parameters():
            values.copy_(torch.empty(values.shape).uniform_(-bound, bound, generator=generator))


def rescale(layer: nn.Linear, old: Tensor) -> None:
    """Give the layer's weights the norm of the old ones."""
    with torch.no_grad():
        layer.weight.mul_(old.norm() / layer.weight.norm().clamp_min(1e-12))


def shifting_loss(name: str, old: Tensor, alpha: float) -> Loss:
    """Cross-entropy plus ``alpha`` <W, old> / <old, old>, for the model whose last layer, W, goes by ``name``."""
    direction = old / old.square().sum().clamp_min(1e-12)

    def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        head = _head(model, name)
        rescale(head, old)  # before this step is after the last one: every step is taken from the old norm
        return F.cross_entropy(model(images).float(), wanted) + alpha * (head.weight * direction).sum()

    return loss


def _head(model: Classifier, name: str) -> nn.Linear:
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    return head
