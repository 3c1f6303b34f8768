"""The page of a learner: what it did not trust, label by label, and how fast both groups were learned."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from matplotlib.ticker import MaxNLocator

import goodnet
from goodnet.report._drawing import LIGHT, Theme, blank, png
from goodnet.report.html import environment

_MOST_LABELS = 50  # that are shown, most distrusted first


def render_learned(record: Mapping[str, Any]) -> str:
    """The page as HTML, self-contained; every name in it is escaped.

    Args:
        record: what learned.json holds.
    """
    curves = record["evidence"].get("loss_curves")
    ranked = sorted(record["labels"], key=lambda one: -(one["distrusted"] or 0))
    return (
        environment("goodnet.report")
        .get_template("learn.html")
        .render(
            record=record,
            name=PurePath(record["data"]).name or "unnamed data",
            labels=ranked[:_MOST_LABELS] if record["distrusted"] else [],
            left_out=max(0, len(ranked) - _MOST_LABELS),
            curves=None if curves is None else _uri(loss_plot(curves, LIGHT)),
            version=goodnet.__version__,
        )
    )


def loss_plot(curves: Mapping[str, Mapping[str, Sequence[float]]], theme: Theme) -> bytes:
    """Median and middle half of the losses after each epoch, of what was isolated and of the rest, as PNG.

    Args:
        curves: "isolated" and "kept", each with "low", "median" and "high", one value for each epoch.
        theme: colors.
    """
    figure = blank(theme, 6.4, 3.2)
    axes = figure.add_subplot(facecolor=theme.background)
    for name, color, words in (("kept", theme.dot, "kept"), ("isolated", theme.flagged, "isolated")):
        curve = curves[name]
        epochs = range(1, len(curve["median"]) + 1)
        axes.fill_between(epochs, curve["low"], curve["high"], color=color, alpha=0.2, linewidth=0)
        axes.plot(epochs, curve["median"], color=color, label=words, marker=".")
    axes.set_xlabel("epoch of isolation", color=theme.text)
    axes.set_ylabel("loss", color=theme.text)
    axes.set_yscale("symlog", linthresh=2.5, linscale=2)  # ordinary losses as they are, wild ones far apart
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=theme.muted)
    axes.grid(color=theme.grid)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, labelcolor=theme.text)
    return png(figure)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
