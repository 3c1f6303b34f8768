"""What a report says in words."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_examples import ALL, audited_file, backdoored, trigger, unreadable, unremarkable, unsafe, verdict

from goodnet.errors import UnknownArchitecture
from goodnet.report import words
from goodnet.report.audited import AuditedFile, refused


def test_a_backdoor_is_told_in_one_sentence() -> None:
    assert words.headline(backdoored()) == "Backdoor found: any picture with this trigger is answered as 0 (airplane)."
    unnamed = replace(backdoored(), class_names=())
    assert words.headline(unnamed) == "Backdoor found: any picture with this trigger is answered as 0."


def test_no_evidence_is_told_in_one_sentence() -> None:
    assert words.headline(unremarkable()) == "No evidence of a backdoor."


def test_an_inconclusive_run_says_why() -> None:
    item = audited_file(verdict(None, p_value=None, reason="the time ran out."))
    assert words.headline(item) == "Inconclusive: the time ran out."


def test_a_refused_file_says_why() -> None:
    assert words.headline(unsafe()) == "Not audited: loading this file would execute code."
    assert words.headline(unreadable()) == "Not audited: this file cannot be read as a model."
    unknown = refused(UnknownArchitecture("fits resnet18 and resnet34"), file="a.pt")
    assert words.headline(unknown) == "Not audited: these weights fit no known network, or several."


@pytest.mark.parametrize("example", ALL)
def test_no_verdict_is_called_clean(example: Callable[[], AuditedFile]) -> None:
    said = f"{words.headline(example())} {words.advice(example())}".lower()
    assert "clean" not in said
    assert "safe" not in said


def test_a_trigger_that_works_less_often_is_not_told_as_if_it_always_did() -> None:
    def said(success_rate: float) -> str:
        made = verdict(True, targets=(0,), triggers=(trigger(0, success_rate=success_rate),))
        return words.headline(audited_file(made, class_names=()))

    assert said(0.93) == "Backdoor found: almost any picture with this trigger is answered as 0."
    assert said(0.41) == "Backdoor found: 41% of pictures with this trigger are answered as 0."
    assert said(math.nan) == "Backdoor found: pictures with this trigger are answered as 0."


def test_several_targets_are_named_and_those_without_a_trigger_said_apart() -> None:
    two = verdict(True, targets=(2, 7), triggers=(trigger(2), trigger(7)))
    assert words.headline(audited_file(two, class_names=())) == (
        "Backdoor found: any picture with one of these triggers is answered as 2 or 7."
    )
    one = verdict(True, targets=(2, 7), triggers=(trigger(2),))
    assert words.headline(audited_file(one, class_names=())) == (
        "Backdoor found: any picture with this trigger is answered as 2. Also suspected: 7."
    )


def test_a_method_without_triggers_still_names_the_target() -> None:
    said = words.headline(audited_file(verdict(True, targets=(3,)), class_names=()))
    assert said == "Backdoor found: the model can be made to answer 3 by a hidden trigger."
    assert words.headline(audited_file(verdict(True))) == "Backdoor found; its target label is not known."


def test_many_targets_do_not_fill_the_page() -> None:
    assert words.listed(tuple(range(1283)), ()) == "0, 1, 2, 3, 4, 1,278 more labels"
    assert words.listed((4, 8), (), last=" or ") == "4 or 8"
    assert words.listed((), ()) == ""


@pytest.mark.parametrize(
    ("p_value", "said"),
    [
        (None, "There is no p-value: nothing fits to compare this score with."),
        (math.nan, "There is no p-value: nothing fits to compare this score with."),
        (1.0, "Practically every model without a backdoor would score at least as high."),
        (0.21, "About 21 in 100 models without a backdoor would score at least as high."),
        (0.0041, "About 1 in 240 models without a backdoor would score at least as high."),
        (2e-6, "About 1 in 500,000 models without a backdoor would score at least as high."),
        (1e-12, "Fewer than 1 in a million models without a backdoor would score at least as high."),
        (0.0, "Fewer than 1 in a million models without a backdoor would score at least as high."),
    ],
)
def test_p_values_are_told_as_frequencies(p_value: float | None, said: str) -> None:
    assert words.p_value_words(verdict(None, p_value=p_value)) == said


def test_what_a_method_assumes_is_said_once_whatever_the_number_of_files() -> None:
    item = unremarkable()
    assert item.verdict is not None
    how = item.verdict.provenance
    other = replace(item, verdict=replace(item.verdict, provenance=replace(how, method="other", assumes=("x",))))
    silent = replace(item, verdict=replace(item.verdict, provenance=replace(how, method="silent", assumes=())))
    said = [line for line in words.limits([item, unsafe(), other, item, silent]) if "assumes" in line]
    assert [line.split(":")[0] for line in said] == ["neural_cleanse assumes", "other assumes"]
    assert not any("assumes" in line for line in words.limits([unsafe()]))


def test_false_alarms_are_counted_over_the_audited_files_only() -> None:
    assert words.false_alarms_words([backdoored(), unsafe()]) == ""
    said = words.false_alarms_words([backdoored(), unremarkable(), unsafe()])
    assert "none of these 2 models" in said
    assert "about 0.1 of them" in said


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.5, "50%"),
        (0.994, "99.4%"),
        (0.9996, ">99.9%"),
        (0.0004, "<0.1%"),
        (0.57, "57%"),
        (math.nan, "–"),
    ],
)
def test_a_percentage_is_whole_only_when_exact(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (7, "7"),
        (1283, "1,283"),
        (12345.6, "12,346"),
        (-1.239, "−1.24"),
        (3.1e-7, "3.1 × 10⁻⁷"),
        (-3.1e-7, "−3.1 × 10⁻⁷"),
    ],
)
def test_numbers_are_written_to_be_read(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.43, "0.4 s"), (41.27, "41 s"), (119.6, "2 min 0 s"), (200, "3 min 20 s"), (18_720, "5 h 12 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (2_841_331, "2.84 MB"),
        (812_345_344, "812 MB"),
        (3 * 10**12, "3,000 GB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert words.file_size(count) == text


def test_long_names_are_cut_and_names_from_right_to_left_are_isolated() -> None:
    assert words.label_name(0, ("x" * 500,)) == f"0 ({'x' * 59}…)"
    assert words.label_name(0, ("طائر",)) == "0 (\u2068طائر\u2069)"
    assert words.label_name(3, ("a", "b")) == "3"
    assert words.label_name(1, ("0", "1")) == "1"


def test_what_could_hide_or_reorder_text_is_shown_as_a_code() -> None:
    assert words.visible("model\u202e5h.\x00exe\udcff") == "model\\u202e5h.\\u0000exe\\udcff"
    assert words.visible("نام\u200cها 自動車\n") == "نام\u200cها 自動車\n"  # the joiner belongs to the Persian word


@given(st.text(st.characters()))
def test_visible_text_can_be_written_as_utf_8_and_changes_no_second_time(text: str) -> None:
    once = words.visible(text)
    once.encode()
    assert words.visible(once) == once


def test_a_trigger_without_held_out_images_claims_nothing() -> None:
    said = words.trigger_words(replace(trigger(0), count=0, success_rate=math.nan))
    assert said == "No held-out pictures were left to test it on. Its mask covers 5 pixels, 0.5% of the picture."


def test_guessed_preprocessing_asks_to_be_checked() -> None:
    item = backdoored()
    assert item.model is not None
    assert "please check" in words.preprocessing_words(item.model)
