"""goodnet bench as people and scripts meet it."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_stores import filled, suite_file
from typer.testing import CliRunner, Result

from goodnet.bench import Store, load_suite, shipped_suites
from goodnet.bench.cells import cell_of
from goodnet.cli.main import app

TINY = """
name = "tiny"
summary = "One net that takes a second"
[defaults]
data = { name = "digits", train = 60, test = 40 }
architecture = "small_cnn"
recipe = { epochs = 1, batch_size = 32 }
[sizes.small]
data = { name = "digits", train = 40, test = 40 }
[[grid]]
attack = ["none", { name = "badnets", target = 3 }]
"""
PAGE = Path(__file__).parents[1] / "docs" / "benchmark.md"
ABSENT = TINY.replace('name = "digits"', 'name = "gtsrb"')

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``goodnet bench`` with these words, in a folder with demo.toml and a filled store."""
    monkeypatch.chdir(tmp_path)
    filled(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["bench", *map(str, words)])


def test_run_computes_what_is_missing_and_nothing_twice(call: Call, tmp_path: Path) -> None:
    suite_file(tmp_path, TINY)
    words = ("run", "demo.toml", "--size", "small", "--engine", "serial", "--store", "made")
    first = call(*words)
    assert (first.exit_code, first.stderr) == (0, "")
    assert "2 done of 2 rows" in first.stdout
    assert "2 computed now, 0 done before" in first.stdout
    record = json.loads(call(*words, "--json").stdout)
    assert (record["computed"], record["skipped"], record["failed"]) == (0, 2, 0)
    (line, _) = csv.DictReader(
        io.StringIO(call("table", "demo.toml", "--size", "small", "--store", "made", "--format", "csv").stdout)
    )
    assert (line["clean_accuracy_count"], line["status"]) == ("40", "done")


def test_run_ends_with_1_and_says_which_rows_failed(call: Call, tmp_path: Path) -> None:
    suite_file(tmp_path, ABSENT)
    words = ("run", "demo.toml", "--engine", "serial", "--store", "made")
    result = call(*words)
    assert result.exit_code == 1
    assert "badnets target=3, seed 0: UsageError: 'gtsrb' is read from the data folder" in result.stdout
    record = json.loads(call(*words, "--json").stdout)
    assert [row["attack"] for row in record["failures"]] == ["none", "badnets target=3"]


def test_what_failed_is_tried_again_only_when_asked(call: Call, tmp_path: Path) -> None:
    suite_file(tmp_path, ABSENT)
    words = ("run", "demo.toml", "--engine", "serial", "--store", "made")
    call(*words)
    key = cell_of(load_suite(tmp_path / "demo.toml").rows()[0]).key
    before = (tmp_path / "made" / "cells" / key / "result.json").stat().st_ino
    call(*words)
    assert (tmp_path / "made" / "cells" / key / "result.json").stat().st_ino == before
    (tmp_path / "data").mkdir()
    call(*words, "--retry-failed", "--data", "data")
    record = Store(tmp_path / "made").read(key)
    assert record is not None
    assert "data/gtsrb" in (record.error or "")  # and the folder of --data reached the cell


def test_run_works_in_processes(call: Call, tmp_path: Path) -> None:
    suite_file(tmp_path, TINY)
    result = call("run", "demo.toml", "--size", "small", "--workers", 1, "--data", tmp_path, "--store", "made")
    assert result.exit_code == 0, result.stdout
    assert "2 computed now" in result.stdout


