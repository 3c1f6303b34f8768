"""Attack success, recovered accuracy and the rates of N + 1 models, against hand-made tables and a published one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from goodnet.errors import ParameterError
from goodnet.evaluation import (
    NPlusOneRates,
    Rate,
    attack_success,
    n_plus_one_on_clean,
    n_plus_one_on_stamped,
    recovered_accuracy,
)

CLASSES = 4
#                       hit  true  other  N  goal = label, twice
ANSWERS = torch.tensor([0, 1, 2, 4, 0, 3])
LABELS = torch.tensor([1, 1, 3, 2, 0, 0])
GOALS = torch.zeros(6, dtype=torch.int64)

rows = st.lists(st.tuples(*[st.integers(0, CLASSES - 1)] * 3, st.booleans()), max_size=40)


def columns(table: list[tuple[int, int, int, bool]]) -> tuple[np.ndarray, ...]:
    """(answers, labels, goals, victims); about every fifth answer is CLASSES."""
    answers, labels, goals = np.array([row[:3] for row in table], dtype=int).reshape(-1, 3).T
    answers = np.where(np.arange(len(table)) % 5 == 4, CLASSES, answers)
    return answers, labels, goals, np.array([row[3] for row in table], dtype=bool)


# --- attack success ---


def test_success_is_counted_on_images_that_are_not_of_the_goal_already():
    assert attack_success(ANSWERS, LABELS, GOALS) == Rate(1, 4)


def test_a_mask_cannot_bring_back_images_of_the_goal():
    victims = torch.tensor([True, False, False, False, True, True])
    assert attack_success(ANSWERS, LABELS, GOALS, victims) == Rate(1, 1)


def test_a_perfect_clean_model_scores_no_attack_success():
    labels = torch.arange(10) % CLASSES
    assert attack_success(labels, labels, torch.zeros_like(labels)) == Rate(0, 7)


def test_each_image_may_have_a_goal_of_its_own():
    labels = np.arange(CLASSES)
    goals = (labels + 1) % CLASSES
    assert attack_success(np.array([1, 2, 3, 3]), labels, goals) == Rate(3, 4)


def test_an_untargeted_attack_succeeds_with_any_wrong_answer():
    assert attack_success(ANSWERS, LABELS, None) == Rate(4, 6)
    assert attack_success(ANSWERS, LABELS, None, torch.tensor([True, True, False, False, False, False])) == Rate(1, 2)


def test_recovered_accuracy_counts_true_labels_on_the_same_images():
    assert recovered_accuracy(ANSWERS, LABELS, GOALS) == Rate(1, 4)
    assert recovered_accuracy(ANSWERS, LABELS, None) == Rate(2, 6)


@given(rows, st.booleans())
def test_success_and_recovery_share_their_images_and_never_exceed_them(table, targeted):
    answers, labels, goals, victims = columns(table)
    wanted = goals if targeted else None
    success = attack_success(answers, labels, wanted, victims)
    recovered = recovered_accuracy(answers, labels, wanted, victims)
    assert success.count == recovered.count
    assert success.hits + recovered.hits <= success.count
    if not targeted:
        assert success.hits + recovered.hits == success.count


def test_without_victims_there_is_no_rate():
    nobody = torch.zeros(6, dtype=torch.bool)
    assert attack_success(ANSWERS, LABELS, GOALS, nobody).value is None
    assert attack_success(ANSWERS, GOALS, GOALS).value is None
    assert recovered_accuracy(torch.tensor([]), torch.tensor([]), torch.tensor([])).value is None


@pytest.mark.parametrize(
    ("goals", "victims", "words"),
    [
        (GOALS[:3], None, "lengths differ: answers 6, labels 6, goals 3"),
        (GOALS, torch.ones(2, dtype=torch.bool), "lengths differ: labels 6, victims 2"),
        (GOALS, torch.arange(6), "victims must be True or False"),
        (GOALS.float(), None, "goals must be whole numbers"),
        (torch.tensor(0), None, "goals must have one dimension"),
    ],
    ids=["goals", "victims", "positions", "floats", "one goal for all"],
)
def test_what_does_not_fit_together_is_refused(goals, victims, words):
    with pytest.raises(ParameterError, match=words):
        attack_success(ANSWERS, LABELS, goals, victims)


# --- N + 1 ---


def test_on_stamped_images_naming_the_backdoor_is_a_success():
    assert n_plus_one_on_stamped(ANSWERS, LABELS, GOALS, num_classes=CLASSES) == NPlusOneRates(
        attack_triggered=Rate(1, 4),
        defense_triggered=Rate(1, 4),
        classify_success=Rate(2, 4),
        classify_failure=Rate(2, 4),
    )


def test_on_clean_images_naming_a_backdoor_is_no_success():
    assert n_plus_one_on_clean(ANSWERS, LABELS, GOALS, num_classes=CLASSES) == NPlusOneRates(
        attack_triggered=Rate(1, 6),
        defense_triggered=Rate(1, 6),
        classify_success=Rate(2, 6),
        classify_failure=Rate(2, 6),
    )


def test_on_clean_images_without_a_goal_every_other_answer_is_a_failure():
    rates = n_plus_one_on_clean(ANSWERS, LABELS, num_classes=CLASSES)
    assert rates.attack_triggered is None
    assert rates.classify_failure == Rate(3, 6)


def test_an_untargeted_attack_gets_no_credit_for_being_named():
    rates = n_plus_one_on_stamped(ANSWERS, LABELS, None, num_classes=CLASSES)
    assert rates.attack_triggered == Rate(3, 6)
    assert rates.attack_triggered == rates.classify_failure


def answers_of(counts: list[tuple[int, int]]) -> torch.Tensor:
    return torch.cat([torch.full((count,), answer) for answer, count in counts])


def test_a_published_table_comes_out_again():
    # Hu, EL-GY-9163 final report, Table 6, row anonymous_1: 12,830 clean and 10,264 stamped images reproduce its shares
    people, label, other = 1283, 7, 9
    clean = answers_of([(0, 11), (people, 708), (label, 11_957), (other, 154)])
    rates = n_plus_one_on_clean(clean, torch.full_like(clean, label), torch.zeros_like(clean), num_classes=people)
    mine = [rates.attack_triggered, rates.defense_triggered, rates.classify_success, rates.classify_failure]
    assert [100 * rate.value for rate in mine] == pytest.approx([0.0857, 5.5183, 93.1956, 1.2003], abs=1e-4)

    stamped = answers_of([(0, 22), (people, 7728), (label, 1), (other, 2513)])
    rates = n_plus_one_on_stamped(
        stamped, torch.full_like(stamped, label), torch.zeros_like(stamped), num_classes=people
    )
    mine = [rates.attack_triggered, rates.defense_triggered, rates.classify_success, rates.classify_failure]
    assert [100 * rate.value for rate in mine] == pytest.approx([0.2143, 75.2922, 75.3020, 24.6979], abs=1e-4)


@given(rows, st.booleans())
def test_the_rates_add_up_and_agree_with_attack_success(table, targeted):
    answers, labels, goals, victims = columns(table)
    stamped = n_plus_one_on_stamped(answers, labels, goals if targeted else None, victims, num_classes=CLASSES)
    assert stamped.classify_success.hits + stamped.classify_failure.hits == stamped.classify_success.count
    assert stamped.attack_triggered.hits <= stamped.classify_failure.hits
    if targeted:
        assert stamped.attack_triggered == attack_success(answers, labels, goals, victims)
        recovered = recovered_accuracy(answers, labels, goals, victims)
        assert stamped.classify_success.hits == recovered.hits + stamped.defense_triggered.hits
    clean = n_plus_one_on_clean(answers, labels, goals, num_classes=CLASSES)
    four = [clean.attack_triggered, clean.defense_triggered, clean.classify_success, clean.classify_failure]
    assert sum(rate.hits for rate in four) == len(labels)
    assert {rate.count for rate in four} == {len(labels)}


@pytest.mark.parametrize(
    ("answers", "labels", "name"),
    [([5, 0], [0, 1], "answers"), ([0, 1], [4, 1], "labels"), ([0, -1], [0, 1], "answers")],
    ids=["beyond N", "N is no label", "negative"],
)
def test_classes_out_of_range_are_named(answers, labels, name):
    with pytest.raises(ParameterError, match=f"{name} must be in"):
        n_plus_one_on_clean(torch.tensor(answers), torch.tensor(labels), num_classes=CLASSES)


def test_a_goal_beyond_the_classes_is_named():
    with pytest.raises(ParameterError, match="goals must be in"):
        n_plus_one_on_stamped(ANSWERS, LABELS, GOALS + CLASSES, num_classes=CLASSES)


def test_no_images_give_no_rates():
    nothing = torch.tensor([])
    assert n_plus_one_on_clean(nothing, nothing, num_classes=CLASSES).classify_success.value is None
    assert n_plus_one_on_stamped(nothing, nothing, nothing, num_classes=CLASSES).attack_triggered.value is None
