"""Classifier: a network that owns its preprocessing."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Preprocessing:
    """From images in [0, 1] to what the network was trained on: reorder channels, times ``scale``, minus mean, by std.

    Attributes:
        scale: 1 for networks trained on 0..1, 255 for 0..255.
        mean, std: per channel, in units after scaling; empty for none.
        channel_order: "RGB", or "BGR" for networks trained through OpenCV or Caffe.
        guessed: True when the scale was guessed from the data and not told.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: str = "RGB"
    guessed: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        if self.channel_order == "BGR":
            images = images.flip(1)
        if self.scale != 1:
            images = images * self.scale
        if self.mean:
            images = images - images.new_tensor(self.mean).view(1, -1, 1, 1)
        if self.std:
            images = images / images.new_tensor(self.std).view(1, -1, 1, 1)
        return images


@dataclass(frozen=True)
class Origin:
    """Where a classifier came from: the file, its sha256, the format, and how its architecture was found."""

    file: str = ""
    sha256: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    history: tuple[dict[str, Any], ...] = field(default_factory=tuple)


class Classifier(nn.Module):
    """A network with its preprocessing: float32 (N, C, H, W) in [0, 1] → logits (N, K).

    Attributes:
        net: the bare network; preprocessed images → logits.
        input_shape: (C, H, W).
        num_classes: K.
        architecture: name in ``goodnet.models.architectures`` with its options, or "" for a graph read from a file.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
        preprocessing: Preprocessing = Preprocessing(),
        architecture: str = "",
        class_names: tuple[str, ...] = (),
        origin: Origin = Origin(),
    ):
        super().__init__()
        self.net = net
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.preprocessing = preprocessing
        self.architecture = architecture
        self.class_names = class_names
        self.origin = origin

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(self.preprocessing(images))
        return logits

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The network's leaf modules, by name, in the order in which a forward pass first runs them."""
        names = {module: name for name, module in self.net.named_modules() if not list(module.children())}
        seen: dict[str, nn.Module] = {}

        def note(module: nn.Module, *_: object) -> None:  # a hook that returned something would replace the output
            seen.setdefault(names[module], module)

        handles = [module.register_forward_hook(note) for module in names]
        mode = self.training
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, *self.input_shape, device=self.device))
        finally:
            for handle in handles:
                handle.remove()
            self.train(mode)
        return list(seen.items())

    def last_convolution(self) -> tuple[str, nn.Conv2d] | None:
        """The convolution that runs last, or None."""
        convolutions = [(name, layer) for name, layer in self.layers() if isinstance(layer, nn.Conv2d)]
        return convolutions[-1] if convolutions else None

    def head(self) -> nn.Linear | None:
        """The linear layer that runs last and gives the logits, or None."""
        last = [layer for _, layer in self.layers() if isinstance(layer, nn.Linear)][-1:]
        return last[0] if last and last[0].out_features == self.num_classes else None

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features (N, D), the input of ``head()``, and logits (N, K)."""
        head = self.head()
        if head is None:
            raise ValueError("this network does not end in a linear layer")
        caught: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            logits = self(images)
        finally:
            handle.remove()
        return caught[0], logits


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits float32 (N, K) of uint8 or [0, 1] float images (N, C, H, W), batch by batch, in eval mode, on the CPU.

    Args:
        batch_size: None for 64 on a CPU, whose cache larger batches overflow, and 512 elsewhere.
    """
    mode = model.training
    device = next(model.parameters()).device
    if batch_size is None:
        batch_size = 64 if device.type == "cpu" else 512
    try:
        model.eval()
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(device)
            parts.append(model(batch.float() / 255 if batch.dtype == torch.uint8 else batch).float().cpu())
        return torch.cat(parts)
    finally:
        model.train(mode)
