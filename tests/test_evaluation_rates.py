"""Rates, accuracy per class, repairs and seeds, against hand-made tables, scipy and scikit-learn."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.metrics import accuracy_score, recall_score

from goodnet.errors import ParameterError, UsageError
from goodnet.evaluation import (
    Change,
    Rate,
    accuracy_per_class,
    clean_accuracy,
    defense_effectiveness,
    harm_per_class,
    paired_difference,
    repair_succeeded,
    spread,
)

rates = st.integers(1, 500).flatmap(lambda count: st.builds(Rate, st.integers(0, count), st.just(count)))
changes = st.builds(Change, rates, rates)


def per_10000(percent_before: float, percent_after: float) -> Change:
    """Two percentages with two decimals, as the tables of papers give them."""
    return Change(Rate(round(percent_before * 100), 10_000), Rate(round(percent_after * 100), 10_000))


# --- a rate ---


def test_a_rate_is_its_hits_over_its_count():
    assert Rate(3, 4).value == 0.75


def test_a_rate_of_nothing_is_none_and_never_nan():
    nothing = Rate(0, 0)
    assert nothing.value is None
    assert nothing.interval() is None
    assert nothing.as_json() == {"hits": 0, "count": 0, "value": None, "interval_95": None}


@pytest.mark.parametrize(("hits", "count"), [(-1, 3), (4, 3), (0, -1), (1, 0)])
def test_impossible_counts_are_refused(hits, count):
    with pytest.raises(ParameterError, match=r"hits must be in \[0, count\]"):
        Rate(hits, count)


def test_the_interval_is_that_of_clopper_and_pearson():
    # by the quantiles of the beta distribution; no hit in 14 leaves 23 %, the textbook's 1 - 0.025^(1/14)
    low, high = Rate(3, 30).interval()
    assert (low, high) == pytest.approx((beta.ppf(0.025, 3, 28), beta.ppf(0.975, 4, 27)))
    assert Rate(0, 14).interval() == pytest.approx((0, 1 - 0.025 ** (1 / 14)))
    assert Rate(14, 14).interval() == pytest.approx((0.025 ** (1 / 14), 1))


@given(rates)
def test_the_interval_holds_the_share_and_grows_with_confidence(rate):
    low, high = rate.interval(0.95)
    wider_low, wider_high = rate.interval(0.99)
    assert 0 <= wider_low <= low <= rate.value <= high <= wider_high <= 1


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan])
def test_a_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(ParameterError, match="confidence must be between 0 and 1"):
        Rate(1, 2).interval(confidence)


def test_a_rate_is_written_as_json_with_its_counts():
    assert json.loads(json.dumps(Rate.of(np.array([True, False])).as_json())) == {
        "hits": 1,
        "count": 2,
        "value": 0.5,
        "interval_95": pytest.approx([0.01257912, 0.98742088]),
    }


# --- accuracy ---


@pytest.mark.parametrize("kind", [torch.tensor, np.array, lambda values: torch.tensor(values, dtype=torch.uint8)])
def test_accuracy_takes_tensors_and_arrays(kind):
    assert clean_accuracy(kind([0, 1, 2, 2]), kind([0, 1, 1, 2])) == Rate(3, 4)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=50))
def test_accuracy_and_accuracy_per_class_agree_with_scikit_learn(pairs):
    answers, labels = np.array(pairs).T  # an answer may be 4, which is no label: as of a model with N + 1 answers
    assert clean_accuracy(answers, labels).value == pytest.approx(accuracy_score(labels, answers))
    classes = np.unique(labels)
    expected = recall_score(labels, answers, labels=classes, average=None, zero_division=0.0)
    mine = accuracy_per_class(answers, labels)
    assert [mine[label].value for label in classes] == pytest.approx(list(expected))
    assert sum(rate.count for rate in mine.values()) == len(labels)


def test_harm_is_what_each_class_lost_with_its_counts():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    before, after = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 2, 2])
    harm = harm_per_class(before, after, labels)
    assert harm == {0: Change(Rate(3, 4), Rate(1, 4)), 2: Change(Rate(1, 2), Rate(2, 2))}
    assert harm[0].drop == 0.5
    assert harm[2].drop == -0.5


@pytest.mark.parametrize("empty", [torch.tensor([]), np.array([], dtype=int)])
def test_no_images_give_rates_of_nothing(empty):
    assert clean_accuracy(empty, empty) == Rate(0, 0)
    assert accuracy_per_class(empty, empty) == {}
    assert harm_per_class(empty, empty, empty) == {}


def test_lengths_that_differ_are_told():
    with pytest.raises(ParameterError, match="lengths differ: answers 2, labels 3"):
        clean_accuracy(torch.tensor([1, 2]), torch.tensor([1, 2, 3]))
    with pytest.raises(ParameterError, match="lengths differ"):
        harm_per_class(np.array([1]), np.array([1, 2]), np.array([1]))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (torch.zeros(2, 10), "one dimension"),
        (torch.zeros(2), "whole numbers"),
        (torch.tensor([True, False]), "whole numbers"),
        (np.array(["a", "b"]), "whole numbers"),
    ],
    ids=["logits", "floats", "a mask", "names"],
)
def test_what_is_no_list_of_classes_is_refused(answers, words):
    with pytest.raises(ParameterError, match=words):
        clean_accuracy(answers, torch.tensor([0, 1]))


# --- repairs ---


@pytest.mark.parametrize(
    ("defense", "accuracy", "attack", "rating"),
    [
        ("FT", (91.82, 90.29), (93.79, 1.70), 95.28),
        ("AC, accuracy lost", (91.82, 48.84), (93.79, 16.57), 67.12),
        ("ABL", (91.82, 80.10), (93.79, 0.00), 91.03),
        ("FT-SAM, accuracy gained", (91.82, 92.21), (93.79, 1.63), 96.08),
        ("pruning, attack gained", (91.82, 82.52), (93.79, 97.22), 45.35),
        ("NC, nothing changed", (92.80, 92.80), (98.90, 98.90), 50.00),
    ],
)
def test_the_rating_is_that_of_the_papers_tables(defense, accuracy, attack, rating):
    # Tables 1 and 4 of Zhu et al., ICCV 2023 (CIFAR-10, BadNets; the last row WaNet), in percent
    mine = defense_effectiveness(per_10000(*attack), per_10000(*accuracy))
    assert 100 * mine == pytest.approx(rating, abs=0.011), defense


def test_lost_accuracy_is_subtracted_and_not_added():
    gone = Change(Rate(100, 100), Rate(0, 100))
    kept, ruined = Change(Rate(90, 100), Rate(90, 100)), Change(Rate(90, 100), Rate(10, 100))
    assert defense_effectiveness(gone, kept) == 1
    assert defense_effectiveness(gone, ruined) == pytest.approx(0.6)  # adding it, as one peer does, gives 1.4


@given(changes, changes)
def test_the_rating_lies_between_0_and_1(attack, accuracy):
    assert 0 <= defense_effectiveness(attack, accuracy) <= 1


@given(changes, rates, rates, rates)
def test_the_rating_never_rises_when_accuracy_falls(attack, before, one, other):
    worse, better = sorted((one, other), key=lambda rate: rate.value)
    rated = defense_effectiveness(attack, Change(before, worse)), defense_effectiveness(attack, Change(before, better))
    assert rated[0] <= rated[1]


@pytest.mark.parametrize("place", range(4))
def test_without_images_there_is_no_rating(place):
    four = [Rate(1, 2)] * 4
    four[place] = Rate(0, 0)
    assert defense_effectiveness(Change(*four[:2]), Change(*four[2:])) is None


@pytest.mark.parametrize(
    ("attack_after", "accuracy_after", "succeeded"),
    [(10, 88, True), (11, 91, False), (0, 87, False), (0, 99, True)],
    ids=["both at the limit", "attack left", "accuracy lost", "accuracy gained"],
)
def test_a_repair_succeeds_at_ten_percent_and_three_points(attack_after, accuracy_after, succeeded):
    attack = Change(Rate(95, 100), Rate(attack_after, 100))
    accuracy = Change(Rate(91, 100), Rate(accuracy_after, 100))  # 0.91 - 0.88 > 0.03 in binary
    assert repair_succeeded(attack, accuracy) is succeeded


def test_the_limits_of_success_are_arguments():
    attack, accuracy = per_10000(95, 12), per_10000(90, 86)
    assert repair_succeeded(attack, accuracy, attack_at_most=0.12, accuracy_drop_at_most=0.04) is True
    assert repair_succeeded(attack, accuracy, attack_at_most=0.11, accuracy_drop_at_most=0.04) is False
    assert repair_succeeded(attack, accuracy, attack_at_most=0.12, accuracy_drop_at_most=0.0399) is False
    with pytest.raises(ParameterError, match="attack_at_most"):
        repair_succeeded(attack, accuracy, attack_at_most=10)


def test_success_without_images_is_unknown():
    assert repair_succeeded(Change(Rate(1, 1), Rate(0, 0)), per_10000(90, 90)) is None
    assert repair_succeeded(per_10000(90, 0), Change(Rate(0, 0), Rate(0, 0))) is None


# --- seeds ---


def test_the_spread_is_mean_and_sample_deviation():
    of_three = spread([1.0, 2.0, 6.0])
    assert (of_three.mean, of_three.count) == (3.0, 3)
    assert of_three.standard_deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_one_run_has_no_deviation_and_none_no_mean():
    assert (spread([0.5]).mean, spread([0.5]).standard_deviation) == (0.5, None)
    assert (spread([]).mean, spread([]).standard_deviation, spread([]).count) == (None, None, 0)


def test_pairs_are_made_by_seed_and_not_by_order():
    difference = paired_difference({0: 0.9, 1: 0.5}, {1: 0.4, 0: 0.8})
    assert difference.mean == pytest.approx(0.1)
    assert difference.standard_deviation == pytest.approx(0, abs=1e-12)


def test_unpaired_seeds_and_values_that_are_no_numbers_are_refused():
    with pytest.raises(ParameterError, match="only one side has 1, 2"):
        paired_difference({0: 0.9, 1: 0.5}, {0: 0.9, 2: 0.5})
    with pytest.raises(UsageError, match="finite"):
        spread([1.0, math.nan])
