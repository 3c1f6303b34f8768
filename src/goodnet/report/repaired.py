"""The page of a repair: what the proof counts, curves, the triggers before and after, maps of the last convolution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import goodnet
from goodnet.core.rates import Rate
from goodnet.core.trigger import Trigger
from goodnet.repair._look import ActivationMaps, Look
from goodnet.repair.proof import Proof
from goodnet.report import words
from goodnet.report._drawing import DARK, LIGHT, Theme
from goodnet.report.html import environment
from goodnet.report.page import data_uri
from goodnet.report.plots import picture_png
from goodnet.report.repair_plots import CurvePoint, activation_plot, price_plot, pruning_plot

_SIZES = {"wide": (8.6, 3.3), "narrow": (3.5, 2.9)}


@dataclass(frozen=True)
class _Count:
    """``12 of 100`` and, smaller, its interval."""

    shown: str
    between: str = ""


def render_repair(record: Mapping[str, Any], proof: Proof | None, look: Look, class_names: Sequence[str]) -> str:
    """The page as HTML, self-contained; every name in it is escaped.

    Args:
        record: what repair.json holds.
        proof: None when there was nothing to repair.
        look: what its pictures are made of.
        class_names: name of label 0, 1, ...; empty when not known.
    """
    made = "repaired model" if record["accepted"] else "model that was thrown away"
    titled = (("The last convolution of the suspect", look.before), (f"The same of the {made}", look.after))
    drawn = [(title, _maps(maps)) for title, maps in titled if maps is not None]
    same = len(drawn) == 2 and drawn[0][1] == drawn[1][1]
    return (
        environment("goodnet.report")
        .get_template("repair.html")
        .render(
            record=record,
            name=PurePath(record["file"]).name or "unnamed file",
            rows=[] if proof is None else _rows(proof, class_names),
            pairs=[
                {
                    "target": words.label_name(pair.before.target, class_names),
                    "before": _view(pair.before),
                    "after": None if pair.after is None else _view(pair.after),
                }
                for pair in look.triggers
            ],
            made=made,
            tried=record["evidence"].get("tried", []),
            chosen=record["evidence"].get("chosen"),
            curve=_curve(record["evidence"]),
            marks=record["evidence"].get("marks", []),
            maps=drawn[:1] if same else drawn,
            same_maps=same,
            prices=_prices(record["goodnet"]),
            version=goodnet.__version__,
        )
    )


def _variants(draw: Callable[[Theme, float, float], bytes]) -> dict[str, str]:
    """A picture for screens wide and narrow, light and dark; the style sheet shows one of them."""
    return {
        f"{size}-{scheme}": data_uri(draw(theme, width, height))
        for size, (width, height) in _SIZES.items()
        for scheme, theme in (("light", LIGHT), ("dark", DARK))
    }


def _maps(maps: ActivationMaps) -> dict[str, str]:
    return _variants(lambda theme, width, _: activation_plot(maps, theme, width))


def _prices(goodnet: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The price curve of a GoodNet as a picture; None where there is none, or no trigger to stop."""
    if goodnet is None or not goodnet["stamped"]:
        return None
    alarms = [Rate(one["false_alarms"], goodnet["count"]) for one in goodnet["prices"]]
    stopped = [Rate(one["stopped"], goodnet["stamped"]) for one in goodnet["prices"]]
    chosen = Rate(goodnet["false_alarms"], goodnet["count"])
    return _variants(lambda theme, width, height: price_plot(alarms, stopped, chosen, theme, width, height))


def _curve(evidence: Mapping[str, Any]) -> dict[str, str] | None:
    """The curve of a pruning as a picture; None where the method has none."""
    points = [CurvePoint(one["channels"], one["accuracy"], one.get("success")) for one in evidence.get("curve", ())]
    if len(points) < 2 or "marks" not in evidence:
        return None
    marks = {one["accuracy_drop"]: one["channels"] for one in evidence["marks"]}
    pruned = len(evidence["pruned"])
    return _variants(
        lambda theme, width, height: pruning_plot(points, marks, pruned, evidence["measure"], theme, width, height)
    )


def _rows(proof: Proof, class_names: Sequence[str]) -> list[tuple[str, _Count, _Count]]:
    kept = "answered right" if proof.labeled else "answered as the suspect answers"
    rows = [
        (kept, _counted(proof.before, proof.count), _counted(proof.after, proof.count)),
        (
            "the same, images shifted a little",
            _counted(proof.shifted_before, proof.count),
            _counted(proof.shifted_after, proof.count),
        ),
    ]
    for one in proof.triggers:
        target = words.label_name(one.target, class_names)
        rows.append((f"trigger works, to {target}", _counted(one.before, one.count), _counted(one.after, one.count)))
        rows.append((f"right under the trigger to {target}", _Count("–"), _counted(one.recovered, one.count)))
    return rows


def _counted(hits: int, count: int) -> _Count:
    """``12 of 100``, ``6.4% to 20%``."""
    interval = Rate(hits, count).interval()
    if interval is None:
        return _Count("–")
    return _Count(f"{hits} of {count}", " to ".join(map(words.percent, interval)))


def _view(trigger: Trigger) -> dict[str, Any]:
    pictures = ((trigger.mask[None], "Mask: white covers"), (trigger.pattern, "Pattern"))
    return {
        "words": words.trigger_words(trigger),
        "pictures": [(data_uri(picture_png(image)), caption) for image, caption in pictures],
    }
