"""NAD: the suspect learns from a fine-tuned copy of itself where to look."""

from collections.abc import Sequence
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
        name="nad",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Li et al., Neural Attention Distillation, ICLR 2021",
        summary="fine-tunes with the attention of a fine-tuned copy as the teacher",
        assumes=("convolutions",),
        quick={"teacher_epochs": 1, "epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Nad(Repairer):
    """Teach the suspect the attention of a fine-tuned copy of itself.

    What it does: a copy is fine-tuned, the teacher. Then the suspect itself is trained to minimize cross-entropy plus
    the distance of its attention maps to the teacher's, at up to three resolutions. A map is the sum over channels of
    squared activations, normalized over all positions.
    Needs: the model with gradients and convolutions, some hundreds of clean images, augmentation (``shift``), without
    which the authors find no effect; without labels the model's own answers.
    Limits: a teacher that kept the backdoor teaches it: no better than its fine-tuning. Distillation may awaken
    backdoors that were planted to wait for it.
    Source: Li, Lyu, Koren, Lyu, Li, Ma, Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural
    Networks, ICLR 2021. The paper writes the norm of the difference of two maps, its code the mean square, to which the
    published ``betas`` belong: we take that. Maps are taken where any network has them: at the last convolution of each
    resolution, not after the groups of a wide ResNet. No checkpoint is chosen: the last is the answer (the
    authors' code chooses by attack success on test images).
    """

    betas: tuple[float, ...] = param(
        (500.0, 1000.0, 1000.0), low=0.0, doc="weight of each resolution; the last belongs to the deepest"
    )
    teacher_epochs: int = param(10, low=1, doc="passes over the clean images to make the teacher")
    epochs: int = param(20, low=1, doc="passes over the clean images to teach the suspect")
    learning_rate: float = param(0.01, low=0.0, doc="the highest of both one-cycle schedules")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        suspect, clean = defender.model, defender.clean
        assert suspect is not None
        assert clean is not None
        layers = attention_layers(suspect, at_most=len(self.betas))
        if not layers:
            raise NotApplicable("nad compares maps of attention, and this network has no convolution that makes maps")
        wanted = wanted_answers(defender)
        middle = self.teacher_epochs / (self.teacher_epochs + self.epochs)
        teacher = tune(suspect, clean, wanted, self._recipe(self.teacher_epochs), run, progress=(0.0, middle))
        counts = {"images": len(clean), "epochs": self.teacher_epochs, "layers": len(layers)}
        if run.seconds_left() < 0:
            return Fixed(model=teacher, counts=counts)  # the best so far
        loss = distilling_loss(teacher.requires_grad_(False), layers, self.betas[-len(layers) :])
        student = tune(suspect, clean, wanted, self._recipe(self.epochs), run, loss=loss, progress=(middle, 1.0))
        counts["epochs"] += self.epochs
        return Fixed(model=student, counts=counts, evidence={"layers": list(layers)})

    def _recipe(self, epochs: int) -> Recipe:
        return Recipe(epochs=epochs, learning_rate=self.learning_rate, batch_size=self.batch_size, shift=self.shift)


def attention_layers(model: Classifier, at_most: int) -> tuple[str, ...]:
    """Names of the last convolution of each resolution, in execution order; the deepest ``at_most`` of them.

    A map of one position is left out: normalized, it is always 1.
    """
    convolutions = [name for name, layer in model.layers() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        maps, _ = outputs_at(model, convolutions, torch.zeros(1, *model.input_shape, device=model.device))
    last: dict[torch.Size, str] = {}
    for name, one in zip(convolutions, maps, strict=True):
        last[one.shape[2:]] = name
    return tuple(name for shape, name in last.items() if shape.numel() > 1)[-at_most:]


def outputs_at(model: Classifier, names: Sequence[str], images: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the layers ``names`` of ``model.net`` answer to images, and the logits."""
    caught: dict[str, Tensor] = {}

    def keeper(name: str) -> None:
        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            caught[name] = output

        handles.append(model.net.get_submodule(name).register_forward_hook(keep))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name in names:
            keeper(name)
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [caught[name] for name in names], logits


def attention(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W) → (N, H * W): squares summed over channels, then of L2 norm 1 over all positions."""
    return F.normalize(maps.float().square().sum(1).flatten(1), dim=1)


def distilling_loss(teacher: Classifier, layers: Sequence[str], betas: Sequence[float]) -> Loss:
    """Cross-entropy plus, for every layer, beta times the mean square of the difference of attention."""

    def loss(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            taught, _ = outputs_at(teacher, layers, images)
        maps, logits = outputs_at(model, layers, images)
        total = F.cross_entropy(logits.float(), wanted)
        for beta, own, other in zip(betas, maps, taught, strict=True):
            total = total + beta * F.mse_loss(attention(own), attention(other))
        return total

    return loss
