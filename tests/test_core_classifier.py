"""Classifier: its layers in the order of execution, its head and features, and predictions."""

import pytest
import torch
from planted import untrained
from torch import nn

from goodnet.core.classifier import Classifier, Preprocessing, predictions


class Backwards(nn.Module):
    """Its layers are defined in another order than they run in; ``twice`` runs twice, ``never`` never."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.never = nn.Linear(4, 3)
        self.second = nn.Conv2d(1, 1, 1)
        self.twice = nn.ReLU()
        self.first = nn.Conv2d(1, 1, 1)

    def forward(self, images):
        return self.head(self.twice(self.second(self.twice(self.first(images)))).flatten(1))


def backwards() -> Classifier:
    return Classifier(Backwards(), input_shape=(1, 2, 2), num_classes=3)


def test_layers_come_in_the_order_in_which_they_first_run():
    assert [name for name, _ in backwards().layers()] == ["first", "twice", "second", "head"]


@pytest.mark.parametrize("training", [True, False])
def test_looking_at_the_layers_leaves_mode_and_hooks_alone(training):
    model = backwards().train(training)
    model.layers()
    assert model.training is training
    assert all(not module._forward_hooks for module in model.modules())


def test_hooks_are_gone_and_the_mode_is_back_when_the_network_fails():
    model = Classifier(Backwards(), input_shape=(1, 9, 9), num_classes=3).train()
    with pytest.raises(RuntimeError):
        model.layers()
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())


def test_the_last_convolution_and_the_head_are_those_that_run_last():
    model = backwards()
    assert model.last_convolution() == ("second", model.net.second)
    assert model.head() is model.net.head


def test_a_network_whose_last_linear_layer_does_not_give_the_logits_has_no_head():
    model = Classifier(Backwards(), input_shape=(1, 2, 2), num_classes=4)
    assert model.head() is None
    with pytest.raises(ValueError, match="linear"):
        model.features_and_logits(torch.zeros(1, 1, 2, 2))


def test_features_are_what_the_head_turns_into_logits():
    model = untrained()
    images = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    features, logits = model.features_and_logits(images)
    assert features.shape == (5, 512)
    torch.testing.assert_close(model.head()(features), logits)
    torch.testing.assert_close(logits, model(images))
    assert not model.head()._forward_pre_hooks


def test_preprocessing_is_part_of_the_classifier():
    images = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    plain = backwards()
    scaled = Classifier(plain.net, input_shape=(1, 2, 2), num_classes=3, preprocessing=Preprocessing(scale=255))
    torch.testing.assert_close(scaled(images), plain.net(images * 255))


def test_predictions_on_a_cpu_come_in_batches_that_fit_its_cache():
    model, sizes = untrained(), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    predictions(model, torch.zeros(150, 1, 32, 32, dtype=torch.uint8))
    assert sizes == [64, 64, 22]


@pytest.mark.parametrize("architecture", ["small_cnn", "small_cnn_bn"])
def test_predictions_do_not_depend_on_batches_and_leave_the_mode_alone(architecture):
    model = untrained(architecture=architecture).train()
    images = torch.randint(256, (9, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = predictions(model, images)
    torch.testing.assert_close(predictions(model, images, batch_size=2), whole)
    torch.testing.assert_close(predictions(model, images.float() / 255), whole)
    assert model.training
    assert not whole.requires_grad
