"""Cleansers and learners in a benchmark: what the owner of a training set holds, and what is measured of the answer."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_stores import put
from planted import TARGET

import goodnet
from goodnet.attacks import load_attack
from goodnet.bench import Store, load_suite, run_cells
from goodnet.bench.cells import cell_of, perform
from goodnet.bench.cleanse_grid import cleanse_grid
from goodnet.bench.cleanse_words import auroc_lines, clean_removed_lines, poison_removed_lines
from goodnet.bench.cleansings import CleanseTrial, cleanser_summaries
from goodnet.bench.formats import as_csv, as_json, as_latex, as_markdown, as_text
from goodnet.bench.kinds import trained
from goodnet.bench.kinds._training_set import TrainingSet, training_set_of, with_sources
from goodnet.bench.learnings import learner_summaries
from goodnet.bench.page import render
from goodnet.bench.plots import scatter
from goodnet.bench.sentences import outcome_lines, success_after_lines
from goodnet.bench.table import Table, table
from goodnet.cleanse._base import Cleanser, Scored
from goodnet.cleanse.data_provenance import DataProvenance
from goodnet.cleanse.scan import Scan
from goodnet.cleanse.spectral_signatures import SpectralSignatures
from goodnet.core.samples import Samples
from goodnet.errors import UsageError
from goodnet.evaluation import Rate
from goodnet.learn._base import Taught
from goodnet.learn.abl import Abl

ROW: dict[str, Any] = {
    "data": {"name": "digits", "train": 300, "test": 100},
    "architecture": "small_cnn_bn:width=4",
    "attack": {"name": "badnets", "target": TARGET, "size": 6, "row": -6, "column": -6, "poisoning_rate": 0.1},
    "recipe": {"epochs": 1, "batch_size": 32, "learning_rate": 0.002, "optimizer": "adam"},
    "held": 40,
}
WANET = {"attack": {"name": "wanet", "strength": 2.0, "poisoning_rate": 0.1, "cover_rate": 0.2}}


# --- rows and cells ---


def test_a_cleansing_needs_the_net_and_names_what_its_method_asks_for_and_nothing_else() -> None:
    cell = cell_of(ROW | {"cleanse": "spectral-signatures"})
    assert (cell.kind, [need.key for need in cell.needs]) == ("cleanse", [cell_of(ROW).key])
    for change in ({"held": 41}, {"labeled": False}, {"sources": {"count": 5}}):
        assert cell_of(ROW | {"cleanse": "spectral-signatures"} | change).key == cell.key
    assert cell_of(ROW | {"cleanse": "spectral-signatures", "seed": 1}).key != cell.key
    for method, change in (
        ("scan", {"held": 41}),
        ("strip", {"labeled": False}),
        ("data-provenance", {"sources": {"count": 5}}),
    ):
        assert cell_of(ROW | {"cleanse": method} | change).key != cell_of(ROW | {"cleanse": method}).key


def test_an_attacker_who_would_run_the_training_leaves_it_to_the_owner_of_the_set() -> None:
    plain = cell_of(ROW | WANET)
    assert "trainer" not in plain.parameters
    for defense in ({"cleanse": "strip"}, {"learn": "plain"}):
        (net,) = cell_of(ROW | WANET | defense).needs
        assert net.parameters == {**plain.parameters, "trainer": "victim"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cleanse": "strip", "audit": "mm-bd"}, "one defense, not audit and cleanse at once"),
        ({"cleanse": "strip", "learn": "abl"}, "one defense, not cleanse and learn at once"),
        ({"cleanse": "strip", "sources": {"count": 3, "poisoned": 3}}, "leave one that is clean"),
        ({"cleanse": "strip", "architecture": "", "recipe": {}, "model": {"file": "x.npz"}}, "measured or repaired"),
    ],
)
def test_what_does_not_go_together_is_told(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        cell_of(ROW | change)


# --- the training set and its sources ---


@pytest.mark.parametrize("attack", [{}, WANET])
def test_the_set_that_is_looked_through_is_the_one_that_the_net_was_trained_on(attack, tmp_path, monkeypatch):
    def noted(net, samples, *arguments, **named):
        seen.append(samples)
        return goodnet.fit(net, samples, *arguments, **named)

    seen: list[Samples] = []
    monkeypatch.setattr(trained, "fit", noted)
    monkeypatch.setattr("goodnet.attacks._base.fit", noted)
    (net,) = cell_of(ROW | attack | {"cleanse": "spectral-signatures"}).needs
    result = perform(net, tmp_path, Store(tmp_path / "store"))
    owned = training_set_of(net.parameters, None)
    assert torch.equal(seen[0].images, owned.samples.images)
    assert torch.equal(seen[0].labels, owned.samples.labels)
    assert int(owned.poisoned.sum()) == 30
    assert int(owned.covers.sum()) == (60 if attack else 0)
    assert result["train_images"] == 300
    assert load_attack(tmp_path / "attack").target == (0 if attack else TARGET)


def owned_by_an_attacker(count: int = 100, poison: int = 30) -> TrainingSet:
    samples = Samples(torch.zeros(count, 1, 8, 8, dtype=torch.uint8), labels=torch.zeros(count, dtype=torch.int64))
    covers = torch.arange(count) == count - 1
    return TrainingSet(samples=samples, poisoned=torch.arange(count) < poison, covers=covers, test=samples)


@pytest.mark.parametrize(
    ("spec", "sizes", "brought"),
    [
        ({"count": 5, "poisoned": 2, "mixed": True}, [20] * 5, [16, 15]),
        ({"count": 10, "poisoned": 1, "mixed": True}, None, [31]),  # more poison than a source has room for
        ({"count": 4, "poisoned": 1, "mixed": False}, [23, 23, 23, 31], [31]),
    ],
)
def test_made_up_sources_are_of_one_size_and_the_last_ones_bring_the_poison(spec, sizes, brought):
    owned = owned_by_an_attacker()
    sources = with_sources(owned, spec, seed=0).sources
    counts = sources.bincount(minlength=spec["count"]).tolist()
    assert sum(counts) == 100
    assert sizes is None or counts == sizes
    touched = sources[owned.poisoned | owned.covers].bincount(minlength=spec["count"]).tolist()
    assert touched == [0] * (spec["count"] - spec["poisoned"]) + brought
    assert torch.equal(sources, with_sources(owned, spec, seed=0).sources)
    assert not torch.equal(sources, with_sources(owned, spec, seed=1).sources)


def test_without_made_up_sources_the_set_has_its_own():
    assert with_sources(owned_by_an_attacker(), None, seed=0).sources is None


# --- cells ---


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """With the nets of ``ROW``, poisoned, clean and warped, and nothing else."""
    store = Store(tmp_path_factory.mktemp("store"))
    rows = [ROW | change | {"cleanse": "strip"} for change in ({}, {"attack": "none"}, WANET)]
    assert run_cells([cell_of(row).needs[0] for row in rows], store, perform, engine="serial").done == 3
    return store


def answered(method: type[Cleanser], monkeypatch, scored) -> list[Any]:
    """Have ``method`` answer ``scored(training_set)``; what it is given is noted."""

    def score(self, defender, run):
        given.append(defender)
        return scored(defender.training_set)

    given: list[Any] = []
    monkeypatch.setattr(method, "_score", score)
    return given


def knowing(samples: Samples) -> Scored:
    """Scores that know the poison: the square is white in the corner; some clean samples go with it."""
    white = samples.images[:, :, 21:27, 21:27].float().mean((1, 2, 3)) > 254
    removed = white.clone()
    removed[(~white).nonzero()[:3, 0]] = True
    removed[white.nonzero()[:6, 0]] = False
    return Scored(scores=white.float(), removed=removed, rule="white corners")


def test_scores_and_decision_are_set_beside_the_truth(store, tmp_path, monkeypatch):
    answered(SpectralSignatures, monkeypatch, knowing)
    result: Any = perform(cell_of(ROW | {"cleanse": "spectral-signatures"}), tmp_path, store)
    told = result["cleanse"]
    assert (told["auroc"], told["rule"]) == (1.0, "white corners")
    assert [point["true_positive_rate"]["hits"] for point in told["operating_points"]] == [30, 30]
    assert told["poison_removed"] == Rate(24, 30).as_json()
    assert told["clean_removed"] == Rate(3, 270).as_json()
    assert result["clean_accuracy"] == store.result(cell_of(ROW))["clean_accuracy"]
    assert json.loads(json.dumps(result)) == result


def test_a_set_without_poison_can_only_lose(store, tmp_path, monkeypatch):
    answered(SpectralSignatures, monkeypatch, knowing)
    told: Any = perform(cell_of(ROW | {"attack": "none", "cleanse": "spectral-signatures"}), tmp_path, store)["cleanse"]
    assert (told["auroc"], told["poison_removed"]["count"]) == (None, 0)
    assert told["clean_removed"] == Rate(3, 300).as_json()


def test_covers_are_neither_poison_nor_clean(store, tmp_path, monkeypatch):
    def everything(samples: Samples) -> Scored:
        return Scored(scores=torch.rand(300), removed=torch.ones(300, dtype=torch.bool), rule="all")

    answered(SpectralSignatures, monkeypatch, everything)
    told: Any = perform(cell_of(ROW | WANET | {"cleanse": "spectral-signatures"}), tmp_path, store)["cleanse"]
    assert [told[name]["count"] for name in ("poison_removed", "clean_removed", "covers_removed")] == [30, 210, 60]


def test_a_cleanser_is_given_what_its_card_asks_for_and_no_truth(store, tmp_path, monkeypatch):
    nothing = Scored(scores=torch.zeros(300), removed=torch.zeros(300, dtype=torch.bool), rule="none")
    for method, name in ((Scan, "scan"), (DataProvenance, "data-provenance")):
        (given,) = (answered(method, monkeypatch, lambda _: nothing),)
        perform(cell_of(ROW | {"cleanse": name, "sources": {"count": 5}}), tmp_path, store)
        (defender,) = given
        assert len(defender.training_set) == 300
        if name == "scan":
            assert (len(defender.clean), defender.training_set.sources) == (40, None)
            assert defender.clean.labels is not None
            assert defender.model is not None
        else:
            assert (defender.clean, defender.model) == (None, None)
            assert sorted(defender.training_set.sources.unique().tolist()) == [0, 1, 2, 3, 4]


def test_a_set_without_sources_is_a_failed_row_that_says_so(store, tmp_path):
    cell = cell_of(ROW | {"cleanse": "data-provenance"})
    assert run_cells([cell], store, perform, engine="serial").failed == 1
    record = store.read(cell.key)
    assert record is not None
    assert "sources" in (record.error or "")


# --- what a cleansing was worth ---


def trial(poison: int = 100, clean: int = 2, at_1: int = 95, of: int = 100) -> CleanseTrial:
    """Of ``of`` poisoned and 200 clean samples so many removed, so many above the best threshold."""
    return CleanseTrial(
        auroc=0.9 if of else None,
        auroc_interval=None,
        at_1=Rate(at_1, of),
        at_5=Rate(at_1, of),
        poison_removed=Rate(poison, of),
        clean_removed=Rate(clean, 200),
        covers_removed=Rate(0, 0),
        rule="so",
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("one", "outcome", "ranked"),
    [
        (trial(poison=95), "cleansed", True),  # exactly enough, and exactly what may be lost
        (trial(poison=94), "poison left", True),
        (trial(clean=3), "clean lost", True),
        (trial(at_1=94), "cleansed", False),
        (trial(poison=0, at_1=0, of=0), "rightly kept", False),
        (trial(poison=0, at_1=0, of=0, clean=3), "clean lost", False),
    ],
)
def test_an_outcome_is_what_somebody_has_who_goes_by_the_decision(
    one: CleanseTrial, outcome: str, ranked: bool
) -> None:
    assert (one.outcome, one.ranked) == (outcome, ranked)


SUITE = """
name = "demo"
summary = "Two cleansers"
[defaults]
data = "digits"
architecture = "small_cnn"
[[grid]]
attack = ["none", { name = "badnets", target = 3 }, "blended"]
cleanse = ["spectral-signatures", { name = "scan", dimensions = 20 }]
published = [{ source = "Table 4.2", poison_removed = 0.6, clean_removed = 0.31 }]
"""


def measured(poison: int, clean: int, hits: int | None, auroc: float | None = 0.95) -> dict[str, Any]:
    """Of 50 poisoned and 1000 clean samples so many removed; the attack takes ``hits`` of 100 victims."""
    of = 0 if auroc is None else 50
    point = {"true_positive_rate": Rate(min(of, 48), of).as_json()}
    cleanse = {
        "auroc": auroc,
        "auroc_interval_95": None if auroc is None else [auroc - 0.01, auroc + 0.01],
        "operating_points": [point, point],
        "poison_removed": Rate(poison, of).as_json(),
        "clean_removed": Rate(clean, 1000).as_json(),
        "covers_removed": Rate(0, 0).as_json(),
        "rule": "<all> above",
        "seconds": 2.0,
    }
    success = None if hits is None else Rate(hits, 100).as_json()
    return {"clean_accuracy": Rate(190, 200).as_json(), "attack_success_rate": success, "cleanse": cleanse}


@pytest.fixture
def demo(tmp_path) -> Table:
    """spectral-signatures: keeps the clean set, cleanses badnets; scan: harms the clean set, leaves badnets; blended,
    which was not learned, is looked through by one of them; the other failed."""
    (tmp_path / "demo.toml").write_text(SUITE)
    suite, store = load_suite(tmp_path / "demo.toml"), Store(tmp_path / "store")
    cells = [cell_of(row) for row in suite.rows()]
    for place, made in (
        (0, measured(0, 4, None, auroc=None)),
        (1, measured(0, 20, None, auroc=None)),
        (2, measured(50, 3, 99)),
        (3, measured(30, 0, 99, auroc=0.8)),
        (4, measured(0, 0, 5, auroc=0.5)),
    ):
        put(store, cells[place], made)
    store.fail(cells[5], "RuntimeError: out of memory")
    return table(suite, "full", store)


def test_a_row_says_how_well_poison_is_told_and_what_was_removed(demo: Table) -> None:
    assert [row.cleanse for row in demo.rows[:2]] == ["spectral-signatures", "scan dimensions=20"]
    assert auroc_lines(demo.rows[3]) == ["0.800", "[0.790–0.810]"]
    assert poison_removed_lines(demo.rows[3])[:2] == ["60%", "30/50"]
    assert poison_removed_lines(demo.rows[3])[-1] == "published 60%, +0.0"
    assert clean_removed_lines(demo.rows[2])[-1] == "published 31%, −30.7"
    assert auroc_lines(demo.rows[0]) == ["–"]
    assert [outcome_lines(row)[0] for row in demo.rows] == [
        "rightly kept", "clean lost", "cleansed", "poison left", "poison left", "–"
    ]  # fmt: skip


def test_cleansers_are_summed_up_over_sets_whose_poison_was_learned(demo: Table) -> None:
    spectral, scan = cleanser_summaries(demo)
    assert (spectral.cleanse, spectral.poisoned, spectral.auroc, spectral.ranked, spectral.cleansed) == (
        "spectral-signatures", 1, 0.95, 1, 1
    )  # fmt: skip
    assert (spectral.clean, spectral.harmless, spectral.lost) == (1, 1, 0.004)
    assert (scan.poisoned, scan.ranked, scan.cleansed, scan.harmless, scan.lost) == (1, 1, 0, 0, 0.02)


def test_every_format_and_the_page_tell_of_cleansings(demo: Table) -> None:
    text = " ".join(as_text(demo, 260).split())
    assert (
        "1 of 1 sets by the best threshold, 0 of 1 by its own decision; sets without poison: at most 1% removed" in text
    )
    assert "blended, scan dimensions=20, seed 0, failed: RuntimeError" in text
    for written in (as_markdown(demo), as_latex(demo)):
        assert "poison removed" in written
        assert "0.950" in written
    lines = list(csv.DictReader(io.StringIO(as_csv(demo))))
    assert (lines[2]["cleanse"], lines[2]["auroc"], lines[2]["clean_removed_hits"]) == (
        "spectral-signatures",
        "0.95",
        "3",
    )
    assert (lines[5]["auroc"], lines[0]["poison_removed"]) == ("", "")
    record = json.loads(as_json(demo))
    assert record["rows"][2]["trials"][0]["cleanse"]["outcome"] == "cleansed"
    assert record["rows"][2]["auroc"]["mean"] == 0.95
    assert [one["cleanse"] for one in record["cleansers"]] == ["spectral-signatures", "scan dimensions=20"]
    html = render(demo)
    assert "Training sets and cleansers" in html
    assert "What the cleansers were worth" in html
    assert "&lt;all&gt; above" in html
    assert "accuracy, difference" not in html  # nobody published one


def test_the_grid_has_a_line_for_each_set_and_leads_to_the_rows(demo: Table) -> None:
    grid = cleanse_grid(demo)
    assert grid is not None
    assert grid.cleansers == ("spectral-signatures", "scan dimensions=20")
    clean, badnets, blended = grid.lines
    assert (clean[0], badnets[:2], blended[2][1]) == ("none", ("badnets target=3", "success 99%"), None)
    kept, harmed = clean[2]
    cleansed, left = badnets[2]
    assert None not in (kept, harmed, cleansed, left)
    assert (kept.text, kept.tone, harmed.tone) == ("0.4%", "good", "bad")  # type: ignore[union-attr]
    assert (cleansed.text, cleansed.small, cleansed.row) == ("0.950", "100% / 0.3%", 3)  # type: ignore[union-attr]
    assert left.tone == "fair"  # type: ignore[union-attr]


def test_seeds_are_gathered_and_the_worst_of_them_gives_the_tone(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(SUITE + "seed = [0, 1]\n")
    suite, store = load_suite(tmp_path / "demo.toml"), Store(tmp_path / "store")
    for row in suite.rows():
        if row["attack"] != "none":
            lost = 30 if row["seed"] else 0
            put(store, cell_of(row), measured(50, lost, 99, auroc=0.9 + 0.02 * bool(row["seed"])))
    by_seed = cleanse_grid(table(suite, "full", store))
    assert by_seed is not None
    assert [line[1] for line in by_seed.lines[:2]] == ["seed 0, success 99%", "seed 1, success 99%"]
    made = table(suite, "full", store).gathered()
    assert auroc_lines(made.rows[2]) == ["0.910 ± 0.014", "2 seeds"]
    assert clean_removed_lines(made.rows[2])[:2] == ["1.5% ± 2.1", "2 seeds"]
    grid = cleanse_grid(made)
    assert grid is not None
    cell = grid.lines[0][2][0]
    assert cell is not None
    assert cell.tone == "bad"


def test_cleansers_leave_the_net_as_it_is_and_have_no_dots(demo: Table) -> None:
    assert scatter(demo, 820, 400) is None


def test_a_table_without_cleansings_has_no_word_of_them(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text(SUITE.split("[[grid]]")[0] + '\n[[grid]]\nattack = ["none"]\n')
    made = table(load_suite(tmp_path / "demo.toml"), "full", Store(tmp_path / "store"))
    assert cleanser_summaries(made) == []
    assert cleanse_grid(made) is None
    assert "AUROC" not in as_text(made, 200)
    assert "cleanse none" not in as_text(made, 200)
    assert "What the cleansers were worth" not in render(made)


# --- learners ---


def test_a_learner_needs_the_net_and_names_the_cleanser_that_it_runs() -> None:
    cell = cell_of(ROW | {"learn": "retrain"})
    assert (cell.kind, [need.key for need in cell.needs]) == ("learn", [cell_of(ROW).key])
    other = cell_of(ROW | {"learn": {"name": "retrain", "cleanser": "scan"}})
    assert cell.parameters["cleanser"]["name"] == "activation-clustering"  # type: ignore[index,call-overload]
    assert other.parameters["cleanser"]["parameters"]["dimensions"] == 50  # type: ignore[index,call-overload]
    assert cell_of(ROW | {"learn": "abl"}).parameters["cleanser"] is None
    for change in ({"held": 41}, {"seed": 1}, {"labeled": False}):
        assert cell_of(ROW | {"learn": "plain"} | change).key != cell_of(ROW | {"learn": "plain"}).key


def test_a_learner_is_measured_beside_the_plain_net_and_never_sees_the_truth(store, tmp_path, monkeypatch):
    def learn(self, defender, run):
        given.append(defender)
        distrusted = torch.zeros(300, dtype=torch.bool)
        distrusted[:10] = True
        epochs = torch.arange(2 * 300).reshape(2, 300).float()
        return Taught(model=defender.model, notes={"steps": 3.0}, distrusted=distrusted, losses=epochs)

    given: list[Any] = []
    monkeypatch.setattr(Abl, "_learn", learn)
    owned = training_set_of(cell_of(ROW).parameters, None)
    result: Any = perform(cell_of(ROW | {"learn": "abl"}), tmp_path, store)
    (defender,) = given
    assert torch.equal(defender.training_set.images, owned.samples.images)
    assert (defender.clean, defender.training_set.sources) == (None, None)
    told, evaluation = result["learn"], result["learn"]["evaluation"]
    assert result["test_images"] == result["clean_accuracy"]["count"] == 60
    assert result["clean_accuracy"] == evaluation["before"]["clean_accuracy"]
    poison = int(owned.poisoned[:10].sum())
    assert (told["poison_distrusted"], told["clean_distrusted"]) == (
        Rate(poison, 30).as_json(),
        Rate(10 - poison, 270).as_json(),
    )
    curves = told["loss_curves"]
    assert curves["isolated"]["median"][0] == float(owned.poisoned.nonzero()[:, 0].double().quantile(0.5))
    assert goodnet.load_model(tmp_path / "model").origin.history[-1]["learn"] == "abl"
    assert goodnet.load_model(tmp_path / "model").origin.history[-1]["recipe"]["epochs"] == 1
    assert json.loads(json.dumps(result)) == result


LEARNERS = """
name = "demo"
summary = "Two learners"
[defaults]
data = "digits"
architecture = "small_cnn"
[[grid]]
attack = ["none", { name = "badnets", target = 3 }]
learn = ["plain", "abl"]
published = [{ source = "Table 4.3", clean_accuracy_after = 0.95, attack_success_rate_after = 0.6 }]
"""


def learned(right: int, hits: int | None) -> dict[str, Any]:
    """196 of 200 images right by the plain net, whose attack takes 90 of 100 victims; so many after."""

    def outcome(right: int, hits: int | None) -> dict[str, Any]:
        success = None if hits is None else Rate(hits, 100).as_json()
        return {"clean_accuracy": Rate(right, 200).as_json(), "attack_success_rate": success, "per_trigger": []}

    before = outcome(196, None if hits is None else 90)
    told = {"poison_distrusted": None, "clean_distrusted": None, "notes": {}, "loss_curves": None, "seconds": 2.0}
    return {**before, "learn": told | {"evaluation": {"before": before, "after": outcome(right, hits)}}}


@pytest.fixture
def taught(tmp_path) -> Table:
    """plain keeps the backdoor and harms nothing; abl learns a clean net, and harms the one without a backdoor."""
    (tmp_path / "demo.toml").write_text(LEARNERS)
    suite, store = load_suite(tmp_path / "demo.toml"), Store(tmp_path / "store")
    made = (learned(196, None), learned(189, None), learned(195, 91), learned(192, 4))
    for row, result in zip(suite.rows(), made, strict=True):
        put(store, cell_of(row), result)
    return table(suite, "full", store)


def test_a_learner_has_the_plain_net_before_and_its_own_after(taught: Table) -> None:
    assert [row.learn for row in taught.rows] == ["plain", "abl", "plain", "abl"]
    assert [outcome_lines(row)[0] for row in taught.rows] == ["no harm", "harmed", "backdoor left", "learned clean"]
    assert success_after_lines(taught.rows[3]) == ["4%", "−86.0 points", "published 60%, −56.0"]
    assert (taught.rows[3].success.mean, taught.rows[3].final_success.mean) == (0.9, 0.04)
    plot = scatter(taught, 820, 400)
    assert plot is not None
    assert plot.dots[-1].title == "4: badnets target=3, abl: clean accuracy 96%, attack success 4%"


def test_learners_are_summed_up(taught: Table) -> None:
    plain, abl = learner_summaries(taught)
    assert (plain.learn, plain.backdoored, plain.succeeded, plain.success, plain.harmed) == ("plain", 1, 0, 0.91, 0)
    assert (abl.succeeded, abl.drop, abl.nets, abl.harmed) == (1, pytest.approx(0.02), 2, 1)
    assert abl.clean_drop == pytest.approx(0.035)


def test_every_format_and_the_page_tell_of_learners(taught: Table) -> None:
    text = " ".join(as_text(taught, 220).split())
    assert "abl: no backdoor at no more than 3 points of accuracy in 1 of 1; on average −2.0 points" in text
    lines = list(csv.DictReader(io.StringIO(as_csv(taught))))
    assert (lines[3]["learn"], lines[3]["repair_outcome"], lines[3]["attack_success_rate_after_hits"]) == (
        "abl", "learned clean", "4"
    )  # fmt: skip
    record = json.loads(as_json(taught))
    assert record["rows"][3]["trials"][0]["learn"]["outcome"] == "learned clean"
    assert [one["learn"] for one in record["learners"]] == ["plain", "abl"]
    html = render(taught)
    assert "What the learners were worth" in html
    assert '<bdi class="good">learned clean</bdi>' in html
