"""Fitted guards: what each tells apart, thresholds, STRIP's short cut, folders, and goodnet guard."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from planted import TARGET, DirtyWorld
from typer.testing import CliRunner

import goodnet
from goodnet.cleanse._overlays import entropies
from goodnet.cli.main import app
from goodnet.core.rates import Rate
from goodnet.core.trigger import Trigger
from goodnet.errors import GoodnetError, NotApplicable, NotHeld, UnreadableModel, UsageError
from goodnet.evaluation import measure_guard
from goodnet.guard._base import Guard, Learned, conformal, guards
from goodnet.guard.confidence import Confidence
from goodnet.guard.fitted import FittedGuard
from goodnet.guard.ibd_psc import IbdPsc
from goodnet.guard.strip import Strip

RATE, LEAST_AUROC = 0.05, 0.8


def halves(world: DirtyWorld) -> tuple[goodnet.Samples, goodnet.Samples]:
    """What the defender holds, and fresh images."""
    even = torch.arange(len(world.held)) % 2 == 0
    return world.held.pick(even), world.held.pick(~even)


def defender_of(world: DirtyWorld) -> goodnet.Defender:
    black, white = world.poisoned.attack.stamp(torch.stack([torch.zeros(1, 32, 32), torch.ones(1, 32, 32)]))
    mask = 1 - (white - black)[0]
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    return goodnet.Defender(model=world.model, clean=halves(world)[0], triggers=(trigger,))


def stamped_of(world: DirtyWorld) -> torch.Tensor:
    fresh = halves(world)[1]
    return (world.poisoned.attack.stamp(fresh.pick(fresh.labels != TARGET).floats()) * 255).round().byte()


@pytest.fixture(scope="module")
def fitted(dirty: DirtyWorld) -> FittedGuard:
    return Strip(overlays=40).fit(defender_of(dirty), rate=RATE)


def _cases() -> list[Any]:
    cases = []
    for method in guards:
        reason = method.card.known_failures.get("planted_world")
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        cases.append(pytest.param(method, id=method.card.name, marks=marks))
    return cases


@pytest.mark.parametrize("method", _cases())
def test_planted_triggers_are_more_suspicious_than_clean_images(method: type[Guard], dirty: DirtyWorld) -> None:
    made = method().fit(defender_of(dirty), rate=RATE)
    outcome = measure_guard(made, halves(dirty)[1].images, stamped_of(dirty))
    assert (outcome.ranking.auroc or 0) >= LEAST_AUROC
    assert (outcome.false_rejections.interval(0.999) or (1,))[0] <= RATE


def test_the_conformal_threshold_lies_below_fewer_scores_than_allowed() -> None:
    scores = torch.tensor([5.0, 1.0, 3.0, 4.0, 2.0])
    assert conformal(scores, 1) == pytest.approx(5, abs=1e-4)
    assert conformal(scores, 1) > 5
    assert conformal(scores, 2) == 4.5
    assert conformal(torch.tensor([2.0, 2.0, 1.0]), 2) > 2  # equal scores are flagged together or not at all


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_rate_asked_for_is_kept_on_fresh_images_on_average(rate: float) -> None:
    achieved = []
    for seed in range(300):
        scores = torch.randn(150 + 500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        limit = conformal(scores[:150], int(rate * 151 + 1e-9))
        achieved.append((scores[150:] > limit).double().mean().item())
    assert rate / 3 < np.mean(achieved) < rate + 3 * np.std(achieved) / np.sqrt(len(achieved))


def test_too_few_images_are_refused_with_the_number_that_it_takes(dirty: DirtyWorld) -> None:
    few = goodnet.Defender(model=dirty.model, clean=dirty.held.pick(torch.arange(98)))
    with pytest.raises(NotHeld, match=r"at least 99 clean images .* there are 98"):
        Confidence().fit(few)
    enough = goodnet.Defender(model=dirty.model, clean=dirty.held.pick(torch.arange(99)))
    assert Confidence().fit(enough).calibration.alarms == Rate(0, 99)


def test_entropy_is_taken_over_labels_in_bits(dirty: DirtyWorld) -> None:
    """Equal answers under every overlay are the signature of a trigger, and score lowest when they are certain."""
    grey = torch.full((1, 1, 32, 32), 0.5)
    model = goodnet.untrained("small_cnn_bn:width=8", dirty.held)
    head = model.head()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        assert entropies(model, grey, grey.expand(3, -1, -1, -1), "sum") == pytest.approx(np.log2(10), abs=1e-4)
        head.bias[1] = 50
        assert float(entropies(model, grey, grey.expand(3, -1, -1, -1), "average").max()) < 1e-6


def test_blends_are_a_sum_that_saturates_or_an_average(dirty: DirtyWorld) -> None:
    seen: list[torch.Tensor] = []
    handle = dirty.model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        images, over = torch.full((1, 1, 32, 32), 0.75), torch.full((1, 1, 32, 32), 0.5)
        for blend in ("sum", "average"):
            entropies(dirty.model, images, over, blend)
    finally:
        handle.remove()
    assert [float(one.max()) for one in seen] == [1.0, 0.625]


def test_strip_stops_early_with_the_same_decisions(dirty: DirtyWorld, fitted: FittedGuard) -> None:
    images = torch.cat([halves(dirty)[1].images, stamped_of(dirty)])
    whole = fitted.score(images) > fitted.threshold
    rows = []
    handle = fitted.model.register_forward_hook(lambda _, inputs, output: rows.append(len(output)))
    try:
        quick = fitted.guard.scores(fitted.model, fitted.learned, images, fitted.threshold) > fitted.threshold
    finally:
        handle.remove()
    assert (quick != whole).double().mean() < 0.01
    assert sum(rows) < 0.45 * 40 * len(images)
    assert whole.any()
    assert not whole.all()


def test_strip_looks_until_the_mean_is_far_enough_from_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropies are made up: certain under every overlay, clear of the threshold, and on it."""
    made = torch.stack([torch.zeros(40), torch.full((40,), 1.5), torch.full((40,), 0.5)])
    seen: list[tuple[int, int]] = []

    def told(model: Any, images: torch.Tensor, over: torch.Tensor, blend: str) -> torch.Tensor:
        seen.append((len(images), len(over)))
        return made[images[:, 0, 0, 0].long()][:, : len(over)]

    monkeypatch.setattr("goodnet.guard.strip.entropies", told)
    images = torch.arange(3.0)[:, None, None, None]
    learned = Learned(arrays={"overlays": torch.zeros(40, 1, 1, 1)}, values={"dispersion": 0.5})
    scores = Strip(sure=5.0)._side(None, learned, images, -0.5)  # type: ignore[arg-type]
    assert (scores > -0.5).tolist() == [True, False, False]
    ends = np.cumsum([count for _, count in seen]).tolist()
    still = [max(end for end, (open_, _) in zip(ends, seen, strict=True) if open_ >= least) for least in (3, 2, 1)]
    errors = {end: 5 * np.sqrt(0.25 / end * (40 - end) / 39) for end in ends}
    decided = [min(end for end in ends if gap > errors[end]) for gap in (1.0, 0.5)]
    assert still == [*decided, 40]
    assert 4 < decided[0] < decided[1] < 40


