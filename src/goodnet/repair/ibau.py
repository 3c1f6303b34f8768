"""I-BAU: unlearn what a perturbation that suits all images can do, and mind how it would answer the unlearning."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import share_right, wanted_answers

Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W) in [0, 1] and what they shall be answered with; see ``wanted_answers``."""


@repairers.register(
    Card(
        name="i-bau",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Zeng et al., Adversarial Unlearning of Backdoors via Implicit Hypergradient, ICLR 2022",
        summary="unlearns a universal perturbation, by gradients that mind how it would answer",
        assumes=("one perturbation stands for the trigger",),
        quick={"rounds": 1, "batch_size": 16},
    )
)
@dataclass(frozen=True, kw_only=True)
class Ibau(Repairer):
    """Unlearn what a universal perturbation can do, by implicit hyper-gradients.

    What it does: each round finds one perturbation that spoils the answers of all clean images, adds it to a share of
    every batch and trains for the wanted answers. The gradient holds a second part: how the perturbation would move
    when the weights do (fixed point iteration). Normalization statistics are frozen. A share of the clean images is
    held out: the answer is the last round whose accuracy there (without labels: agreement with the suspect) is not
    below the best round's; ``patience`` rounds below it in a row end the work.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers.
    Limits: large or image-specific triggers are no universal perturbation. Slow: the second part costs ``iterations``
    products with a Hessian per step. Accuracy may fall before it comes back in later rounds.
    Source: Zeng, Chen, Park, Mao, Jin, Jia, Adversarial Unlearning of Backdoors via Implicit Hypergradient, ICLR 2022.
    We keep the paper's ball around zero (commented out in its code) and, in the second part, the batch at hand (there
    always the first). As in the code a share of the batch is perturbed; there it is 1 %, rounded down, none in batches
    below 100; here one image at least. The search there is one pass of SGD with rate 10, which with few images ends
    before it finds anything: ours takes steps of one length until it is done. Where the fixed point
    iteration would diverge it is stopped, see ``hypergradient``.
    """

    rounds: int = param(10, low=1, doc="perturbations that are found and unlearned, one after another")
    learning_rate: float = param(0.001, low=0.0, doc="Adam's, for the weights")
    batch_size: int = param(32, low=2, doc="images per step")
    patched: float = param(0.2, low=0.0, high=1.0, doc="share of a batch that is perturbed; one image at least")
    radius: float = param(3.0, low=0.0, doc="the perturbation's largest L2 norm")
    search_steps: int = param(20, low=1, doc="for the perturbation, going round the batches")
    search_rate: float = param(0.1, low=0.0, doc="length of such a step, as a share of the radius")
    penalty: float = param(0.001, low=0.0, doc="weight of the perturbation's squared norm")
    iterations: int = param(5, low=1, doc="of the fixed point of the hyper-gradient")
    inner_rate: float = param(0.1, low=0.0, doc="step size of the map whose fixed point that is")
    held_out: float = param(0.1, low=0.0, high=0.5, doc="share of the clean images by which rounds are judged")
    tolerance: float = param(0.02, low=0.0, high=1.0, doc="by how much held-out accuracy may fall below its best round")
    patience: int = param(3, low=1, doc="rounds in a row that fall further, after which no more are tried")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        wanted = wanted_answers(defender)
        order = torch.randperm(len(clean), generator=run.generator)
        judges, used = order[: round(self.held_out * len(order))], order[round(self.held_out * len(order)) :]
        optimizer = torch.optim.Adam(model.parameters(), self.learning_rate)
        kept, scores = copy.deepcopy(model.state_dict()), [share_right(model, clean.images[judges], wanted[judges])]
        # one image more or less is no damage, however few are held out
        best, damaged, allowed = 0.0, 0, max(self.tolerance, 1.5 / max(1, len(judges)))
        for number in range(1, self.rounds + 1):
            if run.seconds_left() < 0:
                break
            self._round(model, optimizer, _batches(model, clean.images, wanted, used, self.batch_size, run), run)
            scores.append(share_right(model, clean.images[judges], wanted[judges]))
            run.progress(number / self.rounds, f"round {number} of {self.rounds}, held out {scores[-1]:.1%} right")
            if scores[-1] < best - allowed:
                damaged += 1
                if damaged == self.patience:
                    break
                continue
            kept, best, damaged = copy.deepcopy(model.state_dict()), max(best, scores[-1]), 0
        model.load_state_dict(kept)
        return Fixed(
            model=model,
            counts={"images": len(used), "held_out": len(judges), "rounds": len(scores) - 1},
            evidence={"held_out_accuracy": scores},
        )

    def _round(self, model: Classifier, optimizer: torch.optim.Optimizer, batches: list[Batch], run: Run) -> None:
        """Find a perturbation, then one step of the weights for every batch."""
        perturbation = self.find(model, [images for images, _ in batches])
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for images, wanted in batches:
            chosen = self.chosen(len(images), run.generator).to(images.device)
            inner = self._spoiling(model, images, wanted)
            outer = self._unlearning(model, images, wanted, chosen)
            gradients = hypergradient(inner, outer, perturbation, weights, self.iterations, self.inner_rate)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
            if run.seconds_left() < 0:
                return

    def find(self, model: Classifier, batches: list[Tensor]) -> Tensor:
        """A perturbation (1, C, H, W) that spoils the model's own answers to the images of all batches."""
        answers = [predictions(model, images).argmax(1).to(images.device) for images in batches]
        perturbation = torch.zeros_like(batches[0][:1])
        for step in range(self.search_steps):
            perturbation.requires_grad_(True)
            number = step % len(batches)
            loss = self._spoiling(model, batches[number], answers[number])(perturbation)
            (gradient,) = torch.autograd.grad(loss, perturbation)
            direction = gradient / gradient.norm().clamp_min(1e-12)
            perturbation = perturbation.detach() - self.search_rate * self.radius * direction
            perturbation *= (self.radius / perturbation.norm().clamp_min(1e-12)).clamp(max=1)
        return perturbation

    def chosen(self, count: int, generator: torch.Generator) -> Tensor:
        """Which images of a batch are perturbed: one at least, or nothing would be unlearned."""
        number = max(1, round(self.patched * count))
        return torch.randperm(count, generator=generator)[:number]

    def _spoiling(self, model: Classifier, images: Tensor, answers: Tensor) -> Callable[[Tensor], Tensor]:
        """What the perturbation minimizes."""
        return lambda one: -F.cross_entropy(model(images + one).float(), answers) + self.penalty * one.square().sum()

    def _unlearning(
        self, model: Classifier, images: Tensor, wanted: Tensor, chosen: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """What the weights minimize."""
        mask = torch.zeros(len(images), 1, 1, 1, device=images.device).index_fill(0, chosen, 1.0)
        return lambda one: F.cross_entropy(model(images + mask * one).float(), wanted)


def hypergradient(
    inner: Callable[[Tensor], Tensor],
    outer: Callable[[Tensor], Tensor],
    perturbation: Tensor,
    weights: Sequence[Tensor],
    iterations: int,
    rate: float,
) -> list[Tensor]:
    """The gradient of ``outer`` by ``weights``, where the perturbation is the minimum of ``inner`` and moves with them.

    At the minimum p = p - rate * d inner/dp. With the Jacobians of that map the implicit function theorem gives
    d outer/dw + (dmap/dw)^T v, where v = (dmap/dp)^T v + d outer/dp, which is iterated from v = 0. Where the map does
    not contract the iterates grow without end and drown the rest of the gradient: iteration stops when they begin to.
    """
    point = perturbation.detach().requires_grad_(True)
    by_point, *direct = torch.autograd.grad(outer(point), [point, *weights], materialize_grads=True)
    slope = torch.autograd.grad(inner(point), point, create_graph=True)[0]
    moved = point - rate * slope
    adjoint, last = by_point, by_point.norm()
    for _ in range(iterations - 1):
        new = torch.autograd.grad(moved, point, adjoint, retain_graph=True)[0] + by_point
        change = (new - adjoint).norm()
        if change > last:
            break
        adjoint, last = new, change
    indirect = torch.autograd.grad(moved, weights, adjoint, materialize_grads=True)
    return [one + other for one, other in zip(direct, indirect, strict=True)]


def _batches(model: Classifier, images: Tensor, wanted: Tensor, used: Tensor, size: int, run: Run) -> list[Batch]:
    """The images at ``used`` in a new order, on the model's device."""
    places = used[torch.randperm(len(used), generator=run.generator)].split(size)
    return [
        (
            (images[one].to(model.device).float() / 255).contiguous(memory_format=torch.channels_last),
            wanted[one].to(model.device),
        )
        for one in places
    ]
