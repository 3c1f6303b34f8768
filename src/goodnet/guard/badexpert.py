"""BaDExpert: what is left of a model that has unlearned its task answers triggers, and nothing else, as before."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard, Learned, guards
from goodnet.guard._clean import rightly_answered
from goodnet.repair._tuning import new_seed, share_right, tune_gently
from goodnet.training import Recipe, fit

_LEAST = 1e-8  # of what is divided by, as in the official code
_ATTEMPTS = 3  # at fine-tuning without harm, each at a tenth of the rate


@guards.register(
    Card(
        name="badexpert",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Xie et al., BaDExpert: Extracting Backdoor Functionality for Accurate Backdoor Input Detection, "
        "ICLR 2024",
        summary="whether a copy that has unlearned its task still agrees, and a fine-tuned one no longer does",
        assumes=("the model has a backdoor", "unlearning the task leaves the backdoor"),
        quick={"epochs": 1, "tuning_epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class BadExpert(Guard):
    """Ask two descendants of the model: one that has unlearned its task, and one that is fine-tuned.

    What it does: the *expert* is trained with Adam on clean images whose labels are moved on by one, until less than
    ``unlearned`` of them are answered rightly: a backdoor, which clean images do not touch, stays. The *shadow* is
    fine-tuned on the same images as they are, which weakens a backdoor; where that costs more than two points of right
    answers it is tried again at a tenth of the rate. For the model's answer the expert has the probability x, the
    shadow y. The score is minus the logarithm of min(2 y / x, (1 - x) / (0.5 - y)), which ranks as the paper's does:
    high where the expert agrees and the shadow does not.
    Needs: the model with gradients; clean images, their labels where they are held.
    Limits: run it where an audit found a backdoor: the expert of a model without one is merely broken, and its score
    says nothing. Three forward passes for an image, two more models in memory and in the folder. Where the expert keeps
    its task after all epochs, or no fine-tuning is without harm, a note says so.
    Source: Xie et al., ICLR 2024: rate 1e-4, accuracy below 0.2; 0.1 for fine-tuning, over 10 epochs. They tune rates
    to the architecture and the threshold on test images; here rates fall by themselves, and the threshold is split
    conformal.
    """

    epochs: int = param(50, low=1, doc="passes over the clean images at most, to unlearn them")
    learning_rate: float = param(1e-4, low=0.0, doc="of Adam, to unlearn")
    unlearned: float = param(0.2, low=0.0, high=1.0, doc="share of right answers below which the task is unlearned")
    tuning_epochs: int = param(10, low=1, doc="passes over the clean images, to fine-tune")
    tuning_rate: float = param(0.1, low=0.0, doc="the highest of the one-cycle schedule, to fine-tune")
    batch_size: int = param(64, low=2, doc="images per step")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        assert defender.model is not None
        images, labels = rightly_answered(defender)
        if len(images) < 2:
            raise NotHeld(f"badexpert trains on clean images, and there are {len(images)}; give some hundreds")
        model, samples = copy.deepcopy(defender.model).requires_grad_(), Samples(images=images, labels=labels)
        expert, left = self._expert(model, samples, run)
        run.progress(0.5, f"the expert has {left:.0%} of its task left")
        recipe = Recipe(epochs=self.tuning_epochs, learning_rate=self.tuning_rate, batch_size=self.batch_size)
        shadow, rate = tune_gently(model, samples, labels, recipe, run, attempts=_ATTEMPTS, progress=(0.5, 1.0))
        notes = []
        if left >= self.unlearned:
            notes.append(f"the expert still answers {left:.0%} of the clean images rightly; give more epochs")
        if rate == 0:
            notes.append("fine-tuning harms at every rate, so that the shadow is the model itself")
        return Learned(
            arrays=_weights("expert", expert) | _weights("shadow", shadow),
            notes=tuple(notes),
            counts={"clean_images": len(images)},
        )

    def _expert(self, model: Classifier, samples: Samples, run: Run) -> tuple[Classifier, float]:
        """The model that has unlearned ``samples``, and the share of them that it still answers rightly."""
        assert samples.labels is not None
        labels, left = samples.labels, [1.0]
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            optimizer="adam",
            schedule="constant",
            weight_decay=0.0,
        )
        expert = fit(
            model,
            Samples(images=samples.images, labels=(labels + 1) % model.num_classes),
            recipe,
            seed=new_seed(run),
            watch=lambda now: left.append(share_right(now, samples.images, labels)),
            stop=lambda: left[-1] < self.unlearned or run.seconds_left() < 0,
        )
        return expert, left[-1]

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        answers = model(images).argmax(1, keepdim=True)
        expert, shadow = (
            _shares(model, learned.arrays, name, images).gather(1, answers)[:, 0] for name in ("expert", "shadow")
        )
        agreed = 2 * shadow / expert.clamp_min(_LEAST)
        broken = (1 - expert) / (0.5 - shadow).clamp_min(_LEAST)
        return -torch.minimum(agreed, broken).clamp_min(_LEAST).log()


def _weights(name: str, model: Classifier) -> dict[str, Tensor]:
    """What of a descendant is another than in the model, as arrays."""
    values = model.state_dict()
    return {f"{name}/{key}": value.detach().contiguous() for key, value in values.items() if value.is_floating_point()}


def _shares(model: Classifier, arrays: Mapping[str, Tensor], name: str, images: Tensor) -> Tensor:
    """float64 (M, K): what the descendant ``name`` of ``model`` answers."""
    start = f"{name}/"
    weights = {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
    logits: Tensor = functional_call(model, {key: value.to(images.device) for key, value in weights.items()}, (images,))
    return logits.double().softmax(1)