def test_strip_says_where_the_normal_threshold_is_blind() -> None:
    wide = -torch.tensor([0.1, 3.0] * 100, dtype=torch.float64)
    assert any("blind" in note for note in Strip()._threshold(wide, 0.01)[1])
    narrow = -torch.tensor([1.9, 2.1] * 100, dtype=torch.float64)
    limit, notes = Strip(threshold="normal")._threshold(narrow, 0.01)
    assert not notes
    assert limit == pytest.approx(-(2 - 2.3263 * 0.1), abs=2e-3)


def test_a_network_without_batch_norm_has_nothing_to_amplify(planted: Any) -> None:
    with pytest.raises(NotApplicable, match="BatchNorm"):
        IbdPsc().fit(goodnet.Defender(model=planted.twin, clean=planted.clean), rate=RATE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["provenance"].update(method="trust-me"), "trust-me"),
        (lambda record: record["provenance"].update(version=99), "version 99"),
        (lambda record: record["provenance"]["parameters"].update(overlays=0), "overlays"),
        (lambda record: record.update(threshold=float("nan")), "threshold"),
        (lambda record: record.update(run="rm"), "run"),
        (lambda record: record["calibration"]["alarms"].update(hits=-1), "hits"),
    ],
)
def test_a_damaged_description_is_refused_by_name(fitted: FittedGuard, tmp_path: Any, change: Any, words: str) -> None:
    goodnet.save_guard(fitted, tmp_path / "guard")
    path = tmp_path / "guard" / "guard.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(GoodnetError, match=words):
        goodnet.load_guard(tmp_path / "guard")


