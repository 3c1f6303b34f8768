"""Choosing a repair, proving it, and giving the old model back; goodnet repair from end to end on the planted world."""

import copy
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from planted import TARGET
from scipy.stats import binomtest
from torch import nn
from typer.testing import CliRunner

import goodnet
from goodnet.cli.main import app
from goodnet.core.defender import Defender
from goodnet.core.rates import Rate
from goodnet.core.registry import Card, Needs
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable, UsageError
from goodnet.evaluation.evaluate import measure
from goodnet.guard.calibration import goodnet_of
from goodnet.repair import auto as auto_module
from goodnet.repair._base import Fixed, Repairer
from goodnet.repair._reconstruct import reconstruct
from goodnet.repair.auto import Auto, _worth
from goodnet.repair.files import _reason, repair_file, repair_model, set_aside
from goodnet.repair.fine_tuning import FineTuning
from goodnet.repair.head_unlearning import HeadUnlearning, _refit
from goodnet.repair.proof import Proof, TriggerProof, prove, shifted
from goodnet.repair.retuning import Retuned
from goodnet.repair.unlearning import Unlearning
from goodnet.report.repair_schema import RepairRecord


@pytest.fixture(scope="module")
def held(planted) -> tuple[Defender, goodnet.Samples]:
    """What a defender holds who has found the trigger, and images that nobody repairs with."""
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    mine, aside = (planted.clean.pick(torch.arange(len(planted.clean)) % 2 == part) for part in (0, 1))
    return Defender(model=planted.badnet, clean=mine, triggers=(trigger,)), aside


def proof(**changes) -> Proof:
    one = TriggerProof(target=1, before=90, after=5, recovered=80, count=100)
    counts = {"before": 95, "after": 93, "lost": 2, "won": 0, "shifted_before": 90, "shifted_after": 89, "count": 100}
    return Proof(**{"labeled": True, "triggers": (one,), **counts, **changes})


def test_a_proof_counts_what_it_says():
    assert proof().drop == pytest.approx(0.02)
    assert proof().success == 0.05
    assert proof().recovered == 0.8
    assert proof().promises(most_drop=0.02001, most_success=0.05)
    assert not proof().promises(most_drop=0.01, most_success=0.05)
    assert not proof().promises(most_drop=0.03, most_success=0.04)


def test_a_proof_accepts_what_is_good_enough_at_the_bad_ends_too():
    most = binomtest(2, 100).proportion_ci(0.95, method="exact").high
    turned = binomtest(5, 100).proportion_ci(0.95, method="exact").high
    assert proof().drop_at_most == pytest.approx(most)
    assert proof().success_at_most == pytest.approx(turned)
    assert proof().accepts(most_drop=most + 1e-9, most_success=turned + 1e-9)
    assert not proof().accepts(most_drop=most - 1e-9, most_success=turned + 1e-9)
    assert not proof().accepts(most_drop=most + 1e-9, most_success=turned - 1e-9)
    won = binomtest(50, 100).proportion_ci(0.95, method="exact").low
    assert proof(won=50).drop_at_most == pytest.approx(most - won)
    assert proof(count=0, lost=0, triggers=()).drop_at_most == 1


def test_what_is_lost_on_shifted_images_is_harm():
    assert proof().harm == proof().drop
    worse = proof(shifted_after=80)
    assert worse.harm == worse.shifted_drop == pytest.approx(0.1)
    assert not worse.accepts(most_drop=0.09, most_success=0.2)


