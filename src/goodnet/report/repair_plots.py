"""Pictures of a repair as PNG bytes: the maps of one layer without and with a trigger."""

import io
from collections.abc import Sequence

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from goodnet.core.rates import Rate
from goodnet.repair._look import ActivationMaps
from goodnet.report.plots import Theme

_GAP = 1  # pixels of the map between two channels


def activation_plot(maps: ActivationMaps, theme: Theme, width: float = 8.6) -> bytes:
    """The mean map of each channel, without the trigger at the left and with it at the right, on one scale of gray.

    Channels are in their order, row by row; those that rise most are framed.

    Args:
        maps: what to draw.
        theme: colors.
        width: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    columns = max(1, round(len(maps.channels) ** 0.5 + 0.49))
    rows = -(-len(maps.channels) // columns)
    figure = Figure(
        figsize=(width, width / 2 * rows / columns + 0.4), dpi=200, facecolor=theme.background, layout="constrained"
    )
    FigureCanvasAgg(figure)
    both = figure.subplots(1, 2)
    top = max(float(maps.clean.max()), float(maps.stamped.max()))
    for axes, shown, title in zip(both, (maps.clean, maps.stamped), ("without trigger", "with trigger"), strict=True):
        axes.imshow(_grid(shown, columns, rows).numpy(), cmap="gray", vmin=0, vmax=max(top, 1e-9))
        axes.set_title(title, color=theme.text, fontsize=10)
        axes.set_axis_off()
        height, across = shown.shape[1] + _GAP, shown.shape[2] + _GAP
        for place, channel in enumerate(maps.channels):
            if channel in maps.marked:
                corner = (place % columns * across - 1, place // columns * height - 1)
                axes.add_patch(
                    Rectangle(corner, across, height, fill=False, edgecolor=theme.flagged, linewidth=2, clip_on=False)
                )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def price_plot(alarms: Sequence[Rate], stopped: Sequence[Rate], chosen: Rate, theme: Theme) -> bytes:
    """What a GoodNet's thresholds cost and buy: triggers stopped against clean images answered N, with 95% intervals.

    Args:
        alarms: clean images answered N, threshold by threshold.
        stopped: images under reconstructed triggers that do not go to the target, at the same thresholds.
        chosen: clean images answered N at the threshold that was fitted; marked by a line.
        theme: colors.
    """
    figure = Figure(figsize=(6.4, 3.2), dpi=200, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=theme.background)
    across = [100 * (rate.value or 0.0) for rate in alarms]
    bands = [rate.interval() or (0.0, 1.0) for rate in stopped]
    axes.fill_between(across, [100 * low for low, _ in bands], [100 * high for _, high in bands], color=theme.band)
    axes.plot(across, [100 * (rate.value or 0.0) for rate in stopped], color=theme.dot, marker=".")
    axes.axvline(100 * (chosen.value or 0.0), color=theme.flagged, linewidth=1)
    axes.set_xlabel("clean images answered N, %", color=theme.text)
    axes.set_ylabel("triggers stopped, %", color=theme.text)
    axes.set_ylim(-2, 102)
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    axes.set_xlim(-0.1, 105)
    axes.minorticks_off()
    axes.tick_params(colors=theme.muted)
    axes.grid(color=theme.grid)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _grid(maps: Tensor, columns: int, rows: int) -> Tensor:
    """The maps (n, h, w) side by side, with a gap that is not drawn."""
    height, across = maps.shape[1] + _GAP, maps.shape[2] + _GAP
    whole = torch.full((rows * height - _GAP, columns * across - _GAP), float("nan"))
    for place, one in enumerate(maps):
        top, left = place // columns * height, place % columns * across
        whole[top : top + one.shape[0], left : left + one.shape[1]] = one
    return whole