def test_arrays_that_do_not_fit_are_refused(fitted: FittedGuard, dirty: DirtyWorld, tmp_path: Any) -> None:
    goodnet.save_guard(fitted, tmp_path / "strip")
    goodnet.save_guard(Confidence().fit(defender_of(dirty), rate=RATE), tmp_path / "other")
    (tmp_path / "other" / "learned.safetensors").replace(tmp_path / "strip" / "learned.safetensors")
    with pytest.raises(UnreadableModel, match="does not fit"):
        goodnet.load_judging(tmp_path / "strip")


def test_what_is_no_guard_is_neither_read_nor_replaced(fitted: FittedGuard, tmp_path: Any) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        goodnet.save_guard(fitted, tmp_path)
    with pytest.raises(UnreadableModel, match="goodnet guard fit"):
        goodnet.load_judging(tmp_path)


def invoke(*words: object) -> Any:
    result = CliRunner().invoke(app, ["guard", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result


def test_a_guard_is_fitted_asked_and_measured_from_the_command_line(dirty: DirtyWorld, tmp_path: Any) -> None:
    held, fresh = halves(dirty)
    goodnet.save_model(dirty.model, tmp_path / "net")
    for name, images in (("held", held.images), ("fresh", fresh.images), ("stamped", stamped_of(dirty))):
        np.savez(tmp_path / f"{name}.npz", images=images.numpy())
    out = tmp_path / "guarded"
    command = ("fit", tmp_path / "net", "--data", tmp_path / "held.npz", "--out", out, "--rate", RATE)
    record = json.loads(invoke(*command, "--set", "overlays=20", "--json").stdout)
    assert record["method"] == "strip"
    assert record["alarms"]["hits"] <= RATE * (record["alarms"]["count"] + 1)
    assert "threshold" in invoke(*command, "--method", "confidence").stdout
    invoke(*command, "--set", "overlays=20")
    asked = ("evaluate", out, "--clean", tmp_path / "fresh.npz", "--stamped", tmp_path / "stamped.npz")
    measured = json.loads(invoke(*asked, "--json").stdout)
    made = goodnet.load_guard(out)
    assert measured["false_acceptance_rate"]["hits"] == int((made.decide(stamped_of(dirty)) != 10).sum())
    assert measured["false_rejection_rate"]["hits"] == int((made.decide(fresh.images) == 10).sum())
    assert measured["auroc"] > LEAST_AUROC
    assert "TPR@1%" in invoke(*asked).stdout


def test_classify_and_score_take_a_guard(fitted: FittedGuard, dirty: DirtyWorld, tmp_path: Any) -> None:
    from PIL import Image

    goodnet.save_guard(fitted, tmp_path / "guarded")
    suspicious = stamped_of(dirty)[fitted.decide(stamped_of(dirty)) == 10][0]
    Image.fromarray(suspicious[0].numpy()).save(tmp_path / "one.png")
    (tmp_path / "notes.png").write_text("no picture")
    (row,) = json.loads(invoke("score", tmp_path / "one.png", "--model", tmp_path / "guarded", "--json").stdout)[
        "images"
    ]
    assert row["triggered"] is True
    assert row["suspicion"] == pytest.approx(float(fitted.score(suspicious[None])), abs=1e-4)
    result = CliRunner().invoke(app, ["classify", str(tmp_path / "one.png"), "--model", str(tmp_path / "guarded")])
    assert "  10  carries a trigger (suspicion" in result.output
    command = ["guard", "score", str(tmp_path / "notes.png"), "--model", str(tmp_path / "guarded")]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 2
    assert "notes.png" in failed.stderr
