"""The one training loop: clean, poisoned and fine-tuning runs all go through here."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError

_OPTIMIZERS = ("sgd", "adam", "adadelta")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random shifts by at most ``shift`` pixels (edges repeated) and, when ``flip``, horizontal mirroring."""

    shift: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
        if self.shift:
            padded = F.pad(images, [self.shift] * 4, mode="replicate")
            offsets = torch.randint(2 * self.shift + 1, (2, count, 1), generator=generator)
            rows = (offsets[0] + torch.arange(height)).to(images.device)
            columns = (offsets[1] + torch.arange(width)).to(images.device)
            which = torch.arange(count, device=images.device)
            images = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return images


def fit(
    model: Classifier,
    samples: Samples,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.01,
    optimizer: str = "sgd",
    weight_decay: float = 5e-4,
    augmentation: Augmentation = Augmentation(),
    mixed_precision: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Classifier:
    """A copy of ``model`` trained on ``samples`` (labels needed); the caller's model is untouched.

    The learning rate rises over the first tenth of the steps and falls to zero along a cosine. SGD has Nesterov
    momentum 0.9. ``mixed_precision`` runs the network in bfloat16 (weights stay float32): about twice as fast on
    processors that know it, and numbers differ in the third digit.

    Raises:
        NotHeld: the samples have no labels.
        ParameterError: no such optimizer.
    """
    if samples.labels is None:
        raise NotHeld("training needs labels; these samples have none")
    if optimizer not in _OPTIMIZERS:
        raise ParameterError(f"optimizer must be one of {', '.join(_OPTIMIZERS)}, got {optimizer!r}")
    device = model.device
    images, labels = samples.images.to(device), samples.labels.to(device)
    steps_per_epoch = -(-len(samples) // batch_size)
    with isolated_rng(seed) as generator:
        model = copy.deepcopy(model).train()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        stepper = _optimizer(model, optimizer, learning_rate, weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            stepper, learning_rate, total_steps=epochs * steps_per_epoch, pct_start=0.1, cycle_momentum=False
        )
        for epoch in range(epochs):
            for chosen in torch.randperm(len(samples), generator=generator).to(device).split(batch_size):
                if len(chosen) == 1 and len(samples) > 1:
                    schedule.step()  # BatchNorm cannot normalize a single image
                    continue
                batch = augmentation(images[chosen].float().div_(255), generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision):
                    logits = model(batch.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits.float(), labels[chosen])
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                schedule.step()
            if progress is not None:
                progress((epoch + 1) / epochs, f"epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}")
    return model.eval()


def _optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay)
    return torch.optim.Adadelta(parameters, learning_rate, weight_decay=weight_decay)


def accuracy(model: Classifier, samples: Samples) -> float:
    """Share of ``samples`` (labels needed) that the model answers with their label."""
    if samples.labels is None:
        raise NotHeld("accuracy needs labels; these samples have none")
    return float((predictions(model, samples.images).argmax(1) == samples.labels).float().mean())
