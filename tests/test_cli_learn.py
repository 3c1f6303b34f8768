"""goodnet learn as people and scripts meet it: what it writes, what it refuses, how it ends."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import heed_interrupts
from typer.testing import CliRunner, Result

import goodnet
from goodnet.cli.main import app

QUICK = ["--limit", 200, "--arch", "small_cnn_bn:width=4", "--recipe", "epochs=1"]
ABL = [*QUICK, "--set", "isolation_epochs=1", "--set", "steps=2", "--set", "share=0.05"]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_help_says_what_is_written_how_to_call_it_and_how_it_ends() -> None:
    told = call("learn", "--help")
    assert told.exit_code == 0
    for word in ("--method", "--recipe", "--json", "goodnet learn photos/ --out learned/", "Exit codes"):
        assert word in told.stdout


def test_the_folder_the_table_and_the_json_tell_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = call("learn", "digits", *ABL, "--out", out, "--json")
    assert made.exit_code == 0, made.output
    record = json.loads(made.stdout)
    assert made.stderr == ""
    assert json.loads((out / "learned.json").read_text()) == record
    assert sorted(path.name for path in out.iterdir()) == ["learned.json", "model", "report.html", "samples.csv"]
    assert (record["method"], record["images"], record["distrusted"]) == ("abl", 200, 10)
    assert sum(one["images"] for one in record["labels"]) == 200
    with (out / "samples.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["id"] for row in rows}) == 200
    for one in record["labels"]:
        mine = [row["distrusted"] for row in rows if row["label"] == str(one["label"])]
        assert (len(mine), mine.count("1")) == (one["images"], one["distrusted"])
    model = goodnet.load_model(out / "model")
    assert model.num_classes == 10
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_person_is_told_what_was_set_off_and_what_to_do_next_and_may_repeat_it(tmp_path: Path) -> None:
    for _ in range(2):  # our own results may be replaced
        told = call("learn", "digits", *ABL, "--out", tmp_path / "out")
        assert told.exit_code == 0, told.output
        assert "set off  10 images" in told.stdout
        assert "goodnet audit" in told.stdout


def test_where_a_method_makes_no_choice_the_column_is_empty(tmp_path: Path) -> None:
    made = call("learn", "digits", *QUICK, "--method", "plain", "--out", tmp_path / "out", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["distrusted"] is None
    with (tmp_path / "out" / "samples.csv").open(newline="") as stream:
        assert {row["distrusted"] for row in csv.DictReader(stream)} == {""}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere/"], "does not exist"),
        (["digits", "--method", "abel"], "Did you mean 'abl'"),
        (["digits", "--set", "share=2"], "share must be in"),
        (["digits", "--set", "shar=0.1"], "Did you mean 'share'"),
        (["digits", "--recipe", "epochs=0"], "epochs must be in"),
        (["digits", "--arch", "small_cnm"], "small_cnn"),
        (["digits", "--device", "cuda:77"], "no device"),
        (["digits", "--method", "retrain", "--set", "cleanser=scam"], "Did you mean 'scan'"),
        (["digits", "--method", "retrain", "--set", "cleanser=scan", *QUICK], "clean"),
    ],
)
def test_wrong_usage_says_what_to_do_and_writes_nothing(words: list[object], message: str, tmp_path: Path) -> None:
    wrong = call("learn", *words, "--out", tmp_path / "out")
    assert wrong.exit_code == 2, wrong.output
    assert message in wrong.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_learned_from_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "photos").mkdir()
    for name in ("text.npz", "photos"):
        wrong = call("learn", tmp_path / name, "--out", tmp_path / "out")
        assert wrong.exit_code == 2, wrong.output
        assert wrong.stderr.startswith("goodnet: ") or name in wrong.stderr
        assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    wrong = call("learn", "digits", *ABL, "--out", tmp_path)
    assert wrong.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_ctrl_c_gives_130_one_line_and_no_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "goodnet.cli", "learn", "digits", "--out", "out", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "--method", "plain", "--recipe", "epochs=100000"],
        stdout=pipe,
        stderr=pipe,
        text=True,
        cwd=tmp_path,
        preexec_fn=heed_interrupts,
    ) as process:
        try:
            time.sleep(6)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert err.startswith("goodnet: interrupted")
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []
