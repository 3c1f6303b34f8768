"""evaluate: models that answer what we tell them, counted by hand, and the planted world."""

import json

import pytest
import torch
from torch import Tensor, nn

from goodnet.attacks.badnets import BadNets
from goodnet.attacks.multi_trigger import MultiTrigger
from goodnet.core.classifier import Classifier
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.evaluation import evaluate, measure


class ByBrightness(nn.Module):
    """Class = brightness of the middle pixel in steps of 50; a white pixel at ``place`` means ``target``."""

    def __init__(self, places: dict[tuple[int, int], int]):
        super().__init__()
        self.places = places
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        answers = (images[:, 0, 4, 4] * 255 / 50).round().long()
        for (row, column), target in self.places.items():
            answers = torch.where(images[:, 0, row, column] == 1, target, answers)
        return nn.functional.one_hot(answers, 4).float()


def model(places: dict[tuple[int, int], int]) -> Classifier:
    return Classifier(ByBrightness(places), input_shape=(1, 8, 8), num_classes=4)


def images(labels: list[int]) -> Samples:
    values = torch.tensor(labels)
    pictures = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    pictures[:, 0, 4, 4] = (50 * values).byte()
    return Samples(images=pictures, labels=values)


BACKDOORED, MENDED = model({(7, 7): 2}), model({})
ATTACK = BadNets(target=2, size=1, row=-1, column=-1)
TEST = images([0, 0, 1, 2, 2, 3])


def test_success_is_counted_on_images_of_other_classes_only():
    made = measure(BACKDOORED, TEST, ATTACK)
    assert (made.accuracy.hits, made.accuracy.count) == (6, 6)
    assert (made.success[0].hits, made.success[0].count) == (4, 4)
    assert made.recovered[0].hits == 0


def test_a_source_specific_attack_is_measured_on_its_source_class():
    made = measure(BACKDOORED, TEST, BadNets(target=2, rule="source-to-target", source=0, size=1, row=-1, column=-1))
    assert (made.success[0].hits, made.success[0].count) == (2, 2)


def test_untargeted_attacks_succeed_with_any_wrong_answer():
    made = measure(BACKDOORED, TEST, BadNets(rule="untargeted", size=1, row=-1, column=-1))
    assert (made.success[0].hits, made.success[0].count) == (4, 6)


def test_each_trigger_is_measured_and_the_worst_one_counts():
    attack = MultiTrigger(targets=(2, 1), sizes=(1,), color=(1.0,))
    made = measure(model({(6, 6): 2}), TEST, attack)
    assert [(rate.hits, rate.count) for rate in made.success] == [(4, 4), (0, 5)]
    assert made.worst_success.value == 1


def test_a_defense_is_compared_on_the_same_images():
    made = evaluate(BACKDOORED, MENDED, TEST, ATTACK)
    assert (made.attack.before.value, made.attack.after.value) == (1, 0)
    assert made.accuracy.drop == 0
    values = made.as_json()
    assert values["defense_effectiveness"] == 1
    assert values["repair_succeeded"] is True
    assert json.loads(json.dumps(values)) == values


def test_the_class_that_was_harmed_most_is_named():
    values = evaluate(MENDED, model({(0, 0): 3, (4, 4): 0}), images([0, 1, 2, 3]), None).as_json()
    assert values["largest_class_drop"] == 0  # no pixel of these images is white
    broken = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), input_shape=(1, 8, 8), num_classes=4)
    with torch.no_grad():
        broken.net[1].weight.zero_()
        broken.net[1].bias.copy_(torch.tensor([1.0, 0, 0, 0]))
    values = evaluate(MENDED, broken, images([0, 0, 3]), None).as_json()
    assert (values["largest_class_drop"], values["largest_class_drop_at"]) == (1, 3)
    assert values["repair_succeeded"] is None


def test_nobody_to_attack_gives_counts_of_zero():
    made = measure(BACKDOORED, images([2, 2]), ATTACK)
    assert (made.success[0].count, made.success[0].value) == (0, None)
    assert json.dumps(made.as_json())


def test_labels_and_shapes_are_asked_for():
    with pytest.raises(NotHeld, match="labels"):
        measure(MENDED, TEST.without_labels())
    with pytest.raises(ParameterError, match="model wants"):
        measure(MENDED, Samples(images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1])))


def test_the_planted_backdoor_is_measured_as_planted(planted):
    badnet, twin = measure(planted.badnet, planted.clean, planted.attack), measure(planted.twin, planted.clean)
    assert badnet.worst_success.value > 0.9
    assert abs(badnet.accuracy.value - twin.accuracy.value) < 0.05
    assert twin.worst_success is None
