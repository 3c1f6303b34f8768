"""Networks by name: preprocessed images (N, C, H, W) → logits (N, K). One file per family; a new file adds a name."""

from goodnet.models.architectures._base import Architecture, all_architectures, build, get, names, parse, text

__all__ = ["Architecture", "all_architectures", "build", "get", "names", "parse", "text"]
