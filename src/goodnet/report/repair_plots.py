"""Pictures of a repair as PNG bytes: curves of pruning and of a GoodNet's price, and the maps of one layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from goodnet.core.rates import Rate
from goodnet.repair._look import ActivationMaps
from goodnet.report._drawing import Theme, blank, blank_axes, png

_GAP = 1  # pixels of the map between two channels
_NARROW = 5.0  # inches


def activation_plot(maps: ActivationMaps, theme: Theme, width: float = 8.6) -> bytes:
    """The mean map of each channel, without the trigger and then with it, on one scale of gray.

    Channels are in their order, row by row; those that rise most are framed.

    Args:
        maps: what to draw.
        theme: colors.
        width: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    columns = max(1, round(len(maps.channels) ** 0.5 + 0.49))
    rows = -(-len(maps.channels) // columns)
    beside = width > _NARROW  # on a phone one under the other
    across = width / 2 if beside else width
    height = across * rows / columns + 0.4
    figure = blank(theme, width, height if beside else 2 * height)
    both = figure.subplots(1, 2) if beside else figure.subplots(2, 1)
    top = max(float(maps.clean.max()), float(maps.stamped.max()))
    for axes, shown, title in zip(both, (maps.clean, maps.stamped), ("without trigger", "with trigger"), strict=True):
        axes.imshow(_grid(shown, columns, rows).numpy(), cmap="gray", vmin=0, vmax=max(top, 1e-9))
        axes.set_title(title, color=theme.text, fontsize=10)
        axes.set_axis_off()
        tall, wide = shown.shape[1] + _GAP, shown.shape[2] + _GAP
        for place, channel in enumerate(maps.channels):
            if channel in maps.marked:
                corner = (place % columns * wide - 1, place // columns * tall - 1)
                axes.add_patch(
                    Rectangle(corner, wide, tall, fill=False, edgecolor=theme.flagged, linewidth=2, clip_on=False)
                )
    return png(figure)


def price_plot(
    alarms: Sequence[Rate],
    stopped: Sequence[Rate],
    chosen: Rate,
    theme: Theme,
    width: float = 8.6,
    height: float = 3.3,
) -> bytes:
    """What a GoodNet's thresholds cost and buy: triggers stopped against clean images answered N, with 95% intervals.

    Args:
        alarms: clean images answered N, threshold by threshold.
        stopped: images under reconstructed triggers that do not go to the target, at the same thresholds.
        chosen: clean images answered N at the threshold that was fitted; marked by a line.
        theme: colors.
        width, height: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    figure, axes = blank_axes(theme, width, height)
    axes.grid(color=theme.grid, linewidth=0.8)
    across = [100 * (rate.value or 0.0) for rate in alarms]
    bands = [rate.interval() or (0.0, 1.0) for rate in stopped]
    axes.fill_between(across, [100 * low for low, _ in bands], [100 * high for _, high in bands], color=theme.band)
    axes.plot(across, [100 * (rate.value or 0.0) for rate in stopped], color=theme.dot, marker=".")
    axes.axvline(100 * (chosen.value or 0.0), color=theme.flagged, linewidth=1)
    axes.set_xlabel("clean images answered N, %", color=theme.muted, fontsize=9)
    axes.set_ylabel("triggers stopped, %", color=theme.muted, fontsize=9)
    axes.set_ylim(-2, 102)
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    axes.set_xlim(-0.1, 105)
    axes.minorticks_off()
    return png(figure)


@dataclass(frozen=True)
class CurvePoint:
    """One point of a pruning curve.

    Attributes:
        channels: how many are pruned.
        accuracy: share answered as wanted, in [0, 1].
        success: share that a trigger still turns; None without one.
    """

    channels: int
    accuracy: float
    success: float | None = None


def pruning_plot(
    points: Sequence[CurvePoint],
    marks: Mapping[float, int],
    pruned: int,
    measure: str,
    theme: Theme,
    width: float = 8.6,
    height: float = 3.3,
) -> bytes:
    """Accuracy and trigger success against the channels pruned, with the last points within some losses of accuracy.

    Args:
        points: at least two, by rising number of channels.
        marks: a loss of accuracy in [0, 1] → channels that may go for it; a diamond each.
        pruned: channels that went; marked by a line.
        measure: what accuracy is called.
        theme: colors.
        width, height: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    figure, axes = blank_axes(theme, width, height)
    axes.grid(color=theme.grid, linewidth=0.8)
    across, kept = [one.channels for one in points], [100 * one.accuracy for one in points]
    axes.axvline(pruned, color=theme.muted, linewidth=1)
    axes.plot(across, kept, color=theme.dot, linewidth=1.8, label=measure)
    known = [(one.channels, 100 * one.success) for one in points if one.success is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=theme.flagged, linewidth=1.8, dashes=(4, 2), label="trigger works")
    at = {count: drop for drop, count in sorted(marks.items(), reverse=True)}  # of equal ones the smallest loss
    for place, (count, drop) in enumerate(sorted(at.items())):
        height_there = kept[across.index(count)]
        axes.plot([count], [height_there], color=theme.dot, marker="D", markersize=6, linestyle="")
        axes.annotate(
            f"−{100 * drop:g} %",
            (count, height_there),
            (-6, -14 - 12 * place),
            textcoords="offset points",
            ha="right",
            color=theme.text,
            fontsize=8,
        )
    axes.set_xlabel("channels pruned", color=theme.muted, fontsize=9)
    axes.set_ylabel("images, %", color=theme.muted, fontsize=9)
    axes.set_ylim(-2, 104)
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=9, loc="lower left")
    return png(figure)


def _grid(maps: Tensor, columns: int, rows: int) -> Tensor:
    """The maps (n, h, w) side by side, with a gap that is not drawn."""
    height, across = maps.shape[1] + _GAP, maps.shape[2] + _GAP
    whole = torch.full((rows * height - _GAP, columns * across - _GAP), float("nan"))
    for place, one in enumerate(maps):
        top, left = place // columns * height, place % columns * across
        whole[top : top + one.shape[0], left : left + one.shape[1]] = one
    return whole
