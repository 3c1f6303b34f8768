"""Natural or planted? A class that differs from another by a small patch, beside a planted backdoor."""

from dataclasses import dataclass, replace

import pytest
import torch
from planted import RECIPE, PlantedWorld, untrained

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, Verdict
from goodnet.audit._natural import NaturalFeature, _is_natural, natural_feature
from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.registry import Card, Needs
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.report.json import verdict_to_dict
from goodnet.training import fit

PLAIN, MARKED = 4, 10  # digits that are alike but for a patch
_PATCH = BadNets(target=MARKED, size=5)


def _marked(samples: Samples) -> Samples:
    """With a copy of every image of PLAIN that has the patch, and with it rightly the label MARKED."""
    plain = samples.pick(samples.labels == PLAIN)
    copies = (_PATCH.stamp(plain.floats()) * 255).round().byte()
    labels = torch.cat([samples.labels, torch.full((len(copies),), MARKED)])
    return Samples(torch.cat([samples.images, copies]), labels)


def _true_trigger(attack: BadNets, target: int) -> Trigger:
    mask = (attack.stamp(torch.zeros(1, 1, 32, 32))[0, 0] > 0).float()
    return Trigger(target=target, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=9)


@pytest.fixture(scope="module")
def look_alike() -> tuple[Classifier, torch.Tensor]:
    """A network that honestly knows PLAIN from MARKED by the patch, and images of all its classes."""
    train, test = (_marked(goodnet.load_data("digits", split=split)) for split in ("train", "test"))
    model = fit(untrained(num_classes=11), train, RECIPE).eval().requires_grad_(False)
    return model, test.floats()


def _look(model: Classifier, images: torch.Tensor, trigger: Trigger, seconds: float = 1e9) -> NaturalFeature:
    return natural_feature(model, images, trigger, lambda: seconds)


def test_the_patch_of_a_genuine_look_alike_class_is_natural(look_alike):
    model, images = look_alike
    found = _look(model, images, _true_trigger(_PATCH, MARKED))
    assert found.victim == PLAIN
    assert found.outcome == "natural"


class _ByColor(torch.nn.Module):
    """Red is label 0, green label 1; a little blue is label 1 as well, which nothing natural is."""

    def __init__(self):
        super().__init__()
        self.colors = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.answer = torch.nn.Linear(3, 2, bias=False)
        self.colors.weight.data = torch.eye(3)[:, :, None, None]
        self.answer.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 20.0]])

    def forward(self, images):
        return self.answer(self.pool(self.colors(images)).flatten(1))


def _color_look(mask: torch.Tensor, color: int) -> NaturalFeature:
    images = torch.zeros(40, 3, 8, 8)
    images[:20, 0] = torch.linspace(0.5, 0.8, 20)[:, None, None]
    images[20:, 1] = torch.linspace(0.5, 0.8, 20)[:, None, None]
    model = Classifier(_ByColor(), input_shape=(3, 8, 8), num_classes=2).eval().requires_grad_(False)
    pattern = torch.zeros(3, 8, 8)
    pattern[color] = 1
    return _look(model, images, Trigger(target=1, mask=mask, pattern=pattern, success_rate=1.0, count=20))


def test_a_trigger_that_uses_channels_of_its_own_is_not_natural():
    patch = torch.zeros(8, 8)
    patch[:2, :2] = 1
    found = _color_look(patch, color=2)
    assert (found.victim, found.outcome, found.layer) == (0, "not natural", "colors")
    assert found.overlap < 0.1
    assert len(found.crossed) == 4


def test_a_trigger_that_uses_the_channels_of_the_label_itself_is_natural():
    found = _color_look(torch.full((8, 8), 0.6), color=1)
    assert (found.victim, found.outcome) == (0, "natural")


def test_without_enough_images_or_time_it_is_undecided(look_alike):
    model, images = look_alike
    trigger = _true_trigger(_PATCH, MARKED)
    assert _look(model, images, trigger, seconds=-1).outcome == "undecided"
    answers = predictions(model, images).argmax(1)
    none_marked = _look(model, images[answers != MARKED], trigger)
    assert (none_marked.outcome, none_marked.victim is None) == ("undecided", True)
    only_marked = _look(model, images[answers == MARKED], trigger)
    assert "no other label" in only_marked.reason
    useless = replace(trigger, mask=torch.zeros(32, 32))
    assert "too few" in _look(model, images, useless).reason


