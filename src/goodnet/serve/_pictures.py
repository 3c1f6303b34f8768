"""Pixels as PNG files and back, and the name that they have by what they are."""

import hashlib
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def key_of(pixels: Tensor) -> str:
    """64 hexadecimal digits, the sha256 of the size and the pixels uint8 (C, H, W): equal pictures, and no others."""
    size = "x".join(map(str, pixels.shape))
    return hashlib.sha256(f"{size}:".encode() + pixels.contiguous().numpy().tobytes()).hexdigest()


def to_png(pixels: Tensor) -> bytes:
    """uint8 (C, H, W) with one or three channels as a PNG file, without loss."""
    rows = pixels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rows[:, :, 0] if rows.shape[2] == 1 else rows)).save(buffer, format="PNG")
    return buffer.getvalue()


def from_png(content: bytes) -> Tensor:
    """What ``to_png`` was given."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
