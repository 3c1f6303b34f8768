"""Very many labels: what a view's excess is, what clean labels score together, and a planted target among 150."""

import math

import pytest
import torch
from torch import Tensor, nn

from goodnet.audit._bank import CleanBank
from goodnet.audit._inversion import Inverter
from goodnet.audit._many_labels import View, patch_views, together
from goodnet.audit.neural_cleanse import NeuralCleanse, _gaps
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.samples import Samples

LABELS, TARGET = 150, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_excess_is_in_units_of_the_tail_and_zero_outside_it():
    # 24 labels at distances 1..24 from the edge: their mean distance is 12.5
    view = View("", torch.arange(40), torch.cat([torch.arange(-24.0, 0), torch.zeros(1), torch.arange(1.0, 16)]))
    excess = view.excess(50)
    assert excess[:24].tolist() == pytest.approx([distance / 12.5 for distance in range(24, 0, -1)])
    assert (excess[24:] == 0).all()


def test_the_scale_and_place_of_a_view_do_not_matter():
    values = torch.randn(100, generator=generator())
    one, other = (View("", torch.arange(100), scale * values + shift) for scale, shift in ((1, 0), (7, -3)))
    torch.testing.assert_close(one.excess(100), other.excess(100))


def test_labels_that_are_all_alike_stand_out_nowhere():
    assert (View("", torch.arange(30), torch.ones(30)).excess(30) == 0).all()


def test_the_best_try_of_a_label_counts():
    values = torch.cat([torch.linspace(0, 3, 30), torch.tensor([-5.0])])
    twice = View("", torch.cat([torch.arange(30), torch.tensor([29])]), values)
    assert int(twice.excess(30).argmax()) == 29


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.8])
def test_clean_labels_are_seldom_called_targets_even_if_the_views_agree(shared):
    draw, alarms, runs = generator(1), 0, 200
    for _ in range(runs):
        common = torch.randn(1000, generator=draw)
        views = [
            View("", torch.arange(1000), shared**0.5 * common + (1 - shared) ** 0.5 * torch.randn(1000, generator=draw))
            for _ in range(3)
        ]
        total = together(views, 1000)
        first = total.argsort(descending=True)[:16]
        tests = [reading.many_label_p_value for reading in _gaps(first, -total[first], 1000, 3)]
        alarms += any(p_value is not None and p_value <= 0.05 for p_value in tests)
    assert alarms / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


class Planted(nn.Module):
    """Random linear answers; a block that is blue and not green leads to ``TARGET``."""

    def __init__(self, backdoor: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 12 * 12, LABELS)
        nn.init.normal_(self.linear.weight, std=0.3, generator=generator())
        nn.init.zeros_(self.linear.bias)
        self.backdoor = backdoor

    def forward(self, images: Tensor) -> Tensor:
        logits = self.linear(images.flatten(1) - 0.5)
        blue = (images[:, 2] - images[:, 1])[:, None]
        fires = nn.functional.avg_pool2d(blue, 3, stride=1).flatten(1).amax(1)
        bonus = nn.functional.one_hot(torch.tensor(TARGET), LABELS) * self.backdoor
        return logits + bonus * fires[:, None].clamp(min=0) ** 2


def defender(backdoor: float) -> Defender:
    model = Classifier(Planted(backdoor), input_shape=(3, 12, 12), num_classes=LABELS)
    images = torch.randint(40, 216, (90, 3, 12, 12), dtype=torch.uint8, generator=generator(5))
    return Defender(model, clean=Samples(images=images))


def test_random_patches_lead_to_the_planted_label():
    held = defender(40.0)
    inverter = Inverter(held.model, held.clean.floats(), generator(), success_wanted=0.98, mixed_precision=False)
    often, surely = patch_views(inverter, generator(2), patches=256, images=12)
    assert int(often.first(1)) == int(surely.first(1)) == TARGET
    assert float(surely.values.min()) < -2  # a margin of more than two, and that with the sign of all views
    assert float(often.values.exp().reciprocal().sum()) < 1 + LABELS / (256 * 12)  # shares, each with one case added


def test_a_planted_target_among_150_labels_is_found_and_its_clean_twin_is_not_acquitted():
    auditor = NeuralCleanse(steps=50, mixed_precision=False)
    found = auditor.run(defender(40.0), bank=CleanBank(()))
    assert (found.flagged, found.targets) == (True, (TARGET,))
    assert found.triggers[0].success_rate > 0.9
    assert set(found.evidence["excess"]) == {"random patches", "patch margins", "grid 1", "grid 4"}
    twin = auditor.run(defender(0.0), bank=CleanBank(()))
    assert twin.flagged is None
    assert "bank" in twin.reason
