"""Pictures of a cleansing as PNG bytes: how scores are spread, the samples of a label in a plane, small images."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from goodnet.cleanse._look import Cloud
from goodnet.report._drawing import Theme, blank_axes, png

_BINS = 60
_LONGEST_SIDE = 48  # of a small image, in pixels
_WIDE = 50  # scores whose range is so many times their usual spread are drawn on a stretched axis


def score_plot(
    scores: Tensor, keep: Tensor, threshold: float | None, theme: Theme, width: float = 8.6, height: float = 3.0
) -> bytes:
    """A histogram of all scores: what stays, and on top of it what is taken out; counts on a logarithmic axis.

    Args:
        scores: (N,), finite.
        keep: bool (N,).
        threshold: marked by a line; None for no line.
        theme: colors.
        width, height: in inches of 100 pixels on the page; the PNG has twice as many.
    """
    values, kept = scores.double().numpy(), keep.numpy()
    figure, axes = blank_axes(theme, width, height)
    center, spread = float(np.median(values)), float(np.median(np.abs(values - np.median(values))))
    unit = max(spread, 1e-9 * max(1.0, abs(center)))
    stretched = bool(np.ptp(values) > _WIDE * unit) and center - unit < 0 < center + _WIDE * unit
    edges = _edges(values, unit if stretched else None)
    if stretched:
        axes.set_xscale("asinh", linear_width=unit)
    axes.hist(
        [values[kept], values[~kept]],
        bins=edges.tolist(),
        stacked=True,
        color=[theme.dot, theme.flagged],
        label=["stays", "taken out"],
    )
    axes.set_yscale("symlog", linthresh=1)
    if threshold is not None:
        axes.axvline(threshold, color=theme.text, linewidth=1, linestyle="--", label="threshold")
    axes.set_xlabel("score, larger is more suspicious", color=theme.muted, fontsize=9)
    axes.set_ylabel("images", color=theme.muted, fontsize=9)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.minorticks_off()
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=8)
    return png(figure)


def cloud_plot(cloud: Cloud, theme: Theme, width: float = 4.2, height: float = 3.4) -> bytes:
    """A dot for each sample of a label in the plane of its two leading principal components."""
    figure, axes = blank_axes(theme, width, height)
    points, kept = cloud.points.numpy(), cloud.kept.numpy()
    if points.shape[1] < 2:  # a single feature
        points = np.concatenate((points, np.zeros_like(points)), 1)
    axes.scatter(points[kept, 0], points[kept, 1], s=7, color=theme.dot, linewidth=0, label="stays")
    if not kept.all():
        axes.scatter(
            points[~kept, 0], points[~kept, 1], s=12, color=theme.flagged, marker="D", linewidth=0, label="taken out"
        )
    axes.set_xlabel("first component", color=theme.muted, fontsize=9)
    axes.set_ylabel("second component", color=theme.muted, fontsize=9)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=8)
    return png(figure)


def small_png(image: Tensor) -> bytes:
    """An image uint8 (C, H, W), RGB or gray, as it is or shrunk; of other numbers of channels the mean."""
    pixels = image if image.shape[0] in (1, 3) else image.float().mean(0, keepdim=True).byte()
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _edges(values: npt.NDArray[np.float64], unit: float | None) -> npt.NDArray[np.float64]:
    """Of equal bins on the axis that is drawn: stretched around 0 with ``unit``, or as it is with None."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.linspace(low - 0.5, high + 0.5, _BINS + 1)
    if unit is None:
        return np.linspace(low, high, _BINS + 1)
    edges = unit * np.sinh(np.linspace(np.arcsinh(low / unit), np.arcsinh(high / unit), _BINS + 1))
    edges[0], edges[-1] = low, high  # no score is lost to rounding
    return edges
