"""Several seeds: how much a number varies, and by how much two methods differ on the same seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from goodnet.errors import ParameterError


@dataclass(frozen=True)
class Spread:
    """Mean and variation of a number over runs.

    Attributes:
        mean: None without runs.
        standard_deviation: of a single run (divisor count - 1), not of the mean; None with fewer than two runs.
        count: how many runs.
    """

    mean: float | None
    standard_deviation: float | None
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of one number per run.

    Raises:
        ParameterError: a value is not finite; leave such runs out and say so.
    """
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ParameterError("values must be finite; leave runs without a number out, and say so")
    return Spread(
        mean=statistics.fmean(numbers) if numbers else None,
        standard_deviation=statistics.stdev(numbers) if len(numbers) > 1 else None,
        count=len(numbers),
    )


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Spread:
    """First minus second on each seed: what both share (the data, the backdoored model) cancels out.

    Args:
        first, second: seed → value, of the same seeds.

    Raises:
        ParameterError: the seeds differ, or a value is not finite.
    """
    if first.keys() != second.keys():
        lonely = ", ".join(map(str, sorted(first.keys() ^ second.keys())))
        raise ParameterError(f"pairs need the same seeds; only one side has {lonely}")
    return spread([first[seed] - second[seed] for seed in sorted(first)])
