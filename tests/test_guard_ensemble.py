"""The ensemble: evidence, families, parts that do not suit, and the false-alarm rate."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from planted import DirtyWorld
from test_guard_fitted import RATE, defender_of, halves, stamped_of

import goodnet
from goodnet.errors import NotApplicable, NotHeld, ParameterError, UnknownName
from goodnet.evaluation import measure_guard
from goodnet.guard._base import guards
from goodnet.guard.confidence import Confidence
from goodnet.guard.ensemble import Ensemble, _by_family, surprise
from goodnet.guard.scale_up import ScaleUp
from goodnet.guard.strip import Strip


def test_surprise_is_the_logarithm_of_the_share_at_least_as_high() -> None:
    reference = torch.tensor([0.0, 1.0, 1.0, 3.0])
    made = surprise(torch.tensor([-5.0, 0.0, 1.0, 2.0, 3.0, 6.0], dtype=torch.float64), reference).exp()
    assert made[[0, 1, 2, 4]].tolist() == pytest.approx([5 / 4, 5 / 4, 5 / 3, 5])
    assert 5 / 3 < made[3] < 5
    assert float(made[5]) == pytest.approx(5 * 2)  # one span beyond


def families(scores: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, dirty: DirtyWorld) -> torch.Tensor:
    """The ensemble's scores of 200 images on which the parts are made to score ``scores``, by brightness."""
    for name, values in scores.items():

        def made(self: Any, model: Any, learned: Any, images: torch.Tensor, values: Any = values) -> torch.Tensor:
            return torch.as_tensor(values)[(images[:, 0, 0, 0] * 255).round().long()]

        monkeypatch.setattr(guards[name], "_score", made)
    images = torch.arange(200, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 32, 32)
    clean = goodnet.Samples(images=images)
    fitted = Ensemble(parts=tuple(scores)).fit(goodnet.Defender(model=dirty.model, clean=clean), rate=RATE)
    return fitted.score(images)


def test_guards_of_one_family_count_as_one(monkeypatch: pytest.MonkeyPatch, dirty: DirtyWorld) -> None:
    """Two guards that say the same weigh as much as one of them; a family beside it is heard by itself."""
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(200, generator=generator), torch.randn(200, generator=generator)
    single = families({"strip": one, "confidence": other}, monkeypatch, dirty)
    double = families({"strip": one, "scale-up": one, "confidence": other}, monkeypatch, dirty)
    assert Strip.family == ScaleUp.family
    torch.testing.assert_close(single, double)


def test_evidence_within_a_family_is_averaged_before_the_largest_is_taken() -> None:
    one, other, third = torch.tensor([[0.0, 4.0], [2.0, 2.0], [1.0, 5.0]])
    made = _by_family({"strip": one, "confidence": third, "scale-up": other})
    assert {name: mean.tolist() for name, mean in made.items()} == {Strip.family: [1, 3], "confidence": [1, 5]}


def test_one_alarmed_family_is_enough(dirty: DirtyWorld) -> None:
    made = Ensemble(parts=("confidence", "ted")).fit(defender_of(dirty), rate=RATE)
    outcome = measure_guard(made, halves(dirty)[1].images, stamped_of(dirty))
    assert (outcome.ranking.auroc or 0) >= 0.9
    assert outcome.false_acceptances.hits < outcome.false_acceptances.count / 2


def test_no_part_learns_from_the_images_that_it_is_measured_by(
    dirty: DirtyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = defender_of(dirty)
    assert held.clean is not None
    marked = replace(held, clean=replace(held.clean, ids=torch.arange(len(held.clean))))
    learned: list[int] = []
    fit = Strip._fit

    def looks(self: Any, defender: Any, run: Any) -> Any:
        learned.append(len(defender.clean))
        return fit(self, defender, run)

    monkeypatch.setattr(Strip, "_fit", looks)
    made = Ensemble(parts=("strip",)).fit(marked, rate=RATE)
    counts = made.provenance.counts
    together = learned[0] + counts["reference_images"] + counts["calibration_images"]
    assert together == len(held.clean)


def test_parts_that_do_not_suit_are_left_out_and_named(planted: Any) -> None:
    held = goodnet.Defender(model=planted.badnet, clean=planted.clean)  # without BatchNorm
    made = Ensemble(parts=("confidence", "ibd-psc")).fit(held, rate=RATE)
    assert any("ibd-psc is left out" in note for note in made.notes)
    assert made.provenance.counts["parts"] == 1
    with pytest.raises(NotApplicable, match="no part"):
        Ensemble(parts=("ibd-psc",)).fit(held, rate=RATE)
    with pytest.raises(NotHeld, match="nc-filter needs triggers"):
        Ensemble(parts=("nc-filter",)).fit(held, rate=RATE)


def test_parts_are_guards_each_once() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'strip'"):
        Ensemble(parts=("stripp",))
    with pytest.raises(ParameterError, match="itself"):
        Ensemble(parts=("ensemble",))
    with pytest.raises(ParameterError, match="once"):
        Ensemble(parts=(Confidence.card.name, Confidence.card.name))
