"""Suites: from a TOML file to rows, and what is wrong with a file that is none."""

from pathlib import Path

import pytest

from goodnet.bench import load_suite
from goodnet.errors import UnknownName, UnreadableFile

HEAD = 'name = "quick"\nsummary = "a few"\n'
QUICK = (
    HEAD
    + """
[sizes.small]
epochs = 2
[defaults]
epochs = 10
rate = 0.1
[[grid]]
attack = ["none", {name = "badnets", size = 4}]
defense = [[], [{name = "fine-tuning"}]]
seed = [0, 1]
[[grid]]
attack = ["none", "sig"]
defense = [[]]
seed = [1]
rate = [0.2]
"""
)


def suite_file(folder: Path, text: str) -> Path:
    path = folder / "quick.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_combination_is_a_row_in_the_order_of_the_file(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path, QUICK))
    assert (suite.name, suite.summary, list(suite.sizes)) == ("quick", "a few", ["small"])
    rows = suite.rows()
    badnets, tuning = {"name": "badnets", "size": 4}, [{"name": "fine-tuning"}]
    assert [(row["attack"], row["defense"], row["seed"], row["rate"]) for row in rows] == [
        ("none", [], 0, 0.1),
        ("none", [], 1, 0.1),
        ("none", tuning, 0, 0.1),
        ("none", tuning, 1, 0.1),
        (badnets, [], 0, 0.1),
        (badnets, [], 1, 0.1),
        (badnets, tuning, 0, 0.1),
        (badnets, tuning, 1, 0.1),
        ("none", [], 1, 0.2),
        ("sig", [], 1, 0.2),
    ]
    assert {row["epochs"] for row in rows} == {10}


def test_a_size_changes_defaults(tmp_path: Path) -> None:
    suite = load_suite(suite_file(tmp_path, QUICK))
    assert {row["epochs"] for row in suite.rows("small")} == {2}
    assert [{**row, "epochs": 10} for row in suite.rows("small")] == suite.rows()
    with pytest.raises(UnknownName, match="no size named 'smal'. Did you mean 'small'"):
        suite.rows("smal")


def test_a_row_that_two_grids_give_is_there_once(tmp_path: Path) -> None:
    text = HEAD + "[defaults]\nseed = 0\n[[grid]]\na = [1, 2, 1]\n[[grid]]\nseed = [0, 1]\na = [2]\n"
    assert load_suite(suite_file(tmp_path, text)).rows() == [
        {"seed": 0, "a": 1},
        {"seed": 0, "a": 2},
        {"seed": 1, "a": 2},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "quick"\n[[grid]]\na = [1]', "summary: field required"),
        (HEAD, "grid: field required"),
        ('name = ""\nsummary = ""\n[[grid]]\na = [1]', "name: string should have at least 1 character"),
        ('name = 3\nsummary = ""\n[[grid]]\na = [1]', "name: input should be a valid string"),
        (HEAD + "colour = 1\n[[grid]]\na = [1]", "colour: no such key; a suite has name, summary, sizes"),
        (HEAD + "[[grid]]\na = 1", "grid.0.a: input should be a valid list"),
        (HEAD + "[[grid]]\na = [1]\n[[grid]]\na = []", "grid.1.a: list should have at least 1 item"),
        (HEAD + "[grid]\na = [1]", "grid: input should be a valid list"),
        (HEAD + "[[grid]]\na = [1979-05-27]", "grid.0.a.0: input was not a valid JSON value"),
        (HEAD + "[[grid]]\na = [{b = nan}]", "grid.0.a.0: value error"),
        (HEAD + "[defaults]\nb = inf\n[[grid]]\na = [1]", "defaults.b: value error"),
        (HEAD + "[sizes]\nsmall = 3\n[[grid]]\na = [1]", "sizes.small: input should be a valid dictionary"),
        (
            HEAD + "[sizes.small]\nepoch = 3\n[defaults]\nepochs = 1\n[[grid]]\na = [1]",
            "sizes.small.epoch changes nothing; [defaults] has epochs",
        ),
        (HEAD + "[[grid]", "is no TOML"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        load_suite(suite_file(tmp_path, text))
    assert says in str(caught.value)
    assert str(tmp_path / "quick.toml") in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="cannot be read: No such file"):
        load_suite(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile, match="no TOML"):
        load_suite(tmp_path / "bytes.toml")
