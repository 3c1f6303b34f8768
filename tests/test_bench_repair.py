"""Repairs in a benchmark: what the defender holds, what is measured, and what comes of it in tables and on the page."""

import copy
import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench_stores import put
from planted import TARGET

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.wanet import WaNet
from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.bench import Store, load_suite, run_cells
from goodnet.bench.cells import cell_of, perform
from goodnet.bench.formats import as_csv, as_json, as_text
from goodnet.bench.kinds import repaired as kind
from goodnet.bench.kinds._common import held_and_rest
from goodnet.bench.kinds._original import original_triggers
from goodnet.bench.page import render
from goodnet.bench.plots import scatter
from goodnet.bench.repairs import ORACLE, RepairTrial, repair_summaries
from goodnet.bench.sentences import accuracy_after_lines, outcome_lines, success_after_lines
from goodnet.bench.table import Table, table
from goodnet.core.classifier import predictions
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable, UsageError
from goodnet.evaluation import Change, Rate, measure, pruning_rates
from goodnet.repair._channels import chosen_convolutions, pruning_order, silence
from goodnet.repair.files import FileRepair, repair_model
from goodnet.repair.pruning import Pruning

ROW: dict[str, Any] = {
    "data": {"name": "digits", "train": 600, "test": 100},
    "architecture": "small_cnn",
    "attack": {"name": "badnets", "target": TARGET, "size": 6, "row": -6, "column": -6},
    "recipe": {"epochs": 6, "batch_size": 16, "learning_rate": 0.002, "optimizer": "adam"},
    "held": 60,
}


REPAIRS_WITH_TRIGGERS = (("unlearning", True), ("nc-pruning", False))


# --- rows and cells ---


def test_a_repair_needs_the_net_and_names_all_that_its_result_depends_on() -> None:
    cell = cell_of(ROW | {"repair": {"name": "fine-tuning", "epochs": 3}})
    assert (cell.kind, [need.key for need in cell.needs]) == ("repair", [cell_of(ROW).key])
    assert cell.parameters["repair"]["parameters"]["epochs"] == 3  # type: ignore[index,call-overload]
    assert cell.parameters["triggers"] is None  # it works without, so where they come from changes nothing
    for change in ({"labeled": False}, {"held": 61}, {"seed": 1}, {"repair": "fine-tuning"}):
        assert cell_of(ROW | {"repair": {"name": "fine-tuning", "epochs": 3}} | change).key != cell.key
    told, audited = (cell_of(ROW | {"repair": "auto", "triggers": known}) for known in ("target", "audit"))
    assert told.key != audited.key


def test_a_published_model_is_repaired_from_its_file_and_without_labels() -> None:
    cell = cell_of({"data": "digits", "model": {"file": "x.npz"}, "attack": "badnets", "repair": "pruning"})
    assert (cell.kind, cell.needs, cell.parameters["labeled"]) == ("repair", (), False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repair": "pruning", "audit": "mm-bd"}, "one defense, not audit and repair at once"),
        ({"repair": "pruning", "triggers": "target"}, "pruning works without triggers"),
        ({"repair": "auto", "triggers": "target", "attack": "none"}, "an attack with one target"),
        ({"repair": "auto", "triggers": "original", "attack": {"name": "badnets", "rule": "all-to-all"}}, "one target"),
        ({"repair": "auto", "triggers": "guessed"}, "triggers"),
    ],
)
def test_what_does_not_go_together_is_told(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        cell_of(ROW | change)


# --- cells ---


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """With the net of ``ROW``, and nothing else."""
    store = Store(tmp_path_factory.mktemp("store"))
    assert run_cells([cell_of(ROW)], store, perform, engine="serial").done == 1
    return store


def computed(store: Store, folder: Path, **changes: Any) -> dict[str, Any]:
    return perform(cell_of(ROW | changes), folder, store)


def test_before_and_after_are_measured_on_images_that_the_defender_does_not_hold(store, tmp_path, monkeypatch):
    seen = {}
    for name in ("repair_model", "evaluate"):
        whole = getattr(kind, name)

        def noted(*arguments, whole=whole, name=name, **named):
            seen[name] = (arguments, named)
            return whole(*arguments, **named)

        monkeypatch.setattr(kind, name, noted)
    result = computed(store, tmp_path, repair={"name": "fine-tuning", "epochs": 1}, labeled=False)
    given, test = seen["repair_model"][1], seen["evaluate"][0][2]
    held = torch.cat([given["clean"].ids, given["aside"].ids])
    assert (len(held), len(given["aside"]), len(test)) == (60, 15, 40)
    assert not set(held.tolist()) & set(test.ids.tolist())
    assert given["clean"].labels is None
    assert (given["targets"], given["triggers"]) == ((), ())
    assert result["test_images"] == result["clean_accuracy"]["count"] == 40
    assert result["attack_success_rate"] == result["repair"]["evaluation"]["before"]["attack_success_rate"]
    assert goodnet.load_model(tmp_path / "model").origin.history[-1]["repair"] == "fine-tuning"
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(("known", "targets", "count"), [("target", (3,), 0), ("original", (), 1)])
def test_the_truth_is_handed_over_where_the_row_says_so_and_nowhere_else(
    store, tmp_path, monkeypatch, known, targets, count
):
    def told(model, repairer, *, targets, triggers, **named):
        given.append((targets, len(triggers)))
        return FileRepair(suspect=model, aside=named["aside"], reason="no trigger")

    given: list[tuple[tuple[int, ...], int]] = []
    monkeypatch.setattr(kind, "repair_model", told)
    result = computed(store, tmp_path, repair="unlearning", triggers=known)
    assert given == [(targets, count)]
    assert result["repair"]["made"] is False
    assert result["repair"]["evaluation"]["accuracy_drop"] == 0
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("targets", [(5,), ()])
def test_one_audit_gives_all_repairers_the_triggers_to_what_it_flags(store, tmp_path, monkeypatch, targets):
    def audited(self, defender, **named):
        audits.append(len(defender.clean))
        assert defender.clean.labels is None
        triggers = tuple(
            Trigger(target=label, mask=torch.rand(32, 32), pattern=torch.rand(1, 32, 32), success_rate=0.9, count=7)
            for label in (4, 5)
        )
        told = {"flagged": bool(targets), "p_value": 0.01, "reason": "as told", "triggers": triggers}
        return SimpleNamespace(targets=targets, provenance=SimpleNamespace(seconds=1.0), **told)

    def noted(*arguments, triggers, **named):
        given.append([one.target for one in triggers])
        return repair_model(*arguments, triggers=triggers, **named)

    audits: list[int] = []
    given: list[list[int]] = []
    monkeypatch.setattr(NeuralCleanse, "run", audited)
    monkeypatch.setattr(kind, "repair_model", noted)
    mine = Store(shutil.copytree(store.root, tmp_path / "store"))
    cells = [cell_of(ROW | {"repair": name, "labeled": labeled}) for name, labeled in REPAIRS_WITH_TRIGGERS]
    assert run_cells(cells, mine, perform).failed == 0
    assert audits == [45]
    assert given == [[5], [5]] * bool(targets)
    told: Any = mine.result(cells[1])["repair"]
    assert told["made"] is bool(targets)
    assert told["audit"]["targets"] == list(targets)
    assert ("the audit names no label to repair (as told)" in told["reason"]) is not bool(targets)


def test_unlearning_the_attackers_own_trigger_removes_the_planted_backdoor(store, tmp_path):
    result = computed(store, tmp_path, repair={"name": "unlearning", "epochs": 10}, triggers="original")
    evaluation = result["repair"]["evaluation"]
    assert evaluation["before"]["attack_success_rate"]["value"] > 0.8
    assert evaluation["after"]["attack_success_rate"]["value"] < 0.2
    assert result["repair"]["proof"]["triggers"][0]["target"] == TARGET


def test_a_method_that_cannot_work_on_a_net_leaves_it_and_says_why(store, tmp_path):
    told = computed(store, tmp_path, repair="clp")["repair"]
    assert (told["made"], told["accepted"]) == (False, False)
    assert "BatchNorm" in told["reason"]


def test_pruning_leaves_the_whole_curve_with_the_true_trigger(store, tmp_path):
    result = computed(store, tmp_path, repair={"name": "pruning", "channels": 2})
    curve, evaluation = result["repair"]["curve"], result["repair"]["evaluation"]
    assert [point["channels"] for point in curve] == list(range(33))  # of 32 channels
    assert curve[0]["attack_success_rate"] == evaluation["before"]["attack_success_rate"]["value"]
    assert curve[2]["clean_accuracy"] == evaluation["after"]["clean_accuracy"]["value"]
    assert computed(store, tmp_path / "other", repair={"name": "fine-tuning", "epochs": 1})["repair"]["curve"] is None


def test_a_defender_who_holds_everything_leaves_nothing_to_measure(store, tmp_path):
    with pytest.raises(UsageError, match="none is left"):
        computed(store, tmp_path, repair="pruning", held=100)


def test_a_published_model_keeps_its_own_answers(store, tmp_path):
    shutil.copytree(store.folder(cell_of(ROW).key) / "model", tmp_path / "stranger")
    row = {"data": {"name": "digits", "fewest": 1, "test": 100}, "model": {"file": "stranger"}, "attack": ROW["attack"]}
    cell = cell_of(row | {"repair": {"name": "pruning", "channels": 3}, "held": 40})
    result: Any = perform(cell, tmp_path, Store(tmp_path / "store"), tmp_path)
    assert result["clean_accuracy"] is None
    assert result["repair"]["own_answers"] is True
    assert result["repair"]["evaluation"]["before"]["clean_accuracy"]["value"] == 1
    assert result["repair"]["proof"]["labeled"] is False


# --- the attacker's own trigger, and the truth along a pruning curve ---


def test_the_original_trigger_is_what_the_attack_stamps(planted):
    (trigger,) = original_triggers((planted.attack,), planted.badnet, planted.clean)
    images = planted.clean.floats()[:5]
    torch.testing.assert_close(trigger.stamp(images), planted.attack.stamp(images))
    assert (trigger.target, int(trigger.mask.sum())) == (TARGET, 9)
    answers = predictions(planted.badnet, planted.clean.images).argmax(1)
    assert trigger.count == int((answers != TARGET).sum())
    assert trigger.success_rate > 0.8


def test_a_warp_is_no_mask_and_pattern(planted):
    with pytest.raises(NotApplicable, match="wanet"):
        original_triggers((WaNet(strength=2.0),), planted.badnet, planted.clean)


def test_rates_along_the_curve_are_those_of_pruned_models(planted):
    ranked, test = held_and_rest(planted.clean, 100, seed=0)
    rates = pruning_rates(planted.badnet, Pruning(), ranked_on=ranked, test=test, attack=planted.attack)
    order = pruning_order(planted.badnet, chosen_convolutions(planted.badnet, 1), ranked.images)
    assert len(rates) == 1 + len(order)
    for count in (0, 5, len(order)):
        model = copy.deepcopy(planted.badnet)
        silence(model, order[:count])
        outcome = measure(model, test, planted.attack)
        assert rates[count] == (outcome.accuracy, outcome.worst_success)
    alone = pruning_rates(planted.badnet, Pruning(), ranked_on=ranked, test=test, most=50)
    assert {success for _, success in alone} == {None}
    assert {accuracy.count for accuracy, _ in alone} == {50}


def test_the_best_of_several_triggers_counts(planted):
    class Both(BadNets):
        def parts(self):
            return planted.attack, BadNets(target=5, size=3)

    ranked, test = held_and_rest(planted.clean, 100, seed=0)
    both, one = (
        pruning_rates(planted.badnet, Pruning(), ranked_on=ranked, test=test, attack=attack, most=100)
        for attack in (Both(target=3), planted.attack)
    )
    assert both[0][1] == one[0][1]


# --- what a repair was worth ---


def trial(right: int = 195, hits: int | None = 0, before: int = 100, **changes: Any) -> RepairTrial:
    """196 of 200 images right before, ``right`` after; of 100 victims ``before`` taken before and ``hits`` after."""
    success = None if hits is None else Change(Rate(before, 100), Rate(hits, 100))
    values = {"made": True, "accepted": True, "reason": "so", "own_answers": False, "seconds": 1.0} | changes
    return RepairTrial(accuracy=Change(Rate(196, 200), Rate(right, 200)), success=success, **values)


@pytest.mark.parametrize(
    ("one", "outcome", "succeeded"),
    [
        (trial(), "repaired", True),
        (trial(hits=10, right=190), "repaired", True),  # exactly what may be left and lost
        (trial(hits=11), "backdoor left", False),
        (trial(right=189), "harmed", False),
        (trial(accepted=False), "reverted", True),
        (trial(right=196, hits=100, accepted=False, made=False), "nothing done", False),
        (trial(hits=None), "no harm", None),
        (trial(hits=None, right=100), "harmed", None),
        (trial(hits=2, before=10), "no harm", None),  # it never worked
    ],
)
def test_an_outcome_is_what_somebody_has_who_goes_by_the_proof(
    one: RepairTrial, outcome: str, succeeded: bool | None
) -> None:
    assert (one.outcome, one.succeeded) == (outcome, succeeded)


def test_effectiveness_is_told_of_backdoors_that_worked_only() -> None:
    assert trial(right=196).effectiveness == 1
    assert trial(before=5, hits=0).effectiveness is None
    assert trial(hits=None).effectiveness is None


SUITE = """
name = "demo"
summary = "Two repairers"
[defaults]
data = "digits"
architecture = "small_cnn"
[[grid]]
attack = ["none", { name = "badnets", target = 3 }, "blended"]
repair = ["none", { name = "fine-tuning", epochs = 2 }, "auto"]
[[grid]]
attack = [{ name = "badnets", target = 3 }]
repair = ["auto"]
triggers = ["target"]
[[grid]]
attack = ["blended"]
repair = ["fine-tuning"]
labeled = [false]
"""


GOODNETS = {
    "second-opinion": {
        "clean": {"defense_triggered": Rate(3, 200).as_json(), "classify_success": Rate(190, 200).as_json()},
        "stamped": [{"attack_triggered": Rate(hits, 100).as_json()} for hits in (2, 7)],
    },
    "decision-tree": {"reason": "too few"},
}


def result(right: int, hits: int | None, **told: Any) -> dict[str, Any]:
    def outcome(right: int, hits: int | None) -> dict[str, Any]:
        success = None if hits is None else Rate(hits, 100).as_json()
        return {"clean_accuracy": Rate(right, 200).as_json(), "attack_success_rate": success, "per_trigger": []}

    before, after = outcome(196, None if hits is None else 100), outcome(right, hits)
    repair = {"made": True, "accepted": True, "reason": "<it> holds", "own_answers": False, "seconds": 2.0} | told
    return {**before, "repair": repair | {"evaluation": {"before": before, "after": after}, "curve": None}}


@pytest.fixture
def demo(tmp_path) -> Table:
    """fine-tuning: harmless, leaves badnets, is thrown away on blended, which it repairs; auto: harms the clean net,
    which the proof lets through, repairs badnets, fails on blended; told the target it repairs badnets; the rest is
    missing."""
    (tmp_path / "demo.toml").write_text(SUITE)
    suite, store = load_suite(tmp_path / "demo.toml"), Store(tmp_path / "store")
    cells = [cell_of(row) for row in suite.rows()]
    for place, made in (
        (1, result(195, None)),
        (2, result(180, None)),
        (4, result(196, 90)),
        (5, result(194, 4, goodnets=GOODNETS)),
        (7, result(195, 2, accepted=False)),
        (9, result(196, 0)),
    ):
        put(store, cells[place], made)
    store.fail(cells[8], "RuntimeError: out of memory")
    return table(suite, "full", store)


def test_a_row_says_what_is_before_what_is_after_and_what_came_of_it(demo: Table) -> None:
    left = demo.rows[4]
    assert (left.accuracy.mean, left.success.mean, left.success_after.mean) == (0.98, 1.0, 0.9)
    assert accuracy_after_lines(left) == ["98%", "+0.0 points"]
    assert success_after_lines(left) == ["90%", "−10.0 points"]
    assert outcome_lines(left) == ["backdoor left", "DER 55.0"]
    assert [row.repair for row in demo.rows[3:6]] == ["none", "fine-tuning epochs=2", "auto"]
    assert demo.rows[9].repair == "auto, told the target"
    assert demo.rows[10].repair == "fine-tuning unlabeled"
    assert outcome_lines(demo.rows[3]) == outcome_lines(demo.rows[10]) == ["–"]


def test_repairers_are_summed_up_and_the_best_of_each_net_knows_no_target(demo: Table) -> None:
    tuning, auto, told, best = repair_summaries(demo)
    assert (tuning.repair, tuning.backdoored, tuning.succeeded, tuning.kept, tuning.nets) == (
        "fine-tuning epochs=2", 2, 1, 0, 3
    )  # fmt: skip
    assert (tuning.harmed, tuning.success, tuning.clean_drop) == (0, pytest.approx(0.46), pytest.approx(0.005))
    assert (auto.backdoored, auto.succeeded, auto.kept, auto.harmed, auto.harmed_kept) == (1, 1, 1, 1, 1)
    assert (told.repair, told.succeeded) == ("auto, told the target", 1)
    assert (best.repair, best.backdoored, best.succeeded, best.kept, best.harmed) == (ORACLE, 2, 2, 1, 0)
    assert best.drop == pytest.approx((0.01 + 0.005) / 2)  # auto's badnets and not the one that was told


def test_seeds_of_one_net_are_told_apart_by_the_best(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(SUITE.split("[[grid]]\nattack = [{")[0] + "seed = [0, 1]\n")
    suite, store = load_suite(tmp_path / "demo.toml"), Store(tmp_path / "store")
    for row in suite.rows():
        if row["repair"] != "none" and row["attack"] == "blended":
            put(store, cell_of(row), result(196, 0 if (row["seed"], row["repair"]) == (1, "auto") else 50))
    made = table(suite, "full", store)
    for one in (made, made.gathered()):
        best = repair_summaries(one)[-1]
        assert (best.repair, best.backdoored, best.succeeded) == (ORACLE, 2, 1)
    assert outcome_lines(made.gathered().rows[-1])[:2] == ["1 × backdoor left", "1 × repaired"]


def test_every_format_and_the_page_tell_of_repairs(demo: Table) -> None:
    text = " ".join(as_text(demo, 220).split())
    assert "1 of 2 backdoors removed at no more than 3 points of accuracy, 0 of them accepted by the proof" in text
    assert "blended, auto, seed 0, failed: RuntimeError" in text
    lines = list(csv.DictReader(io.StringIO(as_csv(demo))))
    assert (lines[5]["repair"], lines[5]["repair_outcome"], lines[5]["repair_succeeded"]) == (
        "auto",
        "repaired",
        "True",
    )
    assert (lines[5]["attack_success_rate_after_hits"], lines[3]["repair_outcome"]) == ("4", "")
    record = json.loads(as_json(demo))
    assert record["rows"][7]["trials"][0]["repair"]["outcome"] == "reverted"
    assert record["rows"][7]["defense_effectiveness"]["mean"] == pytest.approx(0.9875)
    assert [one["repair"] for one in record["repairers"]][-1] == ORACLE
    html = render(demo)
    assert "What the repairers were worth" in html
    assert "<th scope=row><bdi>auto, told the target</bdi></th><td><bdi>1 of 1</bdi>" in html
    assert "&lt;it&gt; holds" in html
    assert "What the GoodNets do" in html
    assert "<td><bdi>1.5%</bdi><small>3 of 200, 0.3% to 4.3%</small>" in html
    assert "<td><bdi>7%</bdi><small>7 of 100, 2.9% to 13.9%</small>" in html
    assert "too few" not in html
    (goodnet,) = record["rows"][5]["trials"][0]["repair"]["goodnets"]
    assert (goodnet["rule"], goodnet["attack_success_rate"]["hits"]) == ("second-opinion", 7)


def test_dots_lie_where_the_repair_left_the_net(demo: Table) -> None:
    plot = scatter(demo, 820, 400)
    assert plot is not None
    dots = {dot.row: dot for dot in plot.dots}
    assert (dots[6].x, dots[6].y) == (plot.area.x(0.97), plot.area.y(0.04))
    assert dots[6].title == "6: badnets target=3, auto: clean accuracy 97%, attack success 4%"
    assert [x for x, _, _ in plot.bare] == [plot.area.x(0.975), plot.area.x(0.9)]


def test_a_table_without_repairs_has_no_word_of_them(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(SUITE.split("[[grid]]")[0] + '\n[[grid]]\nattack = ["none"]\n')
    made = table(load_suite(tmp_path / "demo.toml"), "full", Store(tmp_path / "store"))
    assert repair_summaries(made) == []
    assert "accuracy after" not in as_text(made, 200)
    assert "What the repairers were worth" not in render(made)
