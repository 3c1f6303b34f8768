"""A training recipe: every choice of the training loop, as a value."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from goodnet.core.params import check_ranges, param
from goodnet.training.augmentation import Augmentation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; the same for clean, poisoned and fine-tuning runs."""

    epochs: int = param(10, low=1, doc="passes over the training set")
    batch_size: int = param(128, low=1, doc="images per step")
    learning_rate: float = param(0.01, low=0.0, doc="the highest that the schedule reaches")
    optimizer: Literal["sgd", "adam", "adadelta"] = param(
        "sgd", choices=("sgd", "adam", "adadelta"), doc="sgd has Nesterov momentum 0.9"
    )
    schedule: Literal["one-cycle", "cosine", "step", "constant"] = param(
        "one-cycle",
        choices=("one-cycle", "cosine", "step", "constant"),
        doc="one-cycle: up over a tenth of the steps, then down; step: a tenth after half, a hundredth after 3/4",
    )
    weight_decay: float = param(5e-4, low=0.0, doc="L2 penalty on the weights")
    shift: int = param(0, low=0, doc="augmentation: random shifts by at most so many pixels")
    flip: bool = param(False, doc="augmentation: random mirroring")
    validation: float = param(0.0, low=0.0, high=0.5, doc="share of the training set kept for early stopping")
    patience: int = param(5, low=1, doc="epochs without a better validation loss after which training stops")
    mixed_precision: bool = param(
        False, doc="bfloat16 network (weights stay float32): faster where the processor knows it"
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    def augmentation(self) -> Augmentation:
        return Augmentation(shift=self.shift, flip=self.flip)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the parameters that are not frozen."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rate, decay = self.learning_rate, self.weight_decay
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay)
        if self.optimizer == "adadelta":
            return torch.optim.Adadelta(parameters, rate, weight_decay=decay)
        return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True, weight_decay=decay)

    def build_schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """The learning rate over ``steps`` steps."""
        schedulers = torch.optim.lr_scheduler
        if self.schedule == "one-cycle":
            rising = 0.2 if steps == 10 else 0.1  # torch divides by zero where the rise is one step long
            return schedulers.OneCycleLR(
                optimizer, self.learning_rate, total_steps=steps, pct_start=rising, cycle_momentum=False
            )
        if self.schedule == "cosine":
            return schedulers.CosineAnnealingLR(optimizer, steps)
        if self.schedule == "step":
            return schedulers.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4])
        return schedulers.LambdaLR(optimizer, lambda _: 1.0)