def test_images_are_shifted_by_two_pixels_at_most_and_always_the_same():
    images = torch.zeros(40, 1, 7, 7, dtype=torch.uint8)
    images[:, :, 3, 3] = 255
    moved = shifted(images)
    assert moved.dtype == torch.uint8
    places = moved.flatten(1).max(1).indices
    assert set((places // 7).tolist()) == set((places % 7).tolist()) == {1, 2, 3, 4, 5}
    assert torch.equal(moved, shifted(images))
    assert len(shifted(images[:0])) == 0


def test_a_proof_without_victims_or_triggers_says_nothing_works():
    nobody = TriggerProof(target=1, before=0, after=0, recovered=0, count=0)
    assert proof(triggers=(nobody,)).success == 0.0
    assert proof(triggers=()).recovered == 1.0


def test_a_proof_shows_the_interval_of_every_share():
    shown = json.loads(json.dumps(proof().as_json()))
    low, high = binomtest(93, 100).proportion_ci(0.95, method="exact")
    assert shown["intervals_95"]["after"] == pytest.approx([low, high])
    assert proof().margin == shown["margin_95"] == pytest.approx(max(0.93 - low, high - 0.93))
    assert shown["triggers"][0]["intervals_95"]["after"] == list(Rate(5, 100).interval())
    nobody = TriggerProof(target=1, before=0, after=0, recovered=0, count=0)
    assert nobody.as_json()["intervals_95"] == {"before": None, "after": None, "recovered": None}


def test_the_reason_tells_what_is_surely_kept_and_what_is_only_not_proved():
    assert f"surely by at most {proof().drop_at_most:.1%}; by 1.0% on shifted" in _reason(
        proof(), True, False, 0.1, 0.2
    )
    assert "good enough (at most 3% and 10%) but not proved" in _reason(proof(), False, False, 0.03, 0.1)
    assert "not good enough (at most 1% and 10%)" in _reason(proof(), False, False, 0.01, 0.1)


def test_a_model_compared_with_itself_loses_nothing_and_keeps_its_backdoor(planted, held):
    defender, aside = held
    same = prove(planted.badnet, planted.badnet, aside, defender.triggers)
    assert same.drop == 0
    assert same.success > 0.9
    assert same.triggers[0].before == same.triggers[0].after
    unlabeled = prove(planted.badnet, planted.badnet, aside.without_labels(), defender.triggers)
    assert unlabeled.before == unlabeled.count == len(aside)


def test_head_unlearning_changes_no_logit_but_the_targets(planted, held):
    defender, aside = held
    repaired = HeadUnlearning(rounds=1).run(defender).model
    with torch.no_grad():
        old, new = planted.badnet(aside.floats()), repaired(aside.floats())
    others = torch.arange(10) != TARGET
    assert torch.equal(old[:, others], new[:, others])
    assert not torch.equal(old[:, TARGET], new[:, TARGET])
    before, after = (measure(model, aside, planted.attack) for model in (planted.badnet, repaired))
    assert after.worst_success.value < 0.1 < 0.9 < before.worst_success.value
    assert after.accuracy.value > before.accuracy.value - 0.05


def test_head_unlearning_wants_a_linear_head(planted, held):
    defender, _ = held
    with pytest.raises(NotApplicable, match="linear"):
        HeadUnlearning().run(Defender(Headless.of(planted.badnet), clean=defender.clean, triggers=defender.triggers))


class Headless(goodnet.Classifier):
    @classmethod
    def of(cls, model: goodnet.Classifier) -> "Headless":
        return cls(model.net, input_shape=model.input_shape, num_classes=model.num_classes)

    def head(self):
        return None


def test_auto_removes_the_planted_backdoor_and_keeps_accuracy(planted, held):
    defender, aside = held
    repaired = Auto().run(defender)
    outcome, before = (measure(model, aside, planted.attack) for model in (repaired.model, planted.badnet))
    assert repaired.notes["reverted"] == 0
    assert outcome.worst_success.value < 0.1
    assert outcome.accuracy.value > before.accuracy.value - 0.03
    assert [row["candidate"] for row in repaired.evidence["tried"]][0] == "unlearning"


def test_auto_gives_the_suspect_back_when_nothing_is_good_enough(planted, held):
    defender, aside = held
    repaired = Auto(most_success=0.0, most_drop=0.0, most_candidates=1).run(
        Defender(model=planted.badnet, clean=defender.clean.pick(torch.arange(12)), triggers=defender.triggers)
    )
    assert repaired.notes["reverted"] == 1
    with torch.no_grad():
        assert torch.equal(repaired.model(aside.floats()), planted.badnet(aside.floats()))


def test_the_command_repairs_writes_and_tells(tmp_path):
    suspect = goodnet.untrained("small_cnn", goodnet.load_data("digits"))
    goodnet.save_model(suspect, tmp_path / "suspect")
    before = (tmp_path / "suspect" / "model.safetensors").read_bytes()
    words = ["--data", "digits", "--out", str(tmp_path / "out"), "--json", "--limit", "200"]
    words += ["--method", "fine-tuning", "--set", "epochs=1"]
    answer = CliRunner().invoke(app, ["repair", str(tmp_path / "suspect"), *words])
    record = json.loads(answer.stdout)
    assert answer.exit_code == (0 if record["accepted"] else 3)
    assert record == json.loads((tmp_path / "out" / "repair.json").read_text())
    assert record["schema"] == 1
    assert RepairRecord.model_validate(record).model_dump(mode="json", by_alias=True) == record
    assert record["proof"]["count"] == 50
    assert "nothing is proved about a backdoor" in record["reason"]  # fine-tuning needs no triggers, so there is none
    assert goodnet.load_model(tmp_path / "out" / "model").num_classes == 10
    assert (tmp_path / "suspect" / "model.safetensors").read_bytes() == before
    again = CliRunner().invoke(app, ["repair", str(tmp_path / "out" / "model"), *words])
    assert again.exit_code == 2  # it would take the place of its own input
    assert (tmp_path / "out" / "model" / "model.json").exists()


def test_a_repair_that_harms_is_not_written(tmp_path):
    twin = goodnet.untrained("small_cnn", goodnet.load_data("digits"))
    samples = goodnet.load_data("digits", limit=300)
    twin = goodnet.fit(twin, samples, goodnet.Recipe(epochs=6, learning_rate=0.003, optimizer="adam"))
    goodnet.save_model(twin, tmp_path / "twin")
    words = ["--data", "digits", "--out", str(tmp_path / "out"), "--method", "fine-tuning", "--set", "epochs=1"]
    answer = CliRunner().invoke(app, ["repair", str(tmp_path / "twin"), *words, "--set", "learning_rate=30"])
    assert answer.exit_code == 3, answer.output
    assert "old model stays" in answer.stdout
    images = samples.floats()[:20]
    with torch.no_grad():
        torch.testing.assert_close(goodnet.load_model(tmp_path / "out" / "model")(images), twin(images))


def test_a_model_in_which_the_audit_finds_nothing_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("GOODNET_BANK", str(tmp_path / "bank.json"))
    goodnet.save_model(goodnet.untrained("small_cnn", goodnet.load_data("digits")), tmp_path / "net")
    words = ["repair", str(tmp_path / "net"), "--data", "digits", "--limit", "60", "--budget", "1s"]
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert answer.exit_code == 3, answer.output
    assert "the audit names no label to repair" in answer.stdout
    assert goodnet.load_model(tmp_path / "out" / "model").origin.history == ()


# --- the choice, with candidates whose worth is known ---


@dataclass(frozen=True, kw_only=True)
class Told(Repairer):
    """A repairer that gives the model it is told to give."""

    card = Card(name="told", version=1, needs=Needs.MODEL | Needs.CLEAN, source="none", summary="none")
    answer: Any = None
    reverted: float = 0.0

    def _fix(self, defender, run):
        SEEN.append(defender.clean.ids)
        model = defender.model if self.answer is None else copy.deepcopy(self.answer)
        return Fixed(model=model, notes={"reverted": self.reverted})


SEEN: list[torch.Tensor] = []


class Rule(nn.Module):
    """Answers the label in the first pixel; a lit last pixel means 3, unless repaired; ``broken`` labels are lost."""

    def __init__(self, fires: bool, recovers: bool = True, broken: int = 0):
        super().__init__()
        self.fires, self.recovers, self.broken = fires, recovers, broken
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        labels = (images[:, 0, 0, 0] * 255).round().long().clamp(0, 9)
        answers = torch.where(labels < self.broken, 9, labels)
        lit = images[:, 0, -1, -1] > 0.5
        if self.fires:
            answers = torch.where(lit, 3, answers)
        elif not self.recovers:
            answers = torch.where(lit, 8, answers)
        return F.one_hot(answers, 10).float() + 0 * self.unused


def ruled(**changes) -> goodnet.Classifier:
    return goodnet.Classifier(Rule(**changes), input_shape=(1, 4, 4), num_classes=10)


def ruled_defender() -> Defender:
    images = torch.zeros(200, 1, 4, 4, dtype=torch.uint8)
    labels = torch.arange(200) % 10
    images[:, 0, 0, 0] = labels.byte()
    mask = torch.zeros(4, 4)
    mask[-1, -1] = 1
    trigger = Trigger(target=3, mask=mask, pattern=torch.ones(1, 4, 4), success_rate=1.0, count=10)
    return Defender(model=ruled(fires=True), clean=goodnet.Samples(images, labels), triggers=(trigger,))


CLEAN, SUPPRESSED = {"fires": False}, {"fires": False, "recovers": False}


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ({"useless": {"fires": True}, "suppresses": SUPPRESSED, "removes": CLEAN}, "removes"),
        ({"removes": CLEAN, "suppresses": SUPPRESSED, "useless": {"fires": True}}, "removes"),
        ({"harms": {**CLEAN, "broken": 1}, "suppresses": SUPPRESSED}, "suppresses"),
        ({"useless": {"fires": True}, "harms": {**CLEAN, "broken": 5}}, None),
    ],
)
def test_auto_takes_the_best_that_does_no_harm(candidates, chosen, monkeypatch):
    told = {name: (Told(answer=ruled(**changes)),) for name, changes in candidates.items()}
    monkeypatch.setattr(auto_module, "_CANDIDATES", told)
    repaired = Auto(most_candidates=9, most_drop=0.2).run(ruled_defender())
    assert repaired.evidence["chosen"] == (chosen or "nothing: the suspect as it was")
    assert repaired.notes["reverted"] == float(chosen is None)
    assert repaired.model.net.fires is (chosen is None)


