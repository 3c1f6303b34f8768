"""Triggers: pure functions on float32 images (N, C, H, W) in [0, 1]."""

from goodnet.triggers.blend import blend
from goodnet.triggers.patch import four_pixels, patch_mask, solid_patch
from goodnet.triggers.sinusoid import sinusoid
from goodnet.triggers.warp import warp, warping_grid

__all__ = ["blend", "four_pixels", "patch_mask", "sinusoid", "solid_patch", "warp", "warping_grid"]
