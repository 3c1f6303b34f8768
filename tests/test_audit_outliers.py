"""Anomaly index, gaps between sizes and the clean bank, against hand computations and simulation."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from goodnet.audit import _bank
from goodnet.audit._bank import BankEntry, CleanBank, user_bank
from goodnet.audit._base import auditors
from goodnet.audit._outliers import anomaly_index, log_size, separation
from goodnet.errors import UnreadableData

# --- the anomaly index ---


def test_the_anomaly_index_is_the_hand_computed_one():
    # median 50, deviations 40, 10, 0, 10, 20 -> median 10; (50 - 10) / (1.4826 * 10)
    index = anomaly_index(torch.tensor([10.0, 40.0, 50.0, 60.0, 70.0]))
    assert index[0] == pytest.approx(40 / 14.826)
    assert index[1] == pytest.approx(10 / 14.826)


def test_only_sizes_below_the_median_get_an_index():
    assert anomaly_index(torch.tensor([40.0, 45.0, 50.0, 60.0, 900.0]))[2:].tolist() == [0, 0, 0]


def test_an_even_number_of_sizes_has_the_mean_of_the_middle_two_as_median():
    # median 25, deviations 15, 5, 5, 15 -> median 10
    assert anomaly_index(torch.tensor([10.0, 20.0, 30.0, 40.0]))[0] == pytest.approx(15 / 14.826)


def test_a_deviation_of_zero_gives_infinity_below_the_median_and_nothing_else():
    assert anomaly_index(torch.tensor([1.0, 9.0, 9.0, 9.0, 12.0])).tolist() == [math.inf, 0, 0, 0, 0]
    assert anomaly_index(torch.tensor([9.0, 9.0, 9.0])).tolist() == [0, 0, 0]


def test_the_index_can_be_taken_against_other_sizes():
    typical = torch.tensor([40.0, 50.0, 60.0])
    assert anomaly_index(torch.tensor([20.0]), typical)[0] == pytest.approx(30 / 14.826)


@settings(deadline=None)  # the first call of quantile is slow
@given(st.lists(st.floats(1, 1000), min_size=3, max_size=20), st.floats(0.1, 10))
def test_the_index_does_not_depend_on_the_unit_of_size(sizes, unit):
    values = torch.tensor(sizes, dtype=torch.float64)
    torch.testing.assert_close(anomaly_index(values * unit), anomaly_index(values), rtol=1e-3, atol=1e-3)


# --- gaps ---


@pytest.mark.parametrize("planted", [1, 2, 3, 4, 5])
def test_planted_small_labels_are_split_off(planted):
    logs = torch.cat([torch.linspace(1.0, 1.2, planted), torch.linspace(3.0, 4.0, 30)])
    split = separation(logs[torch.randperm(len(logs), generator=torch.Generator().manual_seed(0))], 35)
    assert split.suspects == planted
    assert split.gap == pytest.approx(3.0 - float(logs[planted - 1]), abs=1e-5)


def test_a_gap_among_the_large_labels_does_not_count():
    assert separation(torch.tensor([1.0, 1.3, 1.4, 1.5, 1.6, 9.0]), 6).gap == pytest.approx(0.3, abs=1e-6)


def test_few_labels_have_no_test_of_their_own_and_no_labels_no_gap():
    assert separation(torch.linspace(1, 2, 16), 10).many_label_p_value is None
    assert separation(torch.tensor([1.0]), 1).suspects == 0


def tail(classes: int, kept: int, generator: torch.Generator) -> torch.Tensor:
    """The ``kept`` smallest of ``classes`` log sizes whose lower tail is exponential."""
    uniform = torch.rand(classes, generator=generator, dtype=torch.float64)
    return uniform.log().sort().values[:kept]


def test_the_many_label_test_keeps_its_rate_of_false_alarms():
    generator = torch.Generator().manual_seed(0)
    p_values = torch.tensor([separation(tail(500, 16, generator), 500).many_label_p_value for _ in range(1500)])
    # Bonferroni over the gaps tried: at most alpha, and the widest raw gap is often the first, which is no bad guess
    for alpha in (0.01, 0.05, 0.1):
        assert float((p_values <= alpha).float().mean()) <= alpha + 3 * math.sqrt(alpha / 1500)
    assert float((p_values <= 0.1).float().mean()) > 0.02


@pytest.mark.parametrize("planted", [1, 2, 3, 4, 5])
def test_the_many_label_test_finds_labels_far_below_the_others(planted):
    generator = torch.Generator().manual_seed(planted)
    others = tail(500, 16 - planted, generator)
    logs = torch.cat([others.min() - 10 - 0.1 * torch.rand(planted, generator=generator), others])
    split = separation(logs, 500)
    assert split.suspects == planted
    assert split.many_label_p_value < 0.05


def test_a_label_without_a_trigger_counts_as_the_whole_image_and_none_is_smaller_than_a_pixel():
    assert log_size(torch.tensor([0.01, 10.0, math.inf]), 100.0).tolist() == pytest.approx(
        [0, math.log(10), math.log(100)]
    )


# --- the bank ---


def entry(score: float, num_classes: int = 10, method: str = "m", version: int = 1) -> BankEntry:
    return BankEntry(
        method=method, version=version, score=score, num_classes=num_classes, architecture="a", data="d", seed=0
    )


def bank(*scores: float, **other) -> CleanBank:
    return CleanBank(tuple(entry(score, **other) for score in scores))


@pytest.mark.parametrize(
    ("score", "p_value"),
    [(9.0, 1 / 5), (4.0, 2 / 5), (3.5, 2 / 5), (2.0, 4 / 5), (0.0, 1.0)],
    ids=["above all", "a tie with the largest", "between", "a tie", "below all"],
)
def test_the_p_value_is_conformal_and_ties_speak_for_the_suspect(score, p_value):
    compared = bank(1.0, 2.0, 3.0, 4.0).compare(score, "m", 1, 10)
    assert compared.p_value == pytest.approx(p_value)
    assert compared.floor == 1 / 5


def test_nets_of_other_methods_versions_and_numbers_of_labels_are_not_compared():
    mixed = CleanBank((entry(1.0), entry(9.0, method="other"), entry(9.0, version=2), entry(9.0, num_classes=43)))
    assert mixed.compare(5.0, "m", 1, 10).p_value == 1 / 2


@pytest.mark.parametrize(
    ("mine", "its", "same"), [(2, 20, True), (20, 21, False), (21, 99, True), (99, 100, False), (100, 1283, True)]
)
def test_kinds_of_models_are_those_with_about_as_many_labels(mine, its, same):
    assert (bank(1.0, num_classes=its).compare(2.0, "m", 1, mine).p_value is not None) is same


def test_an_empty_bank_says_nothing():
    compared = CleanBank(()).compare(1.0, "m", 1, 10)
    assert compared.p_value is None
    assert compared.floor == 1
    assert "no clean nets" in compared.basis


def test_a_bank_survives_its_file(tmp_path):
    made = bank(1.0, 2.5)
    made.write(tmp_path / "deep" / "bank.json")
    assert CleanBank.read(tmp_path / "deep" / "bank.json") == made
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bank.json"]


def test_the_users_bank_is_added_to_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GOODNET_BANK", str(tmp_path / "bank.json"))
    shipped = len(CleanBank.shipped().entries)
    bank(7.0).write(user_bank())
    assert CleanBank.shipped().entries[shipped:] == bank(7.0).entries


def test_the_users_bank_lies_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("GOODNET_BANK", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_bank() == tmp_path / "goodnet" / "bank.json"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"nets": 3}', '{"nets": [{}]}', '{"nets": [{"scores": 1}]}', '{"schema": 1}', "\x00"],
)
def test_a_file_that_is_no_bank_is_refused_by_name(tmp_path, text):
    path = tmp_path / "bank.json"
    path.write_text(text)
    with pytest.raises(UnreadableData, match="bank.json"):
        CleanBank.read(path)


def test_the_shipped_bank_can_be_read():
    for one in _bank._packaged().entries:
        assert math.isfinite(one.score)
        assert json.dumps(one.method)


@pytest.mark.parametrize("method", ["neural-cleanse", "mm-bd"])
def test_the_shipped_bank_can_speak_at_five_percent_about_ten_labels(method):
    card = auditors[method].card
    compared = _bank._packaged().compare(math.inf, card.name, card.version, 10)
    assert compared.p_value == compared.floor <= 0.05
