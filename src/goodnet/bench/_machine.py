"""What the machine has and what this process runs on; Linux tells more than other systems do. Imports no torch."""

import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import goodnet

_KIB = 1024


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Memory that programs may still take: what is free, at most what the container may hold; else all there is."""
    free = _proc_kib("/proc/meminfo", "MemAvailable")
    memory = free * _KIB if free is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or no limit: "max"
        return memory


def reset_peak_memory() -> None:
    """Let ``peak_memory_bytes`` count from here on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """The most memory that this process held since ``reset_peak_memory``, or since its start."""
    peak = _proc_kib("/proc/self/status", "VmHWM")  # ru_maxrss counts also what the parent held before the fork
    if peak is not None:
        return peak * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


def _proc_kib(file: str, name: str) -> int | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


@functools.cache
def library_versions() -> dict[str, str]:
    """The versions that a result depends on, as ``goodnet.core.run`` gives them, without importing torch."""
    return {
        "goodnet": goodnet.__version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
    }


@functools.cache
def git_commit() -> str | None:
    """The commit of the working copy that goodnet runs from, with "-dirty" if its source was changed; else None."""
    source = Path(goodnet.__file__).resolve().parents[1]
    if not (source.parent / ".git").exists():
        return None
    # without optional locks: a benchmark must not be in the way of somebody's commit
    command = ["git", "-C", str(source), "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--", "."]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    commit = next(line.split()[2] for line in answer if line.startswith("# branch.oid"))
    return commit if all(line.startswith("#") for line in answer) else f"{commit}-dirty"
