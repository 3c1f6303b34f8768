"""GoodNets: the rules, their thresholds, the folder, and goodnet classify."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from planted import TARGET, untrained
from typer.testing import CliRunner

import goodnet
from goodnet.cli.main import app
from goodnet.core.classifier import predictions
from goodnet.core.defender import Defender
from goodnet.core.trigger import Trigger
from goodnet.errors import GoodnetError, NotHeld, ParameterError, UnreadableModel, UsageError
from goodnet.evaluation import measure_goodnet
from goodnet.guard.goodnet import GoodNet
from goodnet.guard.rules import DecisionTree, Disagreement, LostConfidence, lost_confidence
from goodnet.repair.head_unlearning import HeadUnlearning

N = 3  # classes of the hand-made tables, and so the answer for a trigger


def sure(label: int, confidence: float) -> torch.Tensor:
    """One row of probabilities."""
    row = torch.full((1, N), (1 - confidence) / (N - 1), dtype=torch.float64)
    row[0, label] = confidence
    return row


def clean_scores(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What two networks that differ a little say about ``count`` clean images."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, N, generator=generator, dtype=torch.float64)
    return logits.softmax(1), (logits + torch.randn(count, N, generator=generator, dtype=torch.float64)).softmax(1)


@pytest.fixture(scope="module")
def pair(planted) -> tuple[GoodNet, goodnet.Samples, goodnet.Samples]:
    """A GoodNet of the planted world, the images it was fitted on, and fresh ones."""
    parts = [planted.clean.pick(torch.arange(len(planted.clean)) % 3 == part) for part in range(3)]
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    held = Defender(model=planted.badnet, clean=parts[0], triggers=(trigger,))
    repaired = HeadUnlearning(rounds=1).run(held).model
    made = goodnet.fit_goodnet(planted.badnet, repaired, parts[1], rate=0.02, triggers=(trigger,))
    return made, parts[1], parts[2]


def test_lost_confidence_is_that_in_the_answer_of_the_badnet():
    bad = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.2, 0.3]])
    good = torch.tensor([[0.3, 0.7, 0.0], [0.1, 0.9, 0.0], [0.5, 0.3, 0.2]])
    torch.testing.assert_close(lost_confidence(bad, good), torch.tensor([0.6, -0.1, 0.0]))


@pytest.mark.parametrize(
    ("bad", "good", "agree", "differ"),
    [  # of a BadNet that says 0 and a repaired network that says 0, or 1: the nine outcomes of the two thresholds
        (0.995, 0.995, 0, N),
        (0.995, 0.95, 0, N),
        (0.995, 0.70, N, N),
        (0.95, 0.995, 0, 1),
        (0.95, 0.95, 0, N),
        (0.95, 0.70, 0, N),
        (0.70, 0.995, 0, 1),
        (0.70, 0.95, 0, 1),
        (0.70, 0.70, 0, 0),
    ],
)
def test_the_decision_tree_has_nine_outcomes(bad: float, good: float, agree: int, differ: int):
    tree = DecisionTree()
    assert tree.answers(sure(0, bad), sure(0, good)).item() == agree
    assert tree.answers(sure(0, bad), sure(1, good)).item() == differ


def test_disagreement_answers_n_exactly_where_the_two_differ():
    bad = torch.cat([sure(0, 0.9), sure(0, 0.9), sure(2, 0.4)])
    good = torch.cat([sure(0, 0.5), sure(1, 0.9), sure(2, 0.9)])
    assert Disagreement().answers(bad, good).tolist() == [0, N, 2]


def test_between_two_thresholds_the_answer_is_that_of_the_repaired_network():
    bad, good = torch.cat([sure(0, 0.9), sure(0, 0.9)]), torch.cat([sure(1, 0.6), sure(1, 0.99)])
    assert LostConfidence(threshold=0.8).answers(bad, good).tolist() == [1, N]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_promised_rate_is_kept_on_fresh_images_on_average(rate: float):
    """Of split conformal thresholds from 150 images the mean rate is floor(rate * 151) / 151, at most ``rate``."""
    achieved = []
    for seed in range(200):
        rule = LostConfidence.fitted(*clean_scores(150, seed), rate)
        achieved.append((rule.answers(*clean_scores(500, 10_000 + seed)) == N).double().mean().item())
    spread = np.std(achieved) / np.sqrt(len(achieved))
    assert rate / 3 < np.mean(achieved) < rate + 3 * spread


def test_too_few_images_for_a_rate_are_refused_with_the_number_that_it_takes():
    with pytest.raises(NotHeld, match=r"at least 99 clean images, and there are 98"):
        LostConfidence.fitted(*clean_scores(98, 0), 0.01)
    LostConfidence.fitted(*clean_scores(99, 0), 0.01)


def test_a_tree_keeps_the_rate_and_catches_what_it_can():
    bad, good = clean_scores(400, 1)
    stamped = sure(0, 0.97).expand(50, N), sure(1, 0.6).expand(50, N)
    tree = DecisionTree.fitted(bad, good, 0.1, stamped)
    assert (tree.answers(bad, good) == N).sum() <= 40
    assert (tree.answers(*stamped) == N).all()
    strict = DecisionTree.fitted(bad, good, 0.02)
    assert 0 < (strict.answers(bad, good) == N).sum() <= 8


def test_no_thresholds_of_a_tree_can_keep_a_rate_where_the_networks_always_differ():
    with pytest.raises(NotHeld, match="differ too much"):
        DecisionTree.fitted(sure(0, 0.99999).expand(99, N), sure(1, 0.99999).expand(99, N), 0.02)


def test_two_equal_networks_find_no_trigger(planted):
    for rule in ("lost-confidence", "disagreement", "decision-tree"):
        same = goodnet.fit_goodnet(planted.badnet, planted.badnet, planted.clean, rule=rule)
        assert (same.answers(planted.clean.images) < 10).all()


def test_networks_of_different_shapes_make_no_goodnet(planted):
    with pytest.raises(ParameterError, match="num_classes"):
        GoodNet(planted.badnet, untrained(num_classes=4))


def test_a_goodnet_answers_n_for_the_trigger_and_a_class_for_clean_images(pair, planted):
    made, _, fresh = pair
    victims = fresh.pick(fresh.labels != TARGET)
    stamped = made.answers(planted.attack.stamp(victims.floats()))
    assert (planted.badnet(planted.attack.stamp(victims.floats())).argmax(1) == TARGET).double().mean() > 0.9
    assert (stamped == TARGET).double().mean() <= 0.02
    assert (stamped == 10).double().mean() > 0.8
    answers = made.answers(fresh.images)
    assert (answers == 10).double().mean() <= 0.06
    assert (answers == fresh.labels).double().mean() > 0.85


def test_alone_or_among_others_an_image_gets_the_same_answer(pair):
    made, _, fresh = pair
    together = made.judge(fresh.images[:40])
    alone = [made.judge(fresh.images[one : one + 1]) for one in range(40)]
    assert [one.answers.item() for one in alone] == together.answers.tolist()
    torch.testing.assert_close(torch.cat([one.suspicion for one in alone]), together.suspicion, atol=1e-5, rtol=0)


def test_a_price_curve_trades_false_alarms_for_stopped_triggers(pair):
    calibration = pair[0].calibration
    assert calibration.kept
    assert calibration.stamped > calibration.caught > 0
    thresholds, alarms, stopped = zip(
        *((one.threshold, one.false_alarms, one.stopped) for one in calibration.prices), strict=True
    )
    assert list(thresholds) == sorted(thresholds, reverse=True)
    assert list(alarms) == sorted(alarms)
    assert list(stopped) == sorted(stopped)
    assert alarms[0] == 0
    assert len(thresholds) > 3


def test_a_price_counts_what_its_threshold_does(pair):
    made, fitted_on, _ = pair
    bad, good = (predictions(model, fitted_on.images).double().softmax(1) for model in (made.badnet, made.repaired))
    suspicion = lost_confidence(bad, good)
    for price in made.calibration.prices:
        assert price.false_alarms == (suspicion > price.threshold).sum()
        assert price.stopped >= made.calibration.stamped - made.calibration.succeeded or (
            price.threshold > made.rule.threshold
        )
    assert made.calibration.prices[-1].stopped > 0.9 * made.calibration.stamped


def test_the_calibration_counts_what_the_goodnet_answers(pair):
    made, fitted_on, _ = pair
    assert made.calibration.count == len(fitted_on)
    assert made.calibration.false_alarms == (made.answers(fitted_on.images) == 10).sum()


def test_a_saved_goodnet_answers_as_before(pair, tmp_path):
    made, _, fresh = pair
    goodnet.save_goodnet(made, tmp_path / "goodnet")
    again = goodnet.load_goodnet(tmp_path / "goodnet")
    assert (again.rule, again.calibration) == (made.rule, made.calibration)
    before, after = made.judge(fresh.images), again.judge(fresh.images)
    assert torch.equal(before.answers, after.answers)
    torch.testing.assert_close(before.suspicion, after.suspicion, atol=1e-6, rtol=0)  # float rounding alone
    goodnet.save_goodnet(made, tmp_path / "goodnet")  # over its own


def test_a_goodnet_is_not_written_over_what_is_not_ours(pair, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        goodnet.save_goodnet(pair[0], tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.update(rule="trust-me"), "trust-me"),
        (lambda record: record["thresholds"].update(threshold=2.0), "threshold"),
        (lambda record: record["thresholds"].update(threshold=float("nan")), "threshold"),
        (lambda record: record["thresholds"].update(other=0.5), "other"),
        (lambda record: record.update(version=2), "version"),
        (lambda record: record.update(run="rm"), "run"),
        (lambda record: record["calibration"].update(count=-1), "count"),
    ],
)
def test_a_damaged_description_is_refused_by_name(pair, tmp_path, change, words: str):
    goodnet.save_goodnet(pair[0], tmp_path / "goodnet")
    path = tmp_path / "goodnet" / "goodnet.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(GoodnetError, match=words):
        goodnet.load_goodnet(tmp_path / "goodnet")


def test_a_goodnet_without_one_of_its_networks_is_refused(pair, tmp_path):
    goodnet.save_goodnet(pair[0], tmp_path / "goodnet")
    (tmp_path / "goodnet" / "repaired").rename(tmp_path / "elsewhere")
    with pytest.raises(UnreadableModel, match="repaired"):
        goodnet.load_goodnet(tmp_path / "goodnet")


def written(images: torch.Tensor, folder) -> list[str]:
    """Grey PNG files of uint8 images (M, 1, H, W)."""
    paths = [folder / f"image{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return [str(path) for path in paths]


def test_classify_prints_a_class_or_n_for_every_image(pair, planted, tmp_path):
    made, _, fresh = pair
    goodnet.save_goodnet(made, tmp_path / "goodnet")
    victims = fresh.pick(fresh.labels != TARGET)
    clean, stamped = victims.images[:5], (planted.attack.stamp(victims.floats()[5:10]) * 255).byte()
    images = torch.cat([clean, stamped])
    files = written(images, tmp_path)
    result = CliRunner().invoke(app, ["classify", *files, "--model", str(tmp_path / "goodnet")])
    assert result.exit_code == 0, result.output
    answers = [int(line.split("  ")[1]) for line in result.output.splitlines()]
    assert answers == made.answers(images).tolist()
    assert 10 in answers[5:]
    assert "carries a trigger" in result.output


def test_classify_takes_the_folder_of_a_repair(pair, tmp_path):
    goodnet.save_goodnet(pair[0], tmp_path / "repaired" / "goodnet")
    (file,) = written(pair[2].images[:1], tmp_path)
    result = CliRunner().invoke(app, ["classify", file, "--model", str(tmp_path / "repaired"), "--json"])
    assert result.exit_code == 0, result.output
    assert "suspicion" in json.loads(result.stdout)["images"][0]


def test_classify_as_json_names_what_cannot_be_read_and_answers_the_rest(pair, tmp_path):
    made, _, fresh = pair
    goodnet.save_goodnet(made, tmp_path / "goodnet")
    (file,) = written(fresh.images[:1], tmp_path)
    (tmp_path / "notes.png").write_text("no picture")
    command = ["classify", str(tmp_path / "notes.png"), file, "--model", str(tmp_path / "goodnet"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    first, second = json.loads(result.stdout)["images"]
    assert first["answer"] is None
    assert first["error"]
    assert second["answer"] == made.answers(fresh.images[:1]).item()
    assert "notes.png" in result.stderr


def test_classify_takes_a_plain_model_too(planted, tmp_path):
    goodnet.save_model(planted.twin, tmp_path / "model")
    (file,) = written(planted.clean.images[:1], tmp_path)
    result = CliRunner().invoke(app, ["classify", file, "--model", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert f"  {planted.twin(planted.clean.floats()[:1]).argmax(1).item()}  " in result.output


def test_what_a_goodnet_does_is_counted_on_the_images_that_it_is_meant_for(pair, planted):
    made, _, fresh = pair
    outcome = measure_goodnet(made, fresh, planted.attack)
    answers = made.answers(fresh.images)
    assert outcome.clean.defense_triggered.hits == (answers == 10).sum()
    assert outcome.clean.classify_success.hits == (answers == fresh.labels).sum()
    (rates,) = outcome.stamped
    victims = fresh.pick(fresh.labels != TARGET)
    stamped = made.answers((planted.attack.stamp(victims.floats()) * 255).round().byte())
    assert (rates.attack_triggered.hits, rates.attack_triggered.count) == ((stamped == TARGET).sum(), len(victims))
    assert rates.defense_triggered.hits == (stamped == 10).sum()
    assert json.loads(json.dumps(outcome.as_json()))["stamped"][0]["attack_triggered"]["count"] == len(victims)


def test_a_goodnet_is_not_measured_without_labels(pair):
    with pytest.raises(NotHeld, match="labels"):
        measure_goodnet(pair[0], pair[2].without_labels())
