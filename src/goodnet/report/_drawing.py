"""What all pictures of the reports begin and end with: a figure in the colors of the page, and its bytes."""

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colors of a plot; the style sheet of the page has the same ones."""

    background: str
    text: str
    muted: str
    grid: str
    band: str
    dot: str
    flagged: str


LIGHT = Theme("#ffffff", "#1b1f24", "#57606a", "#e4e7eb", "#e9eef4", "#4f6f91", "#b3261e")
DARK = Theme("#16191d", "#e8eaed", "#a4adb8", "#2b3036", "#232a33", "#8fb2d6", "#ff8f85")


def blank(theme: Theme, width: float, height: float, dpi: int = 200) -> Figure:
    """An empty figure of so many inches, drawn by no window system."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def blank_axes(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, without a frame."""
    figure = blank(theme, width, height)
    axes = figure.add_subplot(facecolor=theme.background)
    axes.tick_params(which="both", colors=theme.muted, labelsize=9, length=0)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
