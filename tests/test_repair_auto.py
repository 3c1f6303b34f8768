"""Choosing a repair, proving it, and giving the old model back; goodnet repair from end to end on the planted world."""

import json

import pytest
import torch
from planted import TARGET
from typer.testing import CliRunner

import goodnet
from goodnet.cli.main import app
from goodnet.core.defender import Defender
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.evaluation.evaluate import measure
from goodnet.repair.auto import Auto
from goodnet.repair.head_unlearning import HeadUnlearning
from goodnet.repair.proof import Proof, TriggerProof, prove


@pytest.fixture(scope="module")
def held(planted) -> tuple[Defender, goodnet.Samples]:
    """What a defender holds who has found the trigger, and images that nobody repairs with."""
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    mine, aside = (planted.clean.pick(torch.arange(len(planted.clean)) % 2 == part) for part in (0, 1))
    return Defender(model=planted.badnet, clean=mine, triggers=(trigger,)), aside


def proof(**changes) -> Proof:
    one = TriggerProof(target=1, before=90, after=5, recovered=80, count=100)
    return Proof(**{"labeled": True, "before": 95, "after": 93, "count": 100, "triggers": (one,), **changes})


def test_a_proof_counts_what_it_says():
    assert proof().drop == pytest.approx(0.02)
    assert proof().success == 0.05
    assert proof().recovered == 0.8
    assert proof().accepts(most_drop=0.02001, most_success=0.05)
    assert not proof().accepts(most_drop=0.01, most_success=0.05)
    assert not proof().accepts(most_drop=0.03, most_success=0.04)


def test_a_proof_without_victims_or_triggers_says_nothing_works():
    nobody = TriggerProof(target=1, before=0, after=0, recovered=0, count=0)
    assert proof(triggers=(nobody,)).success == 0.0
    assert proof(triggers=()).recovered == 1.0


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
