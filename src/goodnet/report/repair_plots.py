"""Pictures of a repair as PNG bytes: the maps of one layer without and with a trigger."""

import io

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

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


def _grid(maps: Tensor, columns: int, rows: int) -> Tensor:
    """The maps (n, h, w) side by side, with a gap that is not drawn."""
    height, across = maps.shape[1] + _GAP, maps.shape[2] + _GAP
    whole = torch.full((rows * height - _GAP, columns * across - _GAP), float("nan"))
    for place, one in enumerate(maps):
        top, left = place // columns * height, place % columns * across
        whole[top : top + one.shape[0], left : left + one.shape[1]] = one
    return whole
