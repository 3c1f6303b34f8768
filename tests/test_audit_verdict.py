"""From readings to a verdict: a fake auditor says what it is told to say."""

from dataclasses import dataclass

import pytest
import torch
from planted import untrained

from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, Verdict
from goodnet.audit.mm_bd import MmBd
from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Card, Needs
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld, ParameterError


@dataclass(frozen=True, kw_only=True)
class Fake(Auditor):
    card = Card(name="fake", version=1, needs=Needs.MODEL, source="none", summary="none")
    inspection: Inspection

    def _inspect(self, defender, run):
        return self.inspection


def trigger(target: int) -> Trigger:
    return Trigger(target=target, mask=torch.ones(32, 32), pattern=torch.ones(1, 32, 32), success_rate=1.0, count=3)


def judge(*readings: Reading, clean: int = 19, alpha: float = 0.05, undecided: str = "") -> Verdict:
    """The verdict beside ``clean`` nets that score 1."""
    inspection = Inspection(
        readings=readings,
        per_class=tuple(LabelFinding(label=label, score=float(label)) for label in range(10)),
        triggers=tuple(trigger(label) for label in (1, 2)),
        undecided=undecided,
    )
    one = BankEntry(method="fake", version=1, score=1.0, num_classes=10, architecture="a", data="d", seed=0)
    return Fake(inspection=inspection).run(Defender(model=untrained()), alpha=alpha, bank=CleanBank((one,) * clean))


def test_a_score_above_all_clean_nets_is_flagged_with_its_suspects():
    verdict = judge(Reading(score=2.0, suspects=(1, 4)))
    assert verdict.flagged is True
    assert verdict.targets == (1, 4)
    assert verdict.p_value == 1 / 20
    assert [finding.label for finding in verdict.per_class if finding.flagged] == [1, 4]
    assert [shown.target for shown in verdict.triggers] == [1]


def test_a_score_like_that_of_clean_nets_is_not_flagged_and_shows_the_most_suspicious_label():
    verdict = judge(Reading(score=1.0, suspects=(2,)))
    assert verdict.flagged is False
    assert verdict.targets == ()
    assert verdict.p_value == 1
    assert [shown.target for shown in verdict.triggers] == [2]
    assert not any(finding.flagged for finding in verdict.per_class)


def test_a_bank_that_is_too_small_for_alpha_gives_no_verdict():
    verdict = judge(Reading(score=99.0, suspects=(1,)), clean=18)
    assert verdict.flagged is None
    assert verdict.targets == ()
    assert "goodnet bank add" in verdict.reason


def test_no_bank_gives_no_verdict():
    assert judge(Reading(score=99.0, suspects=(1,)), clean=0).flagged is None


def test_a_run_that_cannot_decide_is_not_decided_by_its_score():
    verdict = judge(Reading(score=99.0, suspects=(1,)), undecided="out of time")
    assert verdict.flagged is None
    assert verdict.reason == "out of time"
    assert verdict.targets == ()


def test_many_labels_speak_for_themselves_without_a_bank():
    assert judge(Reading(score=0.1, suspects=(1,), many_label_p_value=0.001), clean=0).flagged is True
    assert judge(Reading(score=99.0, suspects=(1,), many_label_p_value=0.5), clean=0).flagged is None


def test_the_most_significant_reading_is_the_verdict_and_all_significant_ones_give_targets():
    verdict = judge(
        Reading(score=9.0, suspects=(1,), many_label_p_value=0.5),
        Reading(score=3.0, suspects=(2,), many_label_p_value=0.01),
        Reading(score=2.0, suspects=(5, 2), many_label_p_value=0.02),
        clean=0,
    )
    assert verdict.p_value == 0.01
    assert verdict.targets == (2, 5)
    assert verdict.score == 9.0


def test_clean_nets_that_fit_are_asked_before_the_labels_of_the_model_itself():
    beyond_the_bank = judge(Reading(score=99.0, suspects=(1,), many_label_p_value=0.5))
    assert (beyond_the_bank.flagged, beyond_the_bank.targets) == (True, (1,))
    within_the_bank = judge(Reading(score=0.1, suspects=(1,), many_label_p_value=0.001))
    assert within_the_bank.flagged is False


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ParameterError, match="alpha"):
        judge(Reading(score=1.0, suspects=()), alpha=alpha)


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_an_impossible_budget_is_refused(budget):
    with pytest.raises(ParameterError, match="budget"):
        MmBd().run(Defender(model=untrained()), budget=budget)