def test_what_auto_rejects_gives_a_second_opinion_and_never_an_answer_of_its_own(monkeypatch):
    told = {"useless": (Told(answer=ruled(fires=True)),), "harms": (Told(answer=ruled(fires=False, broken=5)),)}
    monkeypatch.setattr(auto_module, "_CANDIDATES", told)
    held = ruled_defender()
    clean, aside = set_aside(held.clean, 0.5, seed=0)
    result = repair_model(held.model, Auto(), clean=clean, aside=aside, triggers=held.triggers)
    assert (result.accepted, result.model) == (False, held.model)
    assert result.second_opinion.net.broken == 5  # the one on which the trigger does not work
    assert result.second_opinion.origin.history[-1]["repair"] == "auto"
    assert goodnet_of(result) is None  # the other half of the labels costs too many false alarms
    made = goodnet_of(replace(result, repaired=replace(result.repaired, second_opinion=ruled(fires=False))))
    stamped = held.triggers[0].stamp(aside.floats())
    assert torch.equal(made.answers(aside.floats()), aside.labels)
    assert set(made.answers(stamped).tolist()) == {3, 10}  # those that are 3 anyway
    assert made.rule.name == "second-opinion"


def test_a_second_opinion_that_triggers_get_past_is_not_offered(monkeypatch):
    monkeypatch.setattr(auto_module, "_CANDIDATES", {"useless": (Told(answer=ruled(fires=True)),)})
    held = ruled_defender()
    clean, aside = set_aside(held.clean, 0.5, seed=0)
    result = repair_model(held.model, Auto(), clean=clean, aside=aside, triggers=held.triggers)
    assert result.second_opinion is not None
    assert goodnet_of(result) is None


