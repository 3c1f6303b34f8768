"""The bundled set: scikit-learn's handwritten digits, enlarged; needs no download."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from goodnet.core.samples import Samples
from goodnet.data._layout import Layout, Selection

NAME = "digits"
SIDE = 32  # pixels, four times the original
_TEST_EVERY = 5  # of each class, every fifth image is for testing


def recognizes(path: Path) -> bool:
    """Is it the bare name of this set?"""
    return path == Path(NAME)


def load(path: Path, selection: Selection) -> Samples:
    """1,797 digits as uint8 (N, 1, 32, 32): "train" 1,442, "test" 355, stratified by class and always the same.

    Source: UCI Optical Recognition of Handwritten Digits, 8x8 pixels of 0..16, as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits  # here, because scikit-learn takes a second to import

    digits = load_digits()
    tested = np.zeros(len(digits.target), bool)
    for digit in range(10):
        tested[np.flatnonzero(digits.target == digit)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    chosen = np.flatnonzero(tested if selection.chosen_split(("train", "test")) == "test" else ~tested)
    positions = selection.positions(len(chosen))
    rows = chosen[positions]
    # 0..16 times multiples of 1/64 is exact in float32, so every machine makes the same pixels
    small = torch.from_numpy(digits.images[rows]).float()[:, None]
    images = F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False) * (255 / 16)
    return Samples(
        images=images.round().byte(),
        labels=torch.from_numpy(digits.target[rows]).long(),
        ids=torch.from_numpy(positions),
        class_names=tuple("0123456789"),
    )


LAYOUT = Layout(
    name=NAME,
    description=f"the word {NAME!r}: 1,797 handwritten digits that come with goodnet",
    recognizes=recognizes,
    load=load,
)
