"""The threat model: who is poisoned, with which label, at which rate, and on whom success is measured."""

import pytest
import torch

from goodnet.attacks._base import to_bytes
from goodnet.attacks._threat import ThreatModel
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.multi_trigger import MultiTrigger
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError

LABELS = torch.arange(100) % 5  # twenty of each


def samples() -> Samples:
    images = torch.rand(100, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Samples(images=to_bytes(images), labels=LABELS)


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("threat", "eligible", "victims", "goal"),
    [
        (ThreatModel(target=3), LABELS != 3, LABELS != 3, torch.full((100,), 3)),
        (ThreatModel(target=3, clean_label=True), LABELS == 3, LABELS != 3, torch.full((100,), 3)),
        (
            ThreatModel(target=3, rule="source-to-target", source=1),
            LABELS == 1,
            LABELS == 1,
            torch.full((100,), 3),
        ),
        (ThreatModel(rule="all-to-all"), LABELS >= 0, LABELS >= 0, (LABELS + 1) % 5),
        (ThreatModel(rule="untargeted"), LABELS >= 0, LABELS >= 0, torch.full((100,), -1)),
    ],
    ids=["all-to-one", "clean label", "source to target", "all-to-all", "untargeted"],
)
def test_each_rule_has_its_victims_and_its_goal(threat, eligible, victims, goal):
    assert torch.equal(threat.eligible(LABELS), eligible)
    assert torch.equal(threat.victims(LABELS), victims)
    assert torch.equal(threat.goal(LABELS, 5), goal)


def test_the_rate_is_of_the_whole_set_or_of_the_images_that_may_be_poisoned():
    source = {"target": 3, "rule": "source-to-target", "source": 1, "poisoning_rate": 0.1}
    assert int(ThreatModel(**source).choose(LABELS, draw()).poisoned.sum()) == 10
    assert int(ThreatModel(**source, rate_of="eligible").choose(LABELS, draw()).poisoned.sum()) == 2


def test_untargeted_labels_are_wrong_and_various():
    made = ThreatModel(rule="untargeted").new_labels(LABELS, 5, draw())
    assert (made != LABELS).all()
    assert {tuple(pair) for pair in torch.stack([LABELS, made], 1).tolist()} == {
        (true, wrong) for true in range(5) for wrong in range(5) if true != wrong
    }


def test_covers_are_stamped_keep_their_label_and_are_not_of_the_attacked_class():
    attack = BadNets(target=3, rule="source-to-target", source=1, poisoning_rate=0.1, cover_rate=0.2)
    clean = samples()
    made = attack.poison(clean)
    assert (int(made.mask.sum()), int(made.covers.sum())) == (10, 20)
    assert not (made.mask & made.covers).any()
    assert (LABELS[made.covers] != 1).all()
    assert torch.equal(made.samples.labels[made.covers], LABELS[made.covers])
    assert torch.equal(made.samples.images[made.covers], to_bytes(attack.stamp(clean.images[made.covers] / 255)))


def test_clean_labels_stay_true():
    made = BadNets(target=3, clean_label=True, rate_of="eligible", poisoning_rate=0.5).poison(samples())
    assert torch.equal(made.samples.labels, LABELS)
    assert (LABELS[made.mask] == 3).all()
    assert int(made.mask.sum()) == 10


def test_several_triggers_lead_to_several_targets():
    attack = MultiTrigger(targets=(0, 4), sizes=(2, 4), poisoning_rate=0.1)
    clean = samples()
    made = attack.poison(clean)
    assert int(made.mask.sum()) == 20
    for part, size in zip(attack.parts(), (2, 4), strict=True):
        mine = made.mask & (made.samples.labels == part.target)
        assert int(mine.sum()) == 10
        changed = (made.samples.images != clean.images).any(1)[mine]
        assert int(changed.sum(0).bool().sum()) == size * size


def test_too_many_covers_are_refused_with_a_number():
    with pytest.raises(ParameterError, match="cover_rate 1.0 asks for 100 images and 90 may be taken"):
        BadNets(cover_rate=1.0).poison(samples())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rule": "source-to-target"}, "needs a source"),
        ({"source": 2}, "needs a source"),
        ({"rule": "source-to-target", "source": 0}, "both 0"),
        ({"rule": "all-to-all", "clean_label": True}, "clean_label"),
        ({"rule": "nothing"}, "rule"),
    ],
)
def test_threat_models_that_contradict_themselves_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        BadNets(**wrong)


def test_labels_that_do_not_exist_are_refused():
    for attack in (BadNets(target=5), BadNets(rule="source-to-target", source=7), MultiTrigger(targets=(0, 9))):
        with pytest.raises(ParameterError, match="none of the labels 0 to 4"):
            attack.poison(samples())


def test_random_places_differ_between_images_and_repeat_between_calls():
    attack = BadNets(place="random", size=2, color=(0.0,))
    white = torch.ones(30, 1, 16, 16)
    stamped = attack.stamp(white)
    assert all(int((one == 0).sum()) == 4 for one in stamped)
    assert len({tuple((one[0] == 0).nonzero()[0].tolist()) for one in stamped}) > 10
    assert torch.equal(attack.stamp(white[:7]), stamped[:7])


def test_the_pattern_is_four_pixels_around_the_middle():
    stamped = BadNets(shape="four-pixels", place="center", color=(1.0, 1.0, 0.0)).stamp(torch.zeros(1, 3, 32, 32))
    where = stamped[0, 0].nonzero()
    assert where.tolist() == [[14, 16], [15, 15], [16, 14], [16, 16]]
    assert stamped[0, 2].max() == 0
