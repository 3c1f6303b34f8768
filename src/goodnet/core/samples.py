"""Samples: images with what is known about them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.errors import UnreadableData


@dataclass(frozen=True)
class Samples:
    """Images and what is known about them.

    Attributes:
        images: uint8 (N, C, H, W); may be memory-mapped, so treat it as read-only.
        labels: int64 (N,), or None for unlabelled images.
        ids: int64 (N,), positions in the data set that the samples came from; kept by ``pick``.
        sources: int64 (N,), the camera, uploader or recording of each image, or None.
        class_names: name of label 0, 1, ...; empty when unknown.
        notes: what the loader wants a person to know, such as files that were skipped.
    """

    images: Tensor
    labels: Tensor | None = None
    ids: Tensor | None = None
    sources: Tensor | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UnreadableData(
                f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(len(self.images)))
        for name in ("labels", "ids", "sources"):
            value = getattr(self, name)
            if value is not None and (value.dtype != torch.int64 or value.shape != (len(self.images),)):
                raise UnreadableData(
                    f"{name} must be int64 ({len(self.images)},), got {value.dtype} {tuple(value.shape)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def pick(self, indices: Tensor) -> "Samples":
        """The samples at ``indices`` (int64, any order) or where a bool mask is True."""
        columns = (self.labels, self.ids, self.sources)
        labels, ids, sources = (None if column is None else column[indices] for column in columns)
        return replace(self, images=self.images[indices], labels=labels, ids=ids, sources=sources)

    def shuffled(self, generator: torch.Generator, limit: int | None = None) -> "Samples":
        """The samples in random order; at most ``limit`` of them."""
        return self.pick(torch.randperm(len(self), generator=generator)[:limit])

    def split(self, share: float, generator: torch.Generator) -> tuple["Samples", "Samples"]:
        """About ``share`` of the samples, in [0, 1], and the rest, drawn at random; either may be empty.

        All images of one source go to the same side, because frames of one recording are nearly copies of each other;
        with two sources or more neither side is empty then. Without sources, or with one, the draw is image by image.
        """
        order = torch.randperm(len(self), generator=generator)
        first = torch.arange(len(self)) < round(len(self) * share)
        if self.sources is not None:
            sizes, groups = _groups(self.sources[order])
            if len(sizes) > 1:
                ends = sizes.cumsum(0)[:-1]  # images on the first side, with the first source, the first two ...
                first = groups <= (ends - len(self) * share).abs().argmin()
        return self.pick(order[first]), self.pick(order[~first])

    def without_labels(self) -> "Samples":
        return replace(self, labels=None)

    def floats(self, device: str | torch.device = "cpu") -> Tensor:
        """All images as float32 (N, C, H, W) in [0, 1] on ``device``."""
        return self.images.to(device).float().div_(255)

    def batches(self, size: int, device: str | torch.device = "cpu") -> Iterator[tuple[Tensor, Tensor | None]]:
        """(images float32 in [0, 1], labels or None) in order, ``size`` at a time, on ``device``."""
        for start in range(0, len(self), size):
            labels = None if self.labels is None else self.labels[start : start + size].to(device)
            yield self.images[start : start + size].to(device).float().div_(255), labels

    def fitted_to(self, shape: tuple[int, int, int]) -> "Samples":
        """The same images with the channels, height and width ``shape``, as a model wants them.

        Grey becomes RGB by repetition, RGB becomes grey by ITU-R 601 luma; sizes by antialiased bilinear resizing.
        """
        if self.shape == shape:
            return self
        channels, height, width = shape
        parts = []
        for start in range(0, len(self), 1024):
            images = self.images[start : start + 1024].float()
            if images.shape[1] == 3 and channels == 1:
                images = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
            elif images.shape[1] == 1 and channels == 3:
                images = images.expand(-1, 3, -1, -1)
            elif images.shape[1] != channels:
                raise UnreadableData(f"images have {images.shape[1]} channels, the model wants {channels}")
            if images.shape[2:] != (height, width):
                images = F.interpolate(images, (height, width), mode="bilinear", antialias=True, align_corners=False)
            parts.append(images.round().clamp(0, 255).byte())
        return replace(self, images=torch.cat(parts) if parts else self.images.new_zeros((0, *shape)))


def _groups(sources: Tensor) -> tuple[Tensor, Tensor]:
    """How many images each source has, sources in the order of their first image; and the place there of each image."""
    _, group, sizes = sources.unique(return_inverse=True, return_counts=True)
    first = torch.full_like(sizes, len(sources)).scatter_reduce(0, group, torch.arange(len(sources)), "amin")
    order = first.argsort()
    return sizes[order], order.argsort()[group]
