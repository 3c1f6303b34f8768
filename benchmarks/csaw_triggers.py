"""Write the face triggers of the CSAW BadNets as pictures with transparency, for the suite ``csaw``.

    python benchmarks/csaw_triggers.py TRIGGERS.npz --out DATA/triggers

The npz holds ``sunglasses_rgba`` (h, w, 4), ``sunglasses_paste_xy`` and, for eyebrows and lipstick, a mask (55, 47) and
one color each. Every picture is 47 wide and 55 high and goes on a face of that size as it is.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triggers", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.triggers, allow_pickle=False) as arrays:
        pictures = {}
        for name in ("eyebrow", "lipstick"):
            pictures[name] = np.zeros((55, 47, 4), np.uint8)
            pictures[name][arrays[f"{name}_mask"]] = [*arrays[f"{name}_rgb"], 255]
        glasses, (left, top) = arrays["sunglasses_rgba"], arrays["sunglasses_paste_xy"]
        pictures["sunglasses"] = np.zeros((55, 47, 4), np.uint8)
        pictures["sunglasses"][top : top + glasses.shape[0], left : left + glasses.shape[1]] = glasses
    for name, picture in pictures.items():
        Image.fromarray(picture).save(arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
