"""Neural Cleanse as its authors ran it: one label after the other, the reference that ours is measured against.

Source: Wang et al., IEEE S&P 2019, and the constants of the authors' GTSRB script.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.audit._inversion import Inverter, TriggerBatch, start

_BATCHES = 31  # mini-batches in one step; with the paper's 32 images each about 1,000 images
_RATE = 0.1
_START_PENALTY = 1e-3
_UP, _DOWN = 2.0, 2.0**1.5
_PATIENCE = 5  # steps in a row before the penalty moves
_EARLY_STOP_PATIENCE = 25


@dataclass
class DynamicPenalty:
    """The paper's weight of the mask's size: zero until the trigger works, then up while it does and down while not.

    After a start (and after every fall back to zero) five steps in a row with success set it to 1e-3; from then on five
    successes in a row multiply it by 2, five failures in a row divide it by 2 ** 1.5. Without the guard on zero the
    penalty would be set back to 1e-3 at every success and never rise.
    """

    value: float = 0.0
    successes: int = 0
    failures: int = 0
    rose: bool = False
    fell: bool = False

    def update(self, success: bool) -> None:
        """Count one step's outcome and move."""
        self.successes, self.failures = (self.successes + 1, 0) if success else (0, self.failures + 1)
        if self.value == 0:
            if self.successes >= _PATIENCE:
                self.value, self.successes, self.failures = _START_PENALTY, 0, 0
                self.rose = self.fell = False
        elif self.successes >= _PATIENCE:
            self.value, self.successes, self.rose = self.value * _UP, 0, True
        elif self.failures >= _PATIENCE:
            self.value, self.failures, self.fell = self.value / _DOWN, 0, True


def invert_label(inverter: Inverter, label: int, cell: int, *, steps: int, images: int) -> TriggerBatch:
    """The smallest trigger of one label: at most ``steps`` steps of 31 mini-batches of ``images``, random start.

    The paper has at most 1,000 steps, 32 images and a wanted success of 0.99. The best is the smallest average mask
    among steps whose average success is as wanted; a label that never gets there has size infinity. Stops early when
    the best has not shrunk for 25 steps and the penalty has both risen and fallen.
    """
    channels, height, width = inverter.model.input_shape
    generator = inverter.generator
    device = inverter.images.device
    mask = torch.rand((1, 1, height, width), generator=generator).to(device)
    pattern = torch.rand((1, channels, height, width), generator=generator).to(device)
    batch = start(mask, pattern, torch.tensor([label]), cell)
    variables = [batch.mask.requires_grad_(), batch.pattern.requires_grad_()]
    optimizer = torch.optim.Adam(variables, lr=_RATE, betas=(0.5, 0.9))
    penalty, waited = DynamicPenalty(), 0
    for _ in range(steps):
        success, size = _one_step(inverter, batch, optimizer, images, penalty.value)
        best_before = float(batch.best_size)
        if success >= inverter.success_wanted and size < best_before:
            batch.best_size[0] = size
            with torch.no_grad():
                mask, pattern = inverter.triggers(batch.mask, batch.pattern)
            batch.best_mask[0], batch.best_pattern[0] = mask[0], pattern[0]
        if best_before < float("inf"):
            waited = 0 if float(batch.best_size) < best_before else waited + 1
        if waited >= _EARLY_STOP_PATIENCE and penalty.rose and penalty.fell:
            break
        if inverter.out_of_time():
            break
        penalty.update(success >= inverter.success_wanted)
    batch.mask, batch.pattern = (value.detach() for value in variables)
    return batch


def _one_step(
    inverter: Inverter, batch: TriggerBatch, optimizer: torch.optim.Optimizer, images: int, penalty: float
) -> tuple[float, float]:
    """31 mini-batches; average success and mask size over them."""
    label = batch.labels.expand(images)
    successes: list[Tensor] = []
    sizes: list[Tensor] = []
    for _ in range(_BATCHES):
        if successes and inverter.out_of_time():
            break
        chosen = torch.randint(len(inverter.images), (images,), generator=inverter.generator)
        mask, pattern = inverter.triggers(batch.mask, batch.pattern)
        logits = inverter.logits(inverter.images[chosen], mask, pattern)
        loss = F.cross_entropy(logits, label) + penalty * mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        inverter.rows_done += images
        successes.append((logits.detach().argmax(1) == label).float().mean())
        sizes.append(mask.detach().sum())
    return float(torch.stack(successes).mean()), float(torch.stack(sizes).mean())
