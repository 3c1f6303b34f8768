"""Ranking, thresholds and removals, against scikit-learn, pair by pair counts and simulation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score, roc_curve

from goodnet.errors import ParameterError
from goodnet.evaluation import (
    Rate,
    Removal,
    at_false_positive_rate,
    at_threshold,
    ranking,
    removal,
    roc_points,
)

# few different values make many ties
tied = st.lists(st.tuples(st.integers(0, 6).map(float), st.booleans()), min_size=1, max_size=60)
any_scores = st.lists(st.tuples(st.floats(allow_nan=False, width=32), st.booleans()), min_size=1, max_size=60)


def columns(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([truth for _, truth in pairs])


def pairs_won(scores: np.ndarray, truth: np.ndarray) -> float:
    """AUROC by its definition: every pair, ties half."""
    difference = scores[truth][:, None] - scores[~truth][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


# --- ranking ---


@given(tied)
def test_auroc_and_average_precision_agree_with_scikit_learn_and_the_definition(pairs):
    scores, truth = columns(pairs)
    found = ranking(scores, truth)
    assert (found.positives, found.negatives) == (truth.sum(), (~truth).sum())
    if truth.all() or not truth.any():
        assert (found.auroc, found.auroc_interval, found.average_precision) == (None, None, None)
        assert roc_points(scores, truth) == ()
        return
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert found.auroc == pytest.approx(pairs_won(scores, truth))
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores))


@given(any_scores)
def test_negated_scores_rank_the_other_way_round(pairs):
    scores, truth = columns(pairs)
    there, back = ranking(scores, truth), ranking(-scores, truth)
    if there.auroc is not None:
        assert there.auroc == pytest.approx(1 - back.auroc)
        low, high = there.auroc_interval
        assert 0 <= low <= there.auroc <= high <= 1
        assert back.auroc_interval == pytest.approx((1 - high, 1 - low))


def test_infinite_scores_are_ranked():
    scores = torch.tensor([math.inf, 3.0, -math.inf, 1.0])
    assert ranking(scores, torch.tensor([True, True, False, False])).auroc == 1
    assert roc_points(scores, torch.tensor([True, True, False, False]))[0] == (0, 0)


def test_tensors_of_every_float_type_are_taken():
    truth = torch.tensor([False, True, True])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert ranking(torch.tensor([0.0, 1.0, 0.0], dtype=dtype, requires_grad=True), truth).auroc == 0.75


def test_the_interval_is_the_hand_computed_one():
    # each positive has 3, 3, 2 of the 3 negatives below it, each negative 2, 3, 3 of the positives above it
    scores, truth = np.array([5.0, 4.0, 2.0, 3.0, 1.0, 0.0]), np.array([True, True, True, False, False, False])
    auroc, variance = 8 / 9, 2 * np.var([1, 1, 2 / 3], ddof=1) / 3
    half = 1.959964 * math.sqrt(variance) / (auroc * (1 - auroc))
    odds = [math.exp(math.log(8) + sign * half) for sign in (-1, 1)]
    assert ranking(scores, truth).auroc_interval == pytest.approx([odd / (1 + odd) for odd in odds])


def test_perfect_separation_of_a_few_is_not_certainty():
    few, many = (ranking(np.arange(2.0 * n), np.arange(2 * n) >= n) for n in (20, 2000))
    assert few.auroc == many.auroc == 1
    assert few.auroc_interval == pytest.approx((20 / (20 + 1.959964**2), 1))  # Wilson's for 20 of 20
    assert many.auroc_interval[0] > 0.99
    unequal = ranking(np.arange(1000.0), np.arange(1000) >= 995)  # the smaller class says how much is known
    assert unequal.auroc_interval == pytest.approx((5 / (5 + 1.959964**2), 1))


def test_one_sample_and_constant_scores_have_wide_intervals():
    low, high = ranking(np.array([1.0, 2.0]), np.array([False, True])).auroc_interval
    assert low < 0.25
    assert high == 1
    low, high = ranking(np.zeros(20), np.arange(20) < 10).auroc_interval
    assert low < 0.3
    assert high > 0.7


def test_the_interval_covers_what_it_should():
    # a trigger that works on 70 % of the images only: far from two normal distributions
    generator = np.random.default_rng(0)
    truth = np.arange(240) < 40
    covered = 0
    for _ in range(400):
        works = generator.random(240) < 0.7
        scores = generator.random(240) + np.where(truth, np.where(works, 5, -5), 0)
        low, high = ranking(scores, truth).auroc_interval
        covered += low <= 0.7 <= high
    assert 0.92 <= covered / 400 <= 0.99


@given(tied)
def test_the_area_under_the_points_is_the_auroc(pairs):
    scores, truth = columns(pairs)
    points = roc_points(scores, truth)
    if points:
        across, up = zip(*points, strict=True)
        assert (points[0], points[-1]) == ((0, 0), (1, 1))
        assert np.trapezoid(up, across) == pytest.approx(ranking(scores, truth).auroc)


# --- thresholds ---


def test_a_score_that_equals_the_threshold_is_accepted():
    point = at_threshold(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]), 2.0)
    assert point.true_positive_rate == Rate(1, 2)
    assert point.false_positive_rate == Rate(0, 2)


def test_rejection_and_acceptance_are_errors_on_either_side():
    scores, truth = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.7]), torch.tensor([False, False, True, True, True])
    point = at_threshold(scores, truth, 0.5)
    assert point.false_rejection_rate == Rate(1, 2)
    assert point.false_acceptance_rate == Rate(1, 3)


@given(st.one_of(tied, any_scores), st.floats(0, 1, exclude_max=True))
def test_the_wanted_false_positive_rate_is_never_exceeded_and_nothing_more_can_be_caught(pairs, wanted):
    scores, truth = columns(pairs)
    point = at_false_positive_rate(scores, truth, wanted)
    if truth.all():
        assert point is None
        return
    assert point.false_positive_rate.value <= wanted
    assert point == at_threshold(scores, truth, point.threshold)
    for lower in scores[scores < point.threshold]:
        assert at_threshold(scores, truth, lower).false_positive_rate.value > wanted
    if truth.any() and np.isfinite(scores).all():
        false_positives, true_positives, _ = roc_curve(truth, scores, drop_intermediate=False)
        assert point.true_positive_rate.value == pytest.approx(true_positives[false_positives <= wanted].max())


def test_ties_are_not_split_to_reach_the_wanted_rate():
    # 20 of 100 clean samples share the highest score: no threshold has 5 %
    scores = np.concatenate([np.zeros(80), np.ones(20), np.ones(10), np.full(5, 2.0)])
    point = at_false_positive_rate(scores, np.arange(115) >= 100, 0.05)
    assert point.threshold == 1
    assert point.false_positive_rate == Rate(0, 100)
    assert point.true_positive_rate == Rate(5, 15)


def test_a_rate_that_can_be_reached_exactly_is_reached():
    scores, truth = np.arange(100.0), np.zeros(100, dtype=bool)
    for hits in range(100):
        assert at_false_positive_rate(scores, truth, hits / 100).false_positive_rate == Rate(hits, 100)


def test_a_few_clean_samples_cannot_show_one_percent():
    scores, truth = np.arange(40.0), np.arange(40) % 2 == 0
    assert at_false_positive_rate(scores, truth, 0.01).false_positive_rate == Rate(0, 20)


def test_without_positives_the_threshold_still_stands():
    point = at_false_positive_rate(np.arange(20.0), np.zeros(20, dtype=bool), 0.05)
    assert point.threshold == 18
    assert point.true_positive_rate.value is None


def test_nothing_to_detect_in_nothing():
    nothing = np.array([])
    assert ranking(nothing, nothing).auroc is None
    assert roc_points(nothing, nothing) == ()
    assert at_false_positive_rate(nothing, nothing, 0.05) is None
    assert at_threshold(nothing, nothing, 1.0).false_acceptance_rate.value is None


@pytest.mark.parametrize(
    ("scores", "truth", "words"),
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([True, False]), "NaN 1 times"),
        (torch.tensor([1.0, 2.0]), torch.tensor([1, 0]), "truth must be True or False"),
        (torch.tensor([1.0, 2.0]), torch.tensor([True]), "lengths differ: scores 2, truth 1"),
        (torch.ones(2, 1), torch.tensor([True, False]), "one dimension"),
        (np.array(["high", "low"]), np.array([True, False]), "scores must be real numbers"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores, truth, words):
    for measure in (ranking, roc_points, lambda *both: at_threshold(*both, 0.5)):
        with pytest.raises(ParameterError, match=words):
            measure(scores, truth)


def test_rates_and_thresholds_out_of_range_are_refused():
    scores, truth = np.array([1.0, 2.0]), np.array([False, True])
    for wanted in (-0.1, 1, 5, math.nan):
        with pytest.raises(ParameterError, match="wanted"):
            at_false_positive_rate(scores, truth, wanted)
    with pytest.raises(ParameterError, match="threshold is NaN"):
        at_threshold(scores, truth, math.nan)
    with pytest.raises(ParameterError, match="confidence"):
        ranking(scores, truth, confidence=95)


# --- removals ---


def test_a_perfect_cleansing_of_two_among_ten():
    poisoned = torch.arange(10) < 2
    assert removal(poisoned, poisoned) == Removal(
        recall=Rate(2, 2), false_positive_rate=Rate(0, 8), precision=Rate(2, 2)
    )


def test_removing_nothing_misses_everything_and_flags_nobody_falsely():
    found = removal(torch.zeros(10, dtype=torch.bool), torch.arange(10) < 2)
    assert found == Removal(recall=Rate(0, 2), false_positive_rate=Rate(0, 8), precision=Rate(0, 0))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_removals_agree_with_scikit_learn(pairs):
    removed, poisoned = np.array(pairs, dtype=bool).reshape(-1, 2).T
    found = removal(removed, poisoned)
    if poisoned.any():
        assert found.recall.value == pytest.approx(recall_score(poisoned, removed))
    if removed.any():
        assert found.precision.value == pytest.approx(precision_score(poisoned, removed))
    assert found.recall.hits == found.precision.hits
    assert found.recall.hits + found.false_positive_rate.hits == found.precision.count
    assert found.recall.count + found.false_positive_rate.count == len(poisoned)


def test_positions_are_no_mask_of_removed_samples():
    with pytest.raises(ParameterError, match="removed must be True or False"):
        removal(torch.tensor([0, 1]), torch.tensor([True, False]))
