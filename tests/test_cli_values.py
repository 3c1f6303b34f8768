"""What people type becomes values, or a message that says what to type."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.cli._outcome import shown, worst
from goodnet.cli._values import duration, settings
from goodnet.errors import ParameterError, UnknownName


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90), ("90s", 90), ("2m", 120), ("1h", 3600), ("1.5m", 90), (" 2m ", 120)]
)
def test_durations_are_read_as_people_write_them(written: str, seconds: float) -> None:
    assert duration(written) == seconds


@pytest.mark.parametrize("written", ["", "0", "0s", "-1", "2 m", "m", "1d", "nan", "inf", "1e3", "２m", "9" * 400])
def test_other_durations_are_refused_with_an_example(written: str) -> None:
    with pytest.raises(ParameterError, match="such as 90, 90s, 2m or 1h"):
        duration(written)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reader_of_durations(written: str) -> None:
    with contextlib.suppress(ParameterError):
        assert duration(written) > 0


def test_settings_take_the_type_of_the_default() -> None:
    chosen = settings(
        NeuralCleanse, ["steps=30", "held_out=0.5", "scales=1,2", "mixed_precision=false", "schedule=exhaustive"]
    )
    assert chosen == {
        "steps": 30,
        "held_out": 0.5,
        "scales": (1, 2),
        "mixed_precision": False,
        "schedule": "exhaustive",
    }
    assert isinstance(NeuralCleanse(**chosen), NeuralCleanse)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps", "takes name=value, got 'steps'"),
        ("steps=many", "--set steps must look like 150, got 'many'"),
        ("steps=1.5", "--set steps must look like 150"),
        ("mixed_precision=perhaps", "must look like true"),
        ("scales=a,b", "--set scales must look like 1"),
    ],
)
def test_wrong_settings_are_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        settings(NeuralCleanse, [word])


def test_an_unknown_setting_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        settings(NeuralCleanse, ["step=3"])


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 3, 2, 1), 1), ((0, 3, 2), 2), ((0, 3), 3), ((0, 0), 0), ((3, 0, 1), 1)]
)
def test_the_worst_of_several_files_decides(codes: tuple[int, ...], expected: int) -> None:
    assert worst(codes) == expected


def test_names_from_strangers_cannot_command_the_terminal() -> None:
    assert shown("a\x1b[31mb\u202ec\udcff\nd é") == "a\\x1b[31mb\\u202ec\\udcff\nd é"
