"""Benchmarks: a suite becomes cells, an engine computes them, a store keeps one row for each."""

from goodnet.bench.engines import run_cells
from goodnet.bench.engines._base import Engine, Perform, Progress, Summary
from goodnet.bench.engines.processes import Processes
from goodnet.bench.engines.ray_engine import Ray
from goodnet.bench.engines.serial import Serial
from goodnet.bench.record import Cell, Record
from goodnet.bench.store import Store
from goodnet.bench.suite import Suite, load_suite, open_suite, shipped_suites

__all__ = [
    "Cell",
    "Engine",
    "Perform",
    "Processes",
    "Progress",
    "Ray",
    "Record",
    "Serial",
    "Store",
    "Suite",
    "Summary",
    "load_suite",
    "open_suite",
    "run_cells",
    "shipped_suites",
]
