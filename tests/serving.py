"""What the tests of the service share: a judge that needs no network, services, pictures."""

import io
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from goodnet.guard.goodnet import Judgement
from goodnet.serve.judging import Served
from goodnet.serve.quarantine import Limits, Quarantine
from goodnet.serve.service import Service
from goodnet.serve.settings import Settings

N = 4


@dataclass
class Brightness:
    """Answers how bright the first pixel is, in quarters; N where it is white. ``gate`` holds it back."""

    input_shape: tuple[int, int, int] = (1, 8, 6)
    num_classes: int = N
    offset: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def judge(self, images: Tensor) -> Judgement:
        self.gate.wait(30)
        self.batches.append(len(images))
        first = images[:, 0, 0, 0].long()
        classes = (first // 64 + self.offset) % N
        answers = torch.where(first == 255, N, classes)
        scores = first.double() / 255
        return Judgement(answers, scores, 1 - scores / 2, classes, classes)


def service_of(folder: Path, judge: Brightness, **settings: float) -> Service:
    """A service of a judge, with a quarantine in ``folder``; loading gives a judge that answers one more."""
    served = Served(judge, folder / "model", "v1", ("dark", "dim", "light"))

    def load(place: Path) -> Served:
        return Served(Brightness(offset=judge.offset + 1), place, "v2")

    return Service(served, Quarantine(folder / "q.sqlite3", Limits()), Settings(**settings), load)


def png(level: int, *, size: tuple[int, int] = (6, 8), mode: str = "L", kind: str = "PNG") -> bytes:
    """A picture of one gray."""
    buffer = io.BytesIO()
    Image.fromarray(np.full(size[::-1], level, np.uint8)).convert(mode).save(buffer, format=kind)
    return buffer.getvalue()


def files(*levels: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Pictures as httpx takes them."""
    return [("image", (f"{level}.png", png(level), "image/png")) for level in levels]


def array(level: float) -> list[list[list[float]]]:
    """A picture of one gray as numbers."""
    return [[[level] * 6] * 8]
