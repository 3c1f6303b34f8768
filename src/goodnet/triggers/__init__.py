"""Triggers: pure functions on float32 images (N, C, H, W) in [0, 1]."""

from goodnet.triggers.blend import blend
from goodnet.triggers.corners import corner_checkerboards, corner_masks
from goodnet.triggers.halves import halves
from goodnet.triggers.image import glasses, paste, read_image
from goodnet.triggers.low_frequency import low_frequency_pattern
from goodnet.triggers.patch import four_pixels, patch_mask, solid_patch, top_left
from goodnet.triggers.pieces import random_pieces
from goodnet.triggers.quantize import dither, quantize
from goodnet.triggers.sinusoid import sinusoid
from goodnet.triggers.warp import warp, warping_grid

__all__ = [
    "blend",
    "corner_checkerboards",
    "corner_masks",
    "dither",
    "four_pixels",
    "glasses",
    "halves",
    "low_frequency_pattern",
    "paste",
    "patch_mask",
    "quantize",
    "random_pieces",
    "read_image",
    "sinusoid",
    "solid_patch",
    "top_left",
    "warp",
    "warping_grid",
]