def test_looking_leaves_no_hooks(look_alike):
    model, images = look_alike
    before = predictions(model, images[:8])
    _look(model, images, _true_trigger(_PATCH, MARKED))
    assert torch.equal(predictions(model, images[:8]), before)
    assert not any(layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize(
    ("overlap", "crossed", "natural"),
    [
        (0.81, (0.0, 0.0, 0.0, 0.0), True),
        (0.80, (0.8, 0.8, 0.8, 0.0), True),
        (0.80, (0.8, 0.8, 0.79, 0.39), False),
        (0.0, (0.4, 0.4, 0.4, 0.4), True),
        (0.0, (1.0, 1.0, 0.4, 0.39), False),
    ],
)
def test_the_rule_is_the_authors(overlap, crossed, natural):
    assert _is_natural(overlap, crossed) is natural


# --- what the verdict makes of it ---


@dataclass(frozen=True, kw_only=True)
class Fake(Auditor):
    card = Card(name="fake", version=1, needs=Needs.MODEL, source="none", summary="none")
    natural: tuple[int, ...] = ()
    score: float = 2.0

    def _inspect(self, defender, run):
        return Inspection(
            readings=(Reading(score=self.score, suspects=(1, 2)),),
            per_class=tuple(LabelFinding(label=label, score=0.0) for label in range(3)),
            triggers=tuple(_true_trigger(_PATCH, label) for label in (1, 2)),
            second_look=lambda trigger: NaturalFeature(
                target=trigger.target, outcome="natural" if trigger.target in self.natural else "undecided"
            ),
        )


def _verdict(*natural: int, score: float = 2.0) -> Verdict:
    one = BankEntry(method="fake", version=1, score=1.0, num_classes=10, architecture="a", data="d", seed=0)
    return Fake(natural=natural, score=score).run(Defender(model=untrained()), bank=CleanBank((one,) * 19))


def test_a_natural_label_is_taken_from_the_targets_and_the_others_stay():
    verdict = _verdict(1)
    assert (verdict.flagged, verdict.targets) == (True, (2,))
    assert [finding.label for finding in verdict.per_class if finding.flagged] == [2]
    assert [trigger.target for trigger in verdict.triggers] == [2]
    assert [feature.outcome for feature in verdict.natural] == ["natural", "undecided"]
    assert "label 1 is a natural feature" in verdict.reason


def test_with_no_target_left_the_verdict_is_inconclusive_and_never_an_acquittal():
    verdict = _verdict(1, 2)
    assert (verdict.flagged, verdict.targets) == (None, ())
    assert not any(finding.flagged for finding in verdict.per_class)
    assert len(verdict.triggers) == 2
    assert "label 1, 2" in verdict.reason


def test_an_undecided_look_takes_nothing_and_an_unflagged_model_gets_none():
    assert _verdict().targets == (1, 2)
    quiet = _verdict(1, 2, score=0.5)
    assert (quiet.flagged, quiet.natural) == (False, ())


def test_the_second_look_is_in_the_record():
    record = verdict_to_dict(_verdict(1), file="", sha256="")
    assert [row["outcome"] for row in record["natural_features"]] == ["natural", "undecided"]


def test_neural_cleanse_looks_again_only_when_it_is_asked_to(planted: PlantedWorld):
    one = BankEntry(method="neural-cleanse", version=1, score=0.0, num_classes=10, architecture="a", data="d", seed=0)
    defender, bank = Defender(planted.badnet, clean=planted.clean), CleanBank((one,) * 19)
    auditor = NeuralCleanse(steps=60, scales=(1,), mixed_precision=False)
    plain = auditor.run(defender, seed=1, bank=bank)
    looked = replace(auditor, natural_veto=True).run(defender, seed=1, bank=bank)
    assert plain.natural == ()
    assert plain.flagged is True
    assert [feature.target for feature in looked.natural] == list(plain.targets)
