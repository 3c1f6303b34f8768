"""Where things stand in the plots of a benchmark's page; the template draws them and the style sheet colors them."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from goodnet.bench.sentences import title_of
from goodnet.bench.table import Table, TableRow
from goodnet.bench.trial import OUTCOMES, Trial
from goodnet.report.words import percent

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # between the ticks of accuracy
_TICK = 80.0  # pixels that one of them takes
_DIGIT, _LINE = 7.0, 13.0  # size of a number beside a dot, in pixels
_DOT = 6.0  # half of what a dot takes
_NOT_TAKEN = 0.1  # attack success up to which there is nothing to find, as in evaluation.repair


@dataclass(frozen=True)
class Area:
    """Pixels and axes of a plot of attack success, 0 to 1, over clean accuracy, ``low`` to 1.

    Attributes:
        width, height: of the whole.
        left, right, top, bottom: of the part in which the dots are.
    """

    width: float
    height: float
    low: float
    left: float = 46.0
    top: float = 30.0

    @property
    def right(self) -> float:
        return self.width - 20

    @property
    def bottom(self) -> float:
        return self.height - 44

    def x(self, accuracy: float) -> float:
        return round(self.left + (accuracy - self.low) / (1 - self.low) * (self.right - self.left), 1)

    def y(self, success: float) -> float:
        return round(self.bottom - success * (self.bottom - self.top), 1)


@dataclass(frozen=True)
class Dot:
    """One row in the plot, in pixels.

    Attributes:
        row: its number in the table.
        title: what it is, in words.
        number: where that number stands, its middle, beside the dot; None where it would cover something.
        published: where the published figures lie; None without them.
    """

    x: float
    y: float
    row: int
    title: str
    number: tuple[float, float] | None
    published: tuple[float, float] | None


@dataclass(frozen=True)
class Scatter:
    """Attack success over clean accuracy, after the repair where there is one.

    Attributes:
        area: pixels and axes.
        ticks: of accuracy: where, and what is written there.
        dots: one for each row that has both numbers.
        bare: (where, number, words) of the rows without an attack.
    """

    area: Area
    ticks: tuple[tuple[float, str], ...]
    dots: tuple[Dot, ...]
    bare: tuple[tuple[float, int, str], ...]


@dataclass(frozen=True)
class Bar:
    """What an auditor said about nets of one kind; ``parts``: (outcome, how many, start and width in percent)."""

    audit: str
    nets: str
    count: int
    parts: tuple[tuple[str, int, float, float], ...]


def scatter(table: Table, width: float, height: float) -> Scatter | None:
    """The plot in so many pixels; None where no row has both numbers."""
    known = [(number, row) for number, row in enumerate(table.rows, 1) if row.accuracy.mean is not None]
    rows = [(number, row) for number, row in known if row.cleanse == "none"]  # cleansers leave the net as it is
    if all(row.final_success.mean is None for _, row in rows):
        return None
    ticks = _ticks(min(_accuracies(row for _, row in rows)), most=int(width / _TICK))
    area = Area(width, height, low=ticks[0])
    bare = [(number, row) for number, row in rows if row.attack == "none"]
    return Scatter(
        area=area,
        ticks=tuple((area.x(tick), percent(tick)) for tick in ticks),
        dots=_dots([(number, row) for number, row in rows if row.final_success.mean is not None], area),
        bare=tuple((area.x(row.final_accuracy.mean or 0), number, _title(number, row)) for number, row in bare),
    )


def bars(table: Table) -> list[Bar]:
    """Verdicts against the truth, for each auditor and kind of net; empty without audits that are done."""
    judged: dict[tuple[str, str], Counter[str]] = {}
    for row in table.rows:
        for trial in row.trials:
            if trial.judged is not None:
                judged.setdefault((row.audit, _kind(trial)), Counter())[trial.judged.outcome] += 1
    return [_bar(audit, nets, counts) for (audit, nets), counts in sorted(judged.items())]


def _bar(audit: str, nets: str, counts: Counter[str]) -> Bar:
    total, parts, start = counts.total(), [], 0.0
    for outcome in OUTCOMES:
        if counts[outcome]:
            share = 100 * counts[outcome] / total
            parts.append((outcome, counts[outcome], round(start, 2), round(share, 2)))
            start += share
    return Bar(audit, nets, total, tuple(parts))


def _kind(trial: Trial) -> str:
    if trial.judged is not None and not trial.judged.true_targets:
        return "nets without a backdoor"
    success = trial.success.value if trial.success is not None else None
    taken = success is None or success > _NOT_TAKEN
    return (
        "nets with a backdoor" if taken else f"nets whose attack did not take (success at most {percent(_NOT_TAKEN)})"
    )


def _ticks(lowest: float, most: int) -> list[float]:
    """Up to 1, from the last one below ``lowest``, in the smallest steps of which there are not more than ``most``."""
    step = next((step for step in _STEPS if (1 - lowest) / step < most - 1), _STEPS[-1])
    count = max(1, math.ceil((1 - lowest) / step + 0.25))
    return [max(0.0, round(1 - step * back, 4)) for back in range(count, -1, -1) if step * (back - 1) < 1]


def _accuracies(rows: Iterable[TableRow]) -> Iterable[float]:
    for row in rows:
        for accuracy in (row.final_accuracy.mean, row.published.clean_accuracy if row.published else None):
            if accuracy is not None:
                yield accuracy


def _dots(rows: list[tuple[int, TableRow]], area: Area) -> tuple[Dot, ...]:
    places = {
        number: (area.x(row.final_accuracy.mean or 0), area.y(row.final_success.mean or 0)) for number, row in rows
    }
    said = [place for _, row in rows if (place := _published(row, area)) is not None]
    taken = [(x, y, _DOT, _DOT) for x, y in (*places.values(), *said)]
    dots = []
    for number, row in rows:
        x, y = places[number]
        half = _DIGIT * len(str(number)) / 2
        beside = [
            (x + _DOT + half + 2, y),
            (x - _DOT - half - 2, y),
            (x, y - _DOT - _LINE / 2),
            (x, y + _DOT + _LINE / 2),
        ]
        free = [(*place, half, _LINE / 2) for place in beside if _inside(place, half, area)]
        box = next((box for box in free if not any(_overlap(box, other) for other in taken)), None)
        if box is not None:
            taken.append(box)
        dots.append(Dot(x, y, number, _title(number, row), box and (round(box[0], 1), box[1]), _published(row, area)))
    return tuple(dots)


def _inside(place: tuple[float, float], half: float, area: Area) -> bool:
    return area.left < place[0] - half and place[0] + half < area.width and place[1] - _LINE / 2 > 0


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Of boxes given by their middle and half their size."""
    return abs(one[0] - other[0]) < one[2] + other[2] and abs(one[1] - other[1]) < one[3] + other[3]


def _published(row: TableRow, area: Area) -> tuple[float, float] | None:
    said = row.published
    if row.repair != "none" or said is None or said.clean_accuracy is None or said.attack_success_rate is None:
        return None
    return area.x(said.clean_accuracy), area.y(said.attack_success_rate)


def _title(number: int, row: TableRow) -> str:
    left = row.final_success.mean
    success = "" if left is None else f", attack success {percent(left)}"
    return f"{number}: {title_of(row)}: clean accuracy {percent(row.final_accuracy.mean or 0)}{success}"