def test_ctrl_c_keeps_what_is_finished_and_says_so(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite_file(tmp_path, TINY)
    finished = iter([True])

    def perform(*_: object, **__: object) -> dict[str, object]:
        if next(finished, False):
            return {"clean_accuracy": None, "attack_success_rate": None}
        raise KeyboardInterrupt

    monkeypatch.setattr("goodnet.bench.cells.perform", perform)
    result = call("run", "demo.toml", "--engine", "serial", "--store", "made")
    assert result.exit_code == 130
    assert "finished cells are kept in made, and the same command goes on" in result.stderr
    (name,) = [path.name for path in (tmp_path / "made" / "cells").iterdir()]
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "quik"), "Did you mean 'quick'"),
        (("run", "none.toml"), "cannot be read"),
        (("run", "demo.toml", "--size", "smal"), "Did you mean 'small'"),
        (("run", "demo.toml", "--engine", "threads"), "serial, processes, ray"),
        (("run", "demo.toml", "--engine", "serial", "--workers", "2"), "one worker"),
        (("run", "demo.toml", "--data", "nowhere"), "does not exist"),
        (("table", "demo.toml", "--format", "xml"), "text, csv, markdown, latex, json"),
        (("page", "demo.toml", "--out", "no/folder/page.html"), "give a file"),
    ],
)
def test_wrong_usage_is_2_with_a_sentence(call: Call, words: tuple[str, ...], says: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_status_says_what_is_left_and_how_to_go_on(call: Call) -> None:
    result = call("status", "demo.toml", "--store", "store")
    assert result.exit_code == 0
    assert "5 done, 1 failed, 1 not run yet of 7 rows" in result.stdout
    assert "failed       blended target=1 alpha=0.3, seed 0: RuntimeError: out of memory" in result.stdout
    assert "not run yet  blended target=1 alpha=0.3, seed 1" in result.stdout
    assert "goodnet bench run demo.toml --size full --store store --retry-failed" in result.stdout
    record = json.loads(call("status", "demo.toml", "--store", "store", "--json").stdout)
    assert (record["done"], record["failed"], record["missing"]) == (5, 1, 1)
    assert [row["status"] for row in record["rows"]].count("done") == 5


def test_a_store_that_is_not_there_is_an_empty_one_and_is_not_made(call: Call, tmp_path: Path) -> None:
    assert "7 not run yet of 7 rows" in call("status", "demo.toml", "--store", "nothing").stdout
    assert not (tmp_path / "nothing").exists()


def test_tables_gather_seeds_unless_asked_not_to(call: Call) -> None:
    gathered = json.loads(call("table", "demo.toml", "--store", "store", "--format", "json").stdout)
    by_seed = json.loads(call("table", "demo.toml", "--store", "store", "--format", "json", "--by-seed").stdout)
    assert (len(gathered["rows"]), len(by_seed["rows"])) == (4, 7)
    assert "± 2.8" in call("table", "demo.toml", "--store", "store").stdout
    assert "± 2.8" not in call("table", "demo.toml", "--store", "store", "--by-seed").stdout


def test_page_writes_one_file_and_names_it(call: Call, tmp_path: Path) -> None:
    result = call("page", "demo.toml", "--store", "store", "--out", "page.html")
    assert (result.exit_code, result.stdout) == (0, "page.html\n")
    assert "<title>Benchmark: demo, full</title>" in (tmp_path / "page.html").read_text()


def test_list_shows_the_suites_that_ship() -> None:
    result = CliRunner().invoke(app, ["list", "suites", "--json"])
    suites = {suite["name"]: suite for suite in json.loads(result.stdout)["suites"]}
    assert suites["quick"]["sizes"] == ["full", "small"]
    assert suites["thesis-attacks"]["rows"] == 20


def test_help_comes_without_torch_and_with_examples() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom goodnet.cli.main import app\n"
        "for name in ('run', 'status', 'table', 'page'):\n"
        "    assert 'goodnet bench ' + name in CliRunner().invoke(app, ['bench', name, '--help']).stdout\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_suite_on_the_benchmark_page_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    suite = load_suite(suite_file(tmp_path, block))
    assert len({cell_of(row).key for size in ("full", "small") for row in suite.rows(size)}) == 18


def test_the_commands_on_the_benchmark_page_are_ours() -> None:
    for command in re.findall(r"^goodnet (.*)$", PAGE.read_text(), re.MULTILINE):
        words = [word for word in command.split() if not word.startswith("-")]
        assert CliRunner().invoke(app, [*words[: 2 if words[0] == "bench" else 1], "--help"]).exit_code == 0
        assert words[2 if words[0] == "bench" else 1] in (*shipped_suites(), "suites")
