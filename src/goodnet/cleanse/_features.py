"""What a model makes of many images, out of any of its layers: once, in batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable

BATCH = 256

Read = Callable[[Tensor], Tensor]


def pooled(values: Tensor) -> Tensor:
    """(N, D) as it is; maps (N, C, H, W) averaged over places, tokens (N, T, D) over tokens."""
    if values.ndim == 4:
        return values.mean((2, 3))
    return values.mean(1) if values.ndim == 3 else values.flatten(1)


def features(model: Classifier, images: Tensor, layer: str = "") -> Tensor:
    """float32 (N, D) on the CPU: the output of ``layer``, see ``pooled``; of "" what the last linear layer is given.

    Raises:
        NotApplicable: there is no such layer.
    """
    return read_layer(model, images, layer, lambda values: values.flatten(1) if layer == "" else pooled(values))


def read_layer(model: Classifier, images: Tensor, layer: str, read: Read) -> Tensor:
    """As ``read_layers``, of one layer.

    Raises:
        NotApplicable: there is no such layer.
    """
    return read_layers(model, images, (layer,), read)[0]


@torch.no_grad()
def read_layers(model: Classifier, images: Tensor, layers: Sequence[str], read: Read) -> list[Tensor]:
    """``read`` of the outputs of ``layers`` for all images, in one pass, batch by batch, float32 on the CPU.

    Args:
        model: in eval mode.
        images: (N, C, H, W), uint8 or [0, 1] float.
        layers: names as in ``Classifier.layers``; "" reads what the last linear layer is given.
        read: output of a layer for a batch → one row per image.

    Raises:
        NotApplicable: there is no such layer.
    """
    caught: list[list[Tensor]] = [[] for _ in layers]
    handles, rows = [], [list[Tensor]() for _ in layers]
    try:
        for layer, here in zip(layers, caught, strict=True):
            handles.append(_watch(model, layer, here))
        for batch in images.split(BATCH):
            moved = batch.to(model.device)
            floats = moved.float() / 255 if moved.dtype == torch.uint8 else moved
            for here in caught:
                here.clear()
            model(floats.contiguous(memory_format=torch.channels_last))
            for here, row in zip(caught, rows, strict=True):
                row.append(read(here[-1].float()).cpu())
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(row) for row in rows]


def log_odds(model: Classifier, samples: Samples) -> Tensor:
    """float64 (N,): log p / (1 - p), with p what the model gives to each sample's label (labels needed).

    Taken from the logits: of probabilities close to 1, or losses close to 0, only rounding would be left.
    """
    assert samples.labels is not None
    logits, label = predictions(model, samples.images).double(), samples.labels[:, None]
    return logits.gather(1, label)[:, 0] - logits.scatter(1, label, float("-inf")).logsumexp(1)


def _watch(model: Classifier, layer: str, caught: list[Tensor]) -> "torch.utils.hooks.RemovableHandle":
    """Have what is wanted of every forward pass appended to ``caught``."""
    if layer == "":
        head = model.head()
        if head is None:
            raise NotApplicable("this network does not end in a linear layer; name a layer with the parameter layer")
        return head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:  # a hook that returned would replace it
        caught.append(output)

    known = dict(model.layers())
    if layer not in known:
        raise NotApplicable(f"this network has no layer {layer!r} that runs; it has {', '.join(known)}")
    return known[layer].register_forward_hook(keep)