def test_an_auditor_without_a_model_is_refused():
    with pytest.raises(NotHeld, match="model"):
        Fake(inspection=Inspection(readings=())).run(Defender())


# --- MM-BD where it cannot decide, and its arithmetic ---


class Bent(torch.nn.Module):
    """A linear net; ``offset`` is added to every logit."""

    def __init__(self, num_classes: int, offset: float = 0.0):
        super().__init__()
        self.layer = torch.nn.Linear(16, num_classes)
        torch.nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))
        self.offset = offset

    def forward(self, images):
        return self.layer(images.flatten(1)) + self.offset


def classifier(num_classes: int, offset: float = 0.0) -> Classifier:
    return Classifier(Bent(num_classes, offset), input_shape=(1, 4, 4), num_classes=num_classes)


def look(model: Classifier, **arguments) -> Verdict:
    return MmBd(**{"starts": 3, "steps": 200, **arguments}).run(Defender(model=model), bank=CleanBank(()))


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_mm_bd_does_not_judge_a_model_with_few_labels(num_classes):
    verdict = look(classifier(num_classes))
    assert verdict.flagged is None
    assert "fewer than 5" in verdict.reason


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_mm_bd_does_not_judge_a_model_whose_answers_are_not_numbers(offset):
    verdict = look(classifier(10, offset))
    assert verdict.flagged is None
    assert "not finite" in verdict.reason


def test_mm_bd_with_labels_that_are_all_alike_has_a_finite_score():
    model = classifier(10)
    torch.nn.init.zeros_(model.net.layer.weight)
    torch.nn.init.zeros_(model.net.layer.bias)
    verdict = look(model)
    assert verdict.score == 0
    assert verdict.evidence["gamma_p_value"] is None


def test_mm_bd_out_of_time_does_not_decide():
    verdict = MmBd().run(Defender(model=classifier(10)), budget=1e-9, bank=CleanBank(()))
    assert verdict.flagged is None
    assert "out of time" in verdict.reason


def test_mm_bd_reaches_the_largest_margin_that_the_box_allows():
    """For one label against one other, in a linear net, the best image is one where the weights' difference is > 0."""
    model = classifier(5)
    with torch.no_grad():
        model.net.layer.bias[2:] = -1000  # labels that are never the second best
        difference = model.net.layer.weight[0] - model.net.layer.weight[1]
        exact = float(difference.clamp(min=0).sum() + model.net.layer.bias[0] - model.net.layer.bias[1])
    found = {one.label: one.score for one in look(model, learning_rate=0.1).per_class}
    assert found[0] == pytest.approx(exact, rel=1e-5)


def test_momentum_is_alive():
    def score(momentum: float) -> float:
        return look(classifier(10), steps=20, learning_rate=0.001, momentum=momentum).per_class[0].score

    assert score(0.9) > 1.2 * score(0.0)


def test_many_labels_are_climbed_in_parts_and_each_from_every_start():
    verdict = look(classifier(300), steps=2)
    assert verdict.provenance.counts["climbs"] == 900
    assert sorted(one.label for one in verdict.per_class) == list(range(300))


def test_neural_cleanse_with_no_time_gives_an_answer():
    images = torch.randint(256, (20, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    defender = Defender(model=untrained(), clean=Samples(images=images))
    auditor = NeuralCleanse(steps=20, images=4, mixed_precision=False)
    hurried = auditor.run(defender, budget=1e-6, bank=CleanBank(()))
    assert hurried.flagged is None
    assert "time" in hurried.reason
    full = auditor.run(defender, bank=CleanBank(()))
    assert hurried.provenance.counts["rows"] < full.provenance.counts["rows"] / 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_neural_cleanse_runs_on_very_few_images(count):
    images = torch.randint(256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    defender = Defender(model=untrained(), clean=Samples(images=images))
    verdict = NeuralCleanse(steps=3, images=4, mixed_precision=False).run(defender, bank=CleanBank(()))
    assert verdict.flagged is None
