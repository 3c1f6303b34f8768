"""TeCo and BaDExpert: corruptions, first changes of the answer, and the two descendants of a model."""

from typing import Any

import numpy as np
import pytest
import torch
from planted import TARGET, DirtyWorld
from test_guard_fitted import RATE, defender_of, halves, stamped_of

from goodnet.core.classifier import Classifier, predictions
from goodnet.guard._base import Learned
from goodnet.guard._corruptions import CORRUPTIONS, SEVERITIES, corrupted, noise_fields
from goodnet.guard.badexpert import BadExpert, _shares
from goodnet.guard.teco import Teco


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_works_image_by_image(name: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    fields = noise_fields((channels, 20, 16), generator)
    images = torch.rand(3, channels, 20, 16, generator=generator) * 0.8
    before = images.clone()
    off = []
    for severity in range(1, SEVERITIES + 1):
        made = corrupted(name, images, severity, fields)
        assert made.shape == images.shape
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
        torch.testing.assert_close(made[1:2], corrupted(name, images[1:2], severity, fields))
        off.append(float((made - images).abs().mean()))
    assert torch.equal(images, before)
    assert off[0] > 0
    assert off[-1] > off[0]


def test_a_blur_leaves_what_is_even_and_a_displacement_moves_nothing_into_it() -> None:
    fields = noise_fields((3, 32, 32), torch.Generator().manual_seed(0))
    grey = torch.full((1, 3, 32, 32), 0.4)
    for name in ("defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "contrast", "elastic", "pixelate"):
        torch.testing.assert_close(corrupted(name, grey, 5, fields), grey, msg=name)


def test_teco_scores_how_far_apart_the_first_changes_are(monkeypatch: pytest.MonkeyPatch, dirty: DirtyWorld) -> None:
    """Answers are made up: an image, told by its pixel, changes its answer under each corruption at a severity."""
    changes = {"fog": [1, 6, 3], "jpeg": [1, 2, 6], "contrast": [1, 4, 6]}  # 6: never
    images = torch.tensor([0.0, 0.3, 0.6])[:, None, None, None].expand(-1, 1, 32, 32)
    asked: list[tuple[str, int, int]] = []

    def told(name: str, given: torch.Tensor, severity: int, fields: Any) -> torch.Tensor:
        places = (given[:, 0, 0, 0] / 0.3).round().long()  # wrong unless the image came as it was
        assert torch.equal(given, images[places])
        asked.extend((name, severity, place) for place in places.tolist())
        return torch.tensor([severity >= changes[name][place] for place in places.tolist()]).float()[:, None]

    def answered(model: Any, given: torch.Tensor) -> torch.Tensor:
        changed = given[:, 0].reshape(len(given), -1)[:, 0] if given.ndim == 2 else torch.zeros(len(given))
        return torch.stack([1 - changed, changed], 1)

    monkeypatch.setattr("goodnet.guard.teco.corrupted", told)
    monkeypatch.setattr("goodnet.guard.teco.predictions", answered)
    scores = Teco(corruptions=tuple(changes))._score(dirty.model, Learned(), images)
    assert scores.tolist() == pytest.approx(np.std(list(changes.values()), axis=0).tolist())
    wanted = {
        (name, severity, place) for name, each in changes.items() for place in range(3) for severity in range(1, 6)
    }
    assert set(asked) == {
        (name, severity, place) for name, severity, place in wanted if severity <= changes[name][place]
    }
    assert len(asked) == len(set(asked))


def test_the_expert_unlearns_the_task_and_keeps_the_backdoor(dirty: DirtyWorld) -> None:
    made = BadExpert().fit(defender_of(dirty), rate=RATE)
    clean, stamped = halves(dirty)[1], stamped_of(dirty)
    assert clean.labels is not None

    def answers(name: str, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return _shares(made.model, made.learned.arrays, name, images.float() / 255).argmax(1)

    assert (answers("expert", clean.images) == clean.labels).double().mean() < 0.4
    assert (answers("expert", stamped) == TARGET).double().mean() > 0.7
    assert (answers("shadow", clean.images) == clean.labels).double().mean() > 0.9
    assert not made.notes


def test_badexpert_says_where_the_task_is_not_unlearned(dirty: DirtyWorld) -> None:
    made = BadExpert(epochs=1, learning_rate=0.0, tuning_rate=1e6).fit(defender_of(dirty), rate=RATE)
    assert any("give more epochs" in note for note in made.notes)
    assert any("harms at every rate" in note for note in made.notes)


@pytest.mark.parametrize(
    ("expert", "shadow", "wanted"),
    [(0.9, 0.1, 2 * 0.1 / 0.9), (0.1, 0.9, 18.0), (0.8, 0.4, 1.0), (0.99, 0.3, 0.01 / 0.2)],
)
def test_the_score_of_badexpert_is_the_papers(
    monkeypatch: pytest.MonkeyPatch, dirty: DirtyWorld, expert: float, shadow: float, wanted: float
) -> None:
    def told(model: Classifier, arrays: Any, name: str, images: torch.Tensor) -> torch.Tensor:
        share = expert if name == "expert" else shadow
        return torch.full((len(images), 10), share, dtype=torch.float64)

    monkeypatch.setattr("goodnet.guard.badexpert._shares", told)
    score = BadExpert()._score(dirty.model, Learned(), torch.zeros(1, 1, 32, 32))
    assert float(score) == pytest.approx(-np.log(wanted))
    assert predictions(dirty.model, torch.zeros(1, 1, 32, 32)).shape == (1, 10)
