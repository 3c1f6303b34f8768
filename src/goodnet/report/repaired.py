"""The page of a repair: what the proof counts, the triggers before and after, the maps of the last convolution."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import goodnet
from goodnet.core.rates import Rate
from goodnet.core.trigger import Trigger
from goodnet.repair._look import Look
from goodnet.repair.proof import Proof
from goodnet.report import words
from goodnet.report.html import environment
from goodnet.report.plots import LIGHT, picture_png
from goodnet.report.repair_plots import activation_plot, price_plot


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
    drawn = [(title, _uri(activation_plot(maps, LIGHT))) for title, maps in titled if maps is not None]
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
            maps=drawn[:1] if same else drawn,
            same_maps=same,
            prices=_prices(record["goodnet"]),
            version=goodnet.__version__,
        )
    )


def _prices(goodnet: Mapping[str, Any] | None) -> str | None:
    """The price curve of a GoodNet as a picture; None where there is none, or no trigger to stop."""
    if goodnet is None or not goodnet["stamped"]:
        return None
    alarms = [Rate(one["false_alarms"], goodnet["count"]) for one in goodnet["prices"]]
    stopped = [Rate(one["stopped"], goodnet["stamped"]) for one in goodnet["prices"]]
    return _uri(price_plot(alarms, stopped, Rate(goodnet["false_alarms"], goodnet["count"]), LIGHT))


def _rows(proof: Proof, class_names: Sequence[str]) -> list[tuple[str, str, str]]:
    kept = "answered right" if proof.labeled else "answered as the suspect answers"
    rows = [(kept, _counted(proof.before, proof.count), _counted(proof.after, proof.count))]
    for one in proof.triggers:
        target = words.label_name(one.target, class_names)
        rows.append((f"trigger works, to {target}", _counted(one.before, one.count), _counted(one.after, one.count)))
        rows.append((f"right under the trigger to {target}", "–", _counted(one.recovered, one.count)))
    return rows


def _counted(hits: int, count: int) -> str:
    """``12 of 100 (6.4% to 20%)``."""
    interval = Rate(hits, count).interval()
    return "–" if interval is None else f"{hits} of {count} ({' to '.join(map(words.percent, interval))})"


def _view(trigger: Trigger) -> dict[str, Any]:
    pictures = ((trigger.mask[None], "Mask: white covers"), (trigger.pattern, "Pattern"))
    return {
        "words": words.trigger_words(trigger),
        "pictures": [(_uri(picture_png(image)), caption) for image, caption in pictures],
    }


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
