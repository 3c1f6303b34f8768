"""Pictures of a report as PNG bytes: the plot over all labels, and images and masks enlarged pixel by pixel.

Matplotlib is used through its objects only, so nothing global is touched and nothing needs a display.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image
from torch import Tensor

from goodnet.audit._base import LabelFinding
from goodnet.report._drawing import Theme, blank, png

_SMALLEST_SIDE, _LARGEST_SIDE = 192, 640  # of an enlarged picture's longer side, in pixels
_MAD_TO_SIGMA = 1.4826  # for a normal distribution
_LOG_RANGE = 30  # values that span more than this are drawn on a logarithmic axis
_MOST_NAMED = 8  # flagged labels that get their number written beside them
_FEW_LABELS = 50  # drawn with a line from the median, large


@dataclass(frozen=True)
class LabelSeries:
    """One number for each label.

    Attributes:
        measure: "mask_l1" (pixels, smaller is more suspicious) or "score" (larger is more suspicious).
        labels: int (n,), rising.
        values: float (n,), finite.
        flagged: bool (n,).
        missing: how many labels were looked at and have no finite number.
    """

    measure: str
    labels: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    flagged: npt.NDArray[np.bool_]
    missing: int

    @property
    def logarithmic(self) -> bool:
        """Whether the values are drawn on a logarithmic axis."""
        return bool(self.values.min() > 0 and self.values.max() > _LOG_RANGE * self.values.min())

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def band(self) -> tuple[float, float]:
        """Median ± 2 · 1.4826 · MAD: where 95% of normally distributed values lie; of logarithms if so drawn."""
        values = np.log(self.values) if self.logarithmic else self.values
        center = np.median(values)
        spread = 2 * _MAD_TO_SIGMA * np.median(np.abs(values - center))
        low, high = float(center - spread), float(center + spread)
        return (math.exp(low), math.exp(high)) if self.logarithmic else (low, high)


def label_series(findings: Sequence[LabelFinding]) -> LabelSeries | None:
    """The trigger size of each label if the method measured it, else its score; None for less than two numbers."""
    by_label = sorted(findings, key=lambda finding: finding.label)
    for measure in ("mask_l1", "score"):
        numbers = [finding.details.get(measure) if measure == "mask_l1" else finding.score for finding in by_label]
        values = np.array([math.nan if value is None else float(value) for value in numbers])
        finite = np.isfinite(values)
        if finite.sum() >= 2:
            labels = np.array([finding.label for finding in by_label], dtype=np.int64)
            flagged = np.array([finding.flagged for finding in by_label], dtype=np.bool_)
            return LabelSeries(measure, labels[finite], values[finite], flagged[finite], int((~finite).sum()))
    return None


def label_plot(series: LabelSeries, theme: Theme, width: float = 8.6, height: float = 3.3) -> bytes:
    """A dot for each label, the median, the band around it, and flagged labels as numbered diamonds.

    Args:
        series: what to draw.
        theme: colors.
        width, height: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    figure = blank(theme, width, height)
    axes = figure.add_subplot()
    _draw_values(axes, series, theme)
    _name_flagged(axes, series, theme)
    _dress(axes, series, theme)
    # a narrow plot has no room for ten long numbers
    ticks = 10 if series.labels[-1] < 100 else round(1.2 * width)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    return png(figure)


def _draw_values(axes: Axes, series: LabelSeries, theme: Theme) -> None:
    low, high = series.band
    axes.axhspan(low, high, color=theme.band, linewidth=0, zorder=0)
    axes.axhline(series.median, color=theme.muted, linewidth=1, zorder=1)
    axes.annotate(
        "median",
        (1, series.median),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        color=theme.muted,
        fontsize=8,
    )
    few = len(series.labels) <= _FEW_LABELS
    usual = ~series.flagged
    if few:
        colors = np.where(series.flagged, theme.flagged, theme.dot)
        axes.vlines(series.labels, series.median, series.values, colors=colors.tolist(), linewidth=1.2, zorder=2)
    axes.scatter(series.labels[usual], series.values[usual], s=36 if few else 7, color=theme.dot, linewidth=0, zorder=3)
    axes.scatter(
        series.labels[series.flagged], series.values[series.flagged], s=60, color=theme.flagged, marker="D", zorder=4
    )


def _name_flagged(axes: Axes, series: LabelSeries, theme: Theme) -> None:
    middle = (series.labels[0] + series.labels[-1]) / 2
    for index in np.flatnonzero(series.flagged)[:_MOST_NAMED]:
        left = series.labels[index] <= middle
        axes.annotate(
            str(series.labels[index]),
            (float(series.labels[index]), float(series.values[index])),
            (9 if left else -9, 0),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            color=theme.flagged,
            fontsize=10,
            fontweight="bold",
            zorder=5,
        )


def _dress(axes: Axes, series: LabelSeries, theme: Theme) -> None:
    if series.logarithmic:
        axes.set_yscale("log")
        decades = math.log10(series.values.max() / series.values.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if series.measure == "mask_l1":
            axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
    axes.set_xlabel("label", color=theme.muted, fontsize=9)
    words = "trigger size (pixels)" if series.measure == "mask_l1" else "score"
    axes.set_ylabel(words, color=theme.muted, fontsize=9)
    axes.set_facecolor(theme.background)
    axes.tick_params(which="both", colors=theme.muted, labelsize=9, length=0)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture_png(image: Tensor) -> bytes:
    """An image as PNG, each pixel enlarged to a square so that the longer side has at least 192 pixels.

    Args:
        image: float (C, H, W) in [0, 1], RGB or gray; of other numbers of channels the mean is shown. What is not
            finite is black.
    """
    channels = image.detach().float().cpu()
    if channels.shape[0] != 3:
        channels = channels.mean(0, keepdim=True)
    pixels = (channels.nan_to_num(0, 1, 0).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    longest = max(picture.size)
    if longest < _SMALLEST_SIDE:
        factor = math.ceil(_SMALLEST_SIDE / longest)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    elif longest > _LARGEST_SIDE:
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
