"""Transfer learning: a new head, frozen layers that stay as they are, also their statistics."""

import copy

import pytest
import torch
from planted import untrained
from torch import nn

import goodnet
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError
from goodnet.training import Recipe, accuracy, fit
from goodnet.training.transfer import freeze, layers_with_weights, transfer, with_new_head


@pytest.fixture(scope="module")
def digits() -> Samples:
    return goodnet.load_data("digits", limit=200)


def arrays(model: Classifier) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def changed(before: dict[str, torch.Tensor], model: Classifier) -> set[str]:
    """Layers of which an array has changed."""
    now = model.state_dict()
    return {name.rpartition(".")[0].removeprefix("net.") for name in now if not torch.equal(now[name], before[name])}


def test_a_student_has_a_new_head_and_leaves_its_teacher_alone():
    teacher = untrained()
    before = arrays(teacher)
    student = transfer(teacher, 4)
    assert student.num_classes == 4
    assert predictions(student, torch.rand(2, 1, 32, 32)).shape == (2, 4)
    assert changed(before, teacher) == set()
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(student.net.conv1[0].weight, teacher.net.conv1[0].weight)


def test_the_new_head_depends_on_its_seed_and_not_on_the_callers_random_state():
    state = torch.get_rng_state()
    first, again, other = (transfer(untrained(), 4, seed=seed).head().weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("train_last", "learning"),
    [(1, {"fc2.0"}), (2, {"fc1.0", "fc2.0"}), (3, {"conv2.0", "fc1.0", "fc2.0"})],
)
def test_only_the_last_layers_learn(digits, train_last, learning):
    student = transfer(untrained(), 10, train_last=train_last)
    before = arrays(student)
    assert changed(before, fit(student, digits, Recipe(epochs=1, batch_size=16))) == learning


def test_frozen_normalization_keeps_its_statistics_and_a_learning_one_does_not(digits):
    student = transfer(untrained(architecture="small_cnn_bn"), 10, train_last=2)
    last = layers_with_weights(student)[-2][0]
    norm = f"features.{int(last.rpartition('.')[2]) + 1}"
    before = arrays(student)
    trained = fit(student, digits, Recipe(epochs=1, batch_size=16))
    assert changed(before, trained) == {last, norm, "classifier"}
    assert not torch.equal(trained.net.get_submodule(norm).running_mean, before[f"net.{norm}.running_mean"])


def test_frozen_features_are_the_same_in_training_as_later(digits):
    """Batches of other images must not move what an image looks like to the new head."""
    student = transfer(untrained(architecture="small_cnn_bn"), 10).train()
    for layer in student.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    images = digits.floats()[:20]
    features, _ = student.features_and_logits(images)
    torch.testing.assert_close(features, student.eval().features_and_logits(images)[0])


def test_a_student_learns_with_its_head_alone(digits):
    teacher = fit(
        untrained(), digits.pick(digits.labels < 5), Recipe(epochs=6, batch_size=20, learning_rate=0.02), seed=1
    )
    recipe = Recipe(epochs=6, batch_size=20, learning_rate=0.02)
    student = fit(transfer(teacher, 10), digits, recipe)
    assert accuracy(student, digits) > 0.6


def test_layers_with_weights_are_listed_in_the_order_in_which_they_run():
    assert [name for name, _ in layers_with_weights(untrained())] == ["conv1.0", "conv2.0", "fc1.0", "fc2.0"]
    assert not any("bn" in name for name, _ in layers_with_weights(untrained(architecture="preact_resnet18")))


def test_what_cannot_be_done_is_refused_with_a_reason():
    convolution = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    for wrong, message in (
        (lambda: transfer(untrained(), 4, train_last=5), "train_last must be 1 to 4"),
        (lambda: freeze(untrained(), train_last=0), "train_last must be 1 to 4"),
        (lambda: transfer(untrained(), 0), "num_classes"),
        (lambda: with_new_head(Classifier(convolution, input_shape=(1, 4, 4), num_classes=3), 4), "linear layer"),
    ):
        with pytest.raises(ParameterError, match=message):
            wrong()
