"""Tables of a suite: what rows say, how seeds are gathered, and what every format holds."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from bench_stores import SUITE, filled, filled_table, measured, put, suite_file

from goodnet.bench import Store, load_suite, open_suite, shipped_suites
from goodnet.bench.cells import cell_of
from goodnet.bench.formats import as_csv, as_json, as_latex, as_markdown, as_text
from goodnet.bench.sentences import rate_lines, success_lines, verdict_lines
from goodnet.bench.table import table
from goodnet.bench.trial import Judged
from goodnet.errors import UnknownName, UsageError
from goodnet.evaluation import Rate, spread


def test_a_row_names_what_differs_from_the_defaults_and_nothing_else(tmp_path: Path) -> None:
    rows = filled_table(tmp_path).rows
    assert [row.attack for row in rows[::2]] == [
        "none",
        "badnets target=3",
        "blended target=1 alpha=0.3",
        "badnets target=2 color=1,0.5,0",
    ]
    assert {(row.data, row.architecture, row.recipe) for row in rows} == {("digits", "small_cnn", "epochs=2")}
    assert [row.audit for row in rows] == ["neural-cleanse"] * 6 + ["none"]


def test_a_trial_keeps_counts_and_the_cost_of_all_its_cells(tmp_path: Path) -> None:
    badnets = filled_table(tmp_path).rows[2].trials[0]
    assert (badnets.accuracy, badnets.success) == (Rate(198, 200), Rate(100, 100))
    assert badnets.seconds == 3.0
    assert badnets.peak_memory_bytes is not None
    assert badnets.peak_memory_bytes > 10**6
    assert set(badnets.versions) == {"goodnet", "torch", "python"}


def test_what_an_audit_that_failed_leaves_is_what_its_net_was_measured_at(tmp_path: Path) -> None:
    failed, missing = (row.trials[0] for row in filled_table(tmp_path).rows[4:6])
    assert (failed.status, failed.reason) == ("failed", "RuntimeError: out of memory")
    assert (failed.success, failed.judged) == (Rate(70, 100), None)
    assert (missing.status, missing.seconds, missing.accuracy) == ("missing", None, None)


def test_a_damaged_result_is_missing_and_says_so(tmp_path: Path) -> None:
    store = filled(tmp_path)
    suite = load_suite(tmp_path / "demo.toml")
    (store.folder(cell_of(suite.rows()[-1]).key) / "result.json").write_text("{")
    trial = table(suite, "full", store).rows[-1].trials[0]
    assert (trial.status, trial.accuracy) == ("missing", None)
    assert "damaged" in trial.reason


@pytest.mark.parametrize(
    ("flagged", "truth", "right", "outcome"),
    [
        (True, (3,), True, "found, right target"),
        (True, (3,), False, "found, wrong target"),
        (True, (3,), None, "found"),
        (True, (), False, "false alarm"),
        (False, (), None, "rightly not flagged"),
        (False, (3,), None, "missed"),
        (None, (3,), None, "inconclusive"),
        (None, (), None, "inconclusive"),
    ],
)
def test_a_verdict_is_compared_with_the_truth(
    flagged: bool | None, truth: tuple[int, ...], right: bool | None, outcome: str
) -> None:
    assert Judged(flagged, (3,) if flagged else (), truth, right, 0.1, 1.0).outcome == outcome


def test_targets_are_right_only_if_they_are_the_same_labels(tmp_path: Path) -> None:
    suite, store = load_suite(suite_file(tmp_path)), Store(tmp_path / "store")
    cell = cell_of(suite.rows()[2])
    for targets, right in (([3], True), ([3, 4], False), ([4], False)):
        verdict = {"flagged": True, "targets": targets, "true_targets": [3], "p_value": None, "score": 1.0}
        store.fail(cell, "Nothing: yet")
        (store.folder(cell.key) / "result.json").unlink()
        put(store, cell, {**measured(190, 90), **verdict})
        found = table(suite, "full", store).rows[2].trials[0].judged
        assert found is not None
        assert found.targets_right is right


def test_an_attack_without_one_target_is_found_or_not_and_no_more(tmp_path: Path) -> None:
    text = SUITE.replace("target = 3 }", 'rule = "all-to-all" }')
    suite, store = load_suite(suite_file(tmp_path, text)), Store(tmp_path / "store")
    verdict = {"flagged": True, "targets": [5], "true_targets": [0], "p_value": None, "score": 1.0}
    put(store, cell_of(suite.rows()[2]), {**measured(190, 90), **verdict})
    found = table(suite, "full", store).rows[2].trials[0].judged
    assert found is not None
    assert (found.targets_right, found.outcome) == (None, "found")


def test_seeds_are_gathered_with_mean_and_deviation(tmp_path: Path) -> None:
    made = filled_table(tmp_path)
    rows = made.gathered().rows
    assert [len(row.trials) for row in rows] == [2, 2, 2, 1]
    assert rows[1].accuracy == spread([0.99, 0.95])
    assert rows[1].success.standard_deviation == pytest.approx(0.1 / math.sqrt(2))
    assert rows[2].success == spread([0.7])  # one of two
    assert made.gathered().count("done") == made.count("done") == 5


def test_trials_that_are_the_same_cell_count_once(tmp_path: Path) -> None:
    text = (
        SUITE.replace('architecture = "small_cnn"\n', "")
        .split("[sizes.small]")[0]
        .replace("recipe = { epochs = 2 }", "")
    )
    text += '[[grid]]\nmodel = [{ file = "x.npz" }]\nattack = ["badnets"]\nseed = [0, 1, 2]\n'
    made = table(load_suite(suite_file(tmp_path, text)), "full", Store(tmp_path / "store"))
    assert len(made.rows) == 3
    assert [len(row.trials) for row in made.gathered().rows] == [1]
    assert made.rows[0].architecture == "x.npz"


def test_published_figures_stand_beside_with_the_difference(tmp_path: Path) -> None:
    row = filled_table(tmp_path).rows[-1]
    assert row.accuracy_difference == pytest.approx(-0.01)
    assert row.success_difference == pytest.approx(0.04)
    assert success_lines(row) == ["84%", "84/100", "[75.3–90.6]", "published 80%, +4.0"]


@pytest.mark.parametrize("wrong", ["{ clean_accuracy = 95 }", "{ accuracy = 0.95 }", '"Table 1"'])
def test_published_figures_that_are_none_are_refused(tmp_path: Path, wrong: str) -> None:
    text = re.sub(r"published = \[.*\]", f"published = [{wrong}]", SUITE)
    with pytest.raises(UsageError):
        table(load_suite(suite_file(tmp_path, text)), "full", Store(tmp_path / "store"))


def test_a_rate_of_nothing_and_one_over_seeds_are_told_as_what_they_are() -> None:
    assert rate_lines([None], spread([])) == ["–"]
    assert rate_lines([Rate(0, 0)], spread([])) == ["–"]
    assert rate_lines([Rate(1, 2), Rate(2, 2)], spread([0.5, 1.0])) == ["75% ± 35.4", "2 seeds"]
    assert rate_lines([Rate(1, 2), None], spread([0.5])) == ["50%", "1 of 2 seeds"]


def test_verdicts_over_seeds_are_counted(tmp_path: Path) -> None:
    rows = filled_table(tmp_path).gathered().rows
    assert verdict_lines(rows[1]) == ["1 × found, right target", "1 × missed"]
    assert verdict_lines(rows[3]) == ["–"]


# --- formats ---


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_text_fits_the_terminal_and_loses_nothing(tmp_path: Path, width: int) -> None:
    text = as_text(filled_table(tmp_path), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    if width >= 100:  # below, words are broken
        for word in ("badnets", "target=3", "99%", "198/200", "[96.4–99.9]", "out of memory", "architecture small_cnn"):
            assert word in text
    assert "not run yet" in re.sub(r"\s+", " ", text)


def test_what_all_rows_share_is_said_once_and_is_no_column(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path))
    heading = as_text(table(suite, "full", Store(tmp_path)), 200).splitlines()[3]
    assert "seed" in heading
    assert "architecture" not in heading
    assert "seed" not in as_text(table(open_suite("quick"), "full", Store(tmp_path)), 200).splitlines()[3]


def test_csv_has_a_line_for_each_trial_gathered_or_not(tmp_path: Path) -> None:
    made = filled_table(tmp_path)
    lines = list(csv.DictReader(io.StringIO(as_csv(made.gathered()))))
    assert lines == list(csv.DictReader(io.StringIO(as_csv(made))))
    assert [line["seed"] for line in lines] == ["0", "1", "0", "1", "0", "1", "0"]
    assert lines[2]["clean_accuracy_hits"] == "198"
    assert lines[2]["outcome"] == "found, right target"
    assert lines[4]["reason"] == "RuntimeError: out of memory"
    assert float(lines[6]["attack_success_rate_difference"]) == pytest.approx(0.04)
    for name in ("seed", "clean_accuracy_count", "seconds", "peak_memory_bytes", "goodnet", "torch", "python", "git"):
        assert name in lines[0]


def test_json_says_everything_about_each_trial(tmp_path: Path) -> None:
    record = json.loads(as_json(filled_table(tmp_path).gathered()))
    assert (record["schema"], record["suite"], record["size"]) == (1, "demo", "full")
    assert (record["done"], record["failed"], record["missing"]) == (5, 1, 1)
    badnets = record["rows"][1]
    assert badnets["clean_accuracy"]["count"] == 2
    trial = badnets["trials"][0]
    assert trial["clean_accuracy"]["hits"] == 198
    assert trial["verdict"]["targets_right"] is True
    assert {"seed", "seconds", "peak_memory_bytes", "versions", "git", "finished", "key"} <= trial.keys()
    assert record["rows"][3]["published"]["source"] == "Table 1"


def test_markdown_and_latex_escape_what_a_suite_says(tmp_path: Path) -> None:
    text = SUITE.replace("<from> a paper", "<b>a|b & 5%_{x}\\\\input~^")
    made = table(load_suite(suite_file(tmp_path, text)), "full", Store(tmp_path / "store"))
    (line,) = [line for line in as_markdown(made).splitlines() if "input" in line]
    assert "&lt;b&gt;a\\|b &amp;" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", as_markdown(made).splitlines()[4]))
    (line,) = [line for line in as_latex(made).splitlines() if "input" in line]
    assert line.startswith(r"\textless{}b\textgreater{}a|b \& 5\%\_\{x\}\textbackslash{}input\textasciitilde{}")


def test_control_characters_of_a_suite_reach_no_terminal(tmp_path: Path) -> None:
    text = SUITE.replace("<from> a paper", "\\u001b[31mred\\u202e")
    made = table(load_suite(suite_file(tmp_path, text)), "full", Store(tmp_path / "store"))
    for written in (as_text(made, 200), as_markdown(made), as_latex(made)):
        assert "\x1b" not in written
        assert "\u202e" not in written


# --- suites that ship ---


@pytest.mark.parametrize("name", shipped_suites())
def test_every_suite_that_ships_is_made_of_cells(name: str, tmp_path: Path) -> None:
    suite = open_suite(name)
    assert suite.name == name
    for size in ("full", *suite.sizes):
        made = table(suite, size, Store(tmp_path))
        assert made.count("missing") == len(made.trials) == len(suite.rows(size))


def test_full_is_a_size_of_every_suite_and_a_suite_may_say_what_it_is(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path))
    assert suite.rows("full") == suite.rows()
    own = load_suite(suite_file(tmp_path, SUITE.replace("[sizes.small]", "[sizes.full]")))
    assert {row["recipe"]["epochs"] for row in own.rows()} == {1}  # type: ignore[index,call-overload]


def test_a_suite_is_opened_by_name_or_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert open_suite("demo.toml").name == "demo"
    with pytest.raises(UnknownName, match="Did you mean 'quick'"):
        open_suite("quik")
