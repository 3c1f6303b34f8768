"""One run of a method: its randomness, its time and who is told about progress; and the record of what it cost."""

import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import goodnet

Progress = Callable[[float, str], None]  # (share done in 0..1, what is being done)


def _silent(share: float, text: str) -> None:
    pass


@dataclass
class Run:
    """What a method's hook is given beside the Defender.

    Attributes:
        generator: the only source of randomness.
        deadline: ``time.monotonic()`` at which the best answer so far is wanted, or None.
        progress: call it with the share done and a few words.
        started: ``time.monotonic()`` at which the run began.
    """

    generator: torch.Generator
    deadline: float | None = None
    progress: Progress = _silent
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a result came about, and what the method assumes (see Card); travels with every result."""

    method: str
    version: int
    parameters: Mapping[str, Any]
    seed: int
    seconds: float
    peak_memory_bytes: int
    device: str
    counts: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    assumes: tuple[str, ...] = ()


def library_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"goodnet": goodnet.__version__, "torch": torch.__version__, "python": platform.python_version()}


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the device for CUDA, resident for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