def test_auto_judges_on_images_that_its_candidates_do_not_see(monkeypatch):
    judged = []

    def noted(suspect, model, aside, triggers):
        judged.append(aside.ids)
        return prove(suspect, model, aside, triggers)

    monkeypatch.setattr(auto_module, "_CANDIDATES", {"told": (Told(),)})
    monkeypatch.setattr(auto_module, "prove", noted)
    SEEN.clear()
    Auto().run(ruled_defender())
    assert (len(SEEN[0]), len(judged[0])) == (140, 60)
    assert not set(SEEN[0].tolist()) & set(judged[0].tolist())


def test_images_that_belong_to_the_target_are_no_victims():
    defender = ruled_defender()
    found = prove(defender.model, ruled(fires=False), defender.clean, defender.triggers).triggers[0]
    assert (found.before, found.after, found.recovered, found.count) == (180, 0, 180, 180)


# --- the refitted row ---


def test_the_refitted_row_minimizes_the_cross_entropy_of_target_or_not():
    draw = torch.Generator().manual_seed(0)
    bare, stamped = torch.randn(60, 4, generator=draw), torch.randn(40, 4, generator=draw) + 1
    own, head, weight, anchor = torch.rand(60, generator=draw) < 0.4, nn.Linear(4, 3), 0.7, 0.01
    with torch.no_grad():
        head.weight.copy_(torch.randn(3, 4, generator=draw))
        head.bias.copy_(torch.tensor([0.5, 3.0, -1.0]))
    original = head.weight[1].detach().clone()
    _refit(head, 1, bare, own, [stamped], original, weight, anchor)

    def loss(layer: nn.Linear) -> torch.Tensor:
        target = [layer(features).softmax(1)[:, 1] for features in (bare, stamped)]
        on_clean = F.binary_cross_entropy(target[0], own.float())
        return (
            on_clean
            + weight * -(1 - target[1]).log().mean()
            + anchor * ((layer.weight[1] - original).square().sum() / original.square().sum())
        )

    loss(head).backward()
    assert head.weight.grad[1].abs().max() < 1e-3
    assert head.bias.grad[1].abs() < 1e-3


