"""The page of a cleansing: what was taken out and why, scores, features in a plane, sources, images of each class."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from torch import Tensor

import goodnet
from goodnet.cleanse._look import Cloud
from goodnet.cleanse.files import FileCleansed
from goodnet.report import words
from goodnet.report._drawing import DARK, LIGHT, Theme
from goodnet.report.cleanse_plots import cloud_plot, score_plot, small_png
from goodnet.report.html import environment

_MOST_CLASSES, _EACH = 60, 8  # classes with images, and images of either kind
_MOST_SOURCES = 50
_SIZES = {"wide": (8.6, 3.0), "narrow": (3.5, 2.8)}


def render_cleansing(record: Mapping[str, Any], result: FileCleansed, clouds: Sequence[Cloud]) -> str:
    """The page as HTML, self-contained; every name in it is escaped.

    Args:
        record: what cleanse.json holds.
        result: whose images, scores and sources are shown.
        clouds: of the labels that are drawn; see ``cleanse._look``.
    """
    assert result.samples.labels is not None
    names, cleansed = result.samples.class_names, result.cleansed
    line = _threshold(result)
    montages = _montages(result)
    return (
        environment("goodnet.report")
        .get_template("cleanse.html")
        .render(
            record=record,
            name=PurePath(record["data"]).name or "unnamed set",
            labels=[one | {"shown": words.label_name(one["label"], names)} for one in _by_loss(record)],
            histogram=_variants(
                lambda theme, size: score_plot(cleansed.scores, cleansed.keep, line, theme, *_SIZES[size])
            ),
            threshold=line,
            clouds=[
                {"name": words.label_name(cloud.label, names), "cloud": cloud, "variants": _cloud(cloud)}
                for cloud in clouds
            ],
            sources=_sources(result)[:_MOST_SOURCES],
            more_sources=max(0, len(_sources(result)) - _MOST_SOURCES),
            hit=[one for one in montages if one["removed"]],
            others=[one for one in montages if not one["removed"]],
            unseen=max(0, result.samples.labels.unique().numel() - _MOST_CLASSES),
            version=goodnet.__version__,
        )
    )


def _threshold(result: FileCleansed) -> float | None:
    """The method's own where it has one for all samples; else the lowest score that is taken out, if there is one."""
    told = result.cleansed.evidence.get("threshold")
    if isinstance(told, float):
        return told
    gone = result.cleansed.scores[~result.cleansed.keep]
    return float(gone.min()) if len(gone) else None


def _by_loss(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels, those that lose most first."""
    return sorted(record["labels"], key=lambda one: (-one["removed"], -one["score"]))


def _montages(result: FileCleansed) -> list[dict[str, Any]]:
    """The most and the least suspicious images of each class, classes that lose most first."""
    labels, scores, gone, made = result.samples.labels, result.cleansed.scores, ~result.cleansed.keep, []
    assert labels is not None
    places = {int(label): (labels == label).nonzero()[:, 0] for label in labels.unique()}
    ranked = sorted(places, key=lambda one: (-int(gone[places[one]].sum()), -float(scores[places[one]].max())))
    for label in ranked[:_MOST_CLASSES]:
        where = places[label]
        order = where[scores[where].argsort(descending=True, stable=True)]
        first = min(_EACH, -(-len(order) // 2))
        made.append(
            {
                "name": words.label_name(label, result.samples.class_names),
                "images": len(where),
                "removed": int(gone[where].sum()),
                "most": _pictures(result, order[:first]),
                "least": _pictures(result, order[max(first, len(order) - _EACH) :]),
            }
        )
    return made


def _pictures(result: FileCleansed, places: Tensor) -> list[dict[str, Any]]:
    samples, cleansed = result.samples, result.cleansed
    assert samples.ids is not None
    return [
        {
            "source": _uri(small_png(samples.images[place])),
            "id": int(samples.ids[place]),
            "file": result.files[place] if result.files else "",
            "score": words.number(float(cleansed.scores[place])),
            "kept": bool(cleansed.keep[place]),
        }
        for place in places.tolist()
    ]


def _sources(result: FileCleansed) -> list[dict[str, Any]]:
    """Each source with what it lost, those that lose the largest share first; empty without sources that were given."""
    source, cleansed = result.samples.sources, result.cleansed
    if source is None or not result.source_names:
        return []
    contradicted = cleansed.evidence.get("contradicted", {})
    flagged = cleansed.evidence.get("flagged_sources", [])
    rows = []
    for number, name in enumerate(result.source_names):
        mine = source == number
        if not mine.any():
            continue
        gone, share = int((mine & ~cleansed.keep).sum()), contradicted.get(str(number))
        rows.append(
            {
                "name": name,
                "images": int(mine.sum()),
                "removed": gone,
                "share": gone / int(mine.sum()),
                "score": float(cleansed.scores[mine].median()),
                "contradicted": "–" if share is None else words.percent(share),
                "flagged": number in flagged,
            }
        )
    return sorted(rows, key=lambda row: (-row["share"], -row["score"]))


def _variants(draw: Callable[[Theme, str], bytes]) -> dict[str, str]:
    """Of one plot the four pictures of which the page shows one."""
    return {
        f"{size}-{scheme}": _uri(draw(theme, size))
        for size in _SIZES
        for scheme, theme in (("light", LIGHT), ("dark", DARK))
    }


def _cloud(cloud: Cloud) -> dict[str, str]:
    return _variants(lambda theme, _: cloud_plot(cloud, theme))


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
