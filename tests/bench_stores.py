"""A small suite and hand-made stores for it: what tables and pages are made from, without training anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goodnet.bench import Cell, Store, load_suite
from goodnet.bench.cells import cell_of
from goodnet.bench.table import Table, table
from goodnet.evaluation import Rate

SUITE = """
name = "demo"
summary = "Three attacks & a clean net"
[defaults]
data = "digits"
architecture = "small_cnn"
recipe = { epochs = 2 }
[sizes.small]
recipe = { epochs = 1 }
[[grid]]
attack = ["none", { name = "badnets", target = 3 }, { name = "blended", target = 1, alpha = 0.3 }]
audit = ["neural-cleanse"]
seed = [0, 1]
[[grid]]
label = ["<from> a paper"]
attack = [{ name = "badnets", target = 2, color = [1.0, 0.5, 0.0] }]
published = [{ source = "Table 1", clean_accuracy = 0.95, attack_success_rate = 0.8 }]
"""


def suite_file(folder: Path, text: str = SUITE) -> Path:
    path = folder / "demo.toml"
    path.write_text(text, encoding="utf-8")
    return path


def put(store: Store, cell: Cell, result: Mapping[str, Any], seconds: float = 2.0) -> None:
    with store.scratch(cell.key) as folder:
        store.put(cell, folder, dict(result), seconds)


def measured(right: int, hits: int | None) -> dict[str, Any]:
    """What a net comes to: so many of 200 images right, so many of 100 victims taken."""
    success = None if hits is None else Rate(hits, 100).as_json()
    return {"clean_accuracy": Rate(right, 200).as_json(), "attack_success_rate": success, "per_trigger": []}


def judged(flagged: bool | None, targets: list[int], truth: list[int]) -> dict[str, Any]:
    return {"flagged": flagged, "targets": targets, "true_targets": truth, "p_value": 0.02, "score": 3.5}


def filled(folder: Path) -> Store:
    """The clean nets done, badnets found once and missed once, blended failed in its audit and missing, the paper's row
    done."""
    store = Store(folder / "store")
    clean, clean_1, badnets, badnets_1, blended, _, paper = map(cell_of, load_suite(suite_file(folder)).rows())
    for cell, net, audit in (
        (clean, measured(196, None), judged(False, [], [])),
        (clean_1, measured(192, None), judged(None, [], [])),
        (badnets, measured(198, 100), judged(True, [3], [3])),
        (badnets_1, measured(190, 90), judged(False, [], [3])),
    ):
        put(store, cell.needs[0], net)
        put(store, cell, {**net, **audit}, seconds=1.0)
    put(store, blended.needs[0], measured(180, 70))
    store.fail(blended, "RuntimeError: out of memory", 0.5)
    put(store, paper, measured(188, 84))
    return store


def filled_table(folder: Path) -> Table:
    store = filled(folder)
    return table(load_suite(folder / "demo.toml"), "full", store)