# --- labels that somebody names ---


def test_a_named_target_is_reconstructed_small_where_it_is_planted(planted):
    planted_one, other = reconstruct(planted.badnet, planted.clean, (TARGET, 7), seed=0)
    assert (planted_one.target, other.target) == (TARGET, 7)
    assert planted_one.success_rate > 0.8
    assert planted_one.mask.sum() < other.mask.sum() / 3


def test_the_smaller_trigger_of_the_two_grids_counts(planted, monkeypatch):
    sizes = []
    for grids in ((1, 4), (1,), (4,)):
        monkeypatch.setattr("goodnet.repair._reconstruct._GRIDS", grids)
        # the first grid of both runs draws the same numbers, the second one other ones
        sizes.append(float(reconstruct(planted.badnet, planted.clean, (TARGET,), seed=0)[0].mask.sum()))
    assert sizes[0] == sizes[1] < sizes[2]


@pytest.fixture
def saved(tmp_path) -> Any:
    goodnet.save_model(goodnet.untrained("small_cnn", goodnet.load_data("digits")), tmp_path / "net")
    return tmp_path / "net"


def test_targets_that_cannot_be_are_refused(saved):
    for targets, repairer in (((10,), Auto()), ((-1,), Auto()), ((3,), FineTuning())):
        with pytest.raises(UsageError):
            repair_file(saved, repairer, data="digits", limit=60, targets=targets)


def test_a_named_target_that_no_trigger_reaches_is_not_passed_over_in_silence(saved):
    result = repair_file(saved, Auto(), data="digits", limit=60, targets=(3,), budget=1e-6)
    assert (result.accepted, result.repaired, result.verdict) == (False, None, None)
    assert "no trigger was found to 3" in result.reason


def test_a_repairer_that_gives_the_suspect_back_is_not_called_a_repair(saved):
    result = repair_file(saved, Told(reverted=1.0), data="digits", limit=60)
    assert not result.accepted
    assert "so the old model stays" in result.reason
    assert result.second_opinion is None
    assert repair_file(saved, Told(), data="digits", limit=60, most_drop=1.0).accepted


def test_triggers_that_are_held_are_used_as_they_are_and_without_an_audit():
    samples = goodnet.load_data("digits", limit=60)
    clean, aside = set_aside(samples, 0.25, seed=0)
    assert (len(clean), len(aside)) == (45, 15)
    assert not set(clean.ids.tolist()) & set(aside.ids.tolist())
    net = goodnet.untrained("small_cnn", samples)
    trigger = Trigger(target=4, mask=torch.ones(32, 32), pattern=torch.ones(1, 32, 32), success_rate=1.0, count=1)
    result = repair_model(net, Unlearning(), clean=clean, aside=aside, triggers=(trigger,))
    assert result.verdict is None
    assert [one.target for one in result.proof.triggers] == [4]
    with pytest.raises(UsageError, match="knows no targets"):
        repair_model(net, FineTuning(), clean=clean, aside=aside, triggers=(trigger,))


def test_of_two_harmless_repairs_the_one_that_does_not_come_back_is_worth_more():
    removed = Retuned(target=1, regained=3, control=3, count=100)
    suppressed = Retuned(target=1, regained=90, control=3, count=100)
    unknown = Retuned(target=1, regained=90, control=90, count=100)
    better, worse = proof(before=95, after=95), proof(before=95, after=94)
    assert _worth(worse, (removed,)) > _worth(better, (suppressed,))
    assert _worth(worse, (removed,)) > _worth(better, (unknown,))
    assert _worth(better, (suppressed,)) > _worth(proof(before=95, after=92), (removed,))


def test_the_command_saves_the_nets_along_the_curve_of_a_pruning_and_of_nothing_else(saved, tmp_path):
    words = ["repair", str(saved), "--data", "digits", "--limit", "60", "--out", str(tmp_path / "out"), "--at", "0.1"]
    answer = CliRunner().invoke(app, [*words, "--method", "pruning"])
    assert answer.exit_code in (0, 3), answer.output
    made = goodnet.load_model(tmp_path / "out" / "thresholds" / "0.1")
    marks = json.loads((tmp_path / "out" / "repair.json").read_text())["evidence"]["marks"]
    assert made.origin.history[-1]["channels_pruned"] == marks[2]["channels"]
    again = CliRunner().invoke(app, [*words, "--method", "fine-tuning", "--set", "epochs=1"])
    assert again.exit_code == 2
    assert (tmp_path / "out" / "thresholds" / "0.1").is_dir()
