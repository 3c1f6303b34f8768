"""The training loop: it learns, repeats, leaves the caller alone; augmentation on images made by hand."""

import copy

import pytest
import torch
from planted import untrained

import goodnet
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.training import Augmentation, accuracy, fit


@pytest.fixture(scope="module")
def digits() -> Samples:
    return goodnet.load_data("digits", limit=200)


def same(first, second) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.02), ("adam", 0.002), ("adadelta", 1.0)])
def test_the_loss_falls_and_accuracy_rises(digits, optimizer, rate):
    told = []
    model = fit(
        untrained(),
        digits,
        epochs=6,
        batch_size=20,
        optimizer=optimizer,
        learning_rate=rate,
        progress=lambda share, text: told.append((share, float(text.split("loss ")[1]))),
    )
    assert [share for share, _ in told] == pytest.approx([(place + 1) / 6 for place in range(6)])
    assert told[-1][1] < told[0][1]
    assert accuracy(model, digits) > accuracy(untrained(), digits) + 0.2
    assert not model.training


def test_training_leaves_the_callers_model_images_and_random_state_alone(digits):
    model = untrained().train()
    before, images, state = copy.deepcopy(model), digits.images.clone(), torch.get_rng_state()
    trained = fit(model, digits, epochs=1, augmentation=Augmentation(shift=1, flip=True))
    assert same(model, before)
    assert model.training
    assert all(one.grad is None for one in model.parameters())
    assert torch.equal(digits.images, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(trained, before)


@pytest.mark.parametrize("architecture", ["small_cnn", "small_cnn_bn"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits, architecture):
    model = untrained(architecture=architecture)
    few = digits.pick(torch.arange(60))
    first, again, other = (
        fit(model, few, epochs=1, batch_size=20, augmentation=Augmentation(shift=2, flip=True), seed=seed)
        for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not same(first, other)


def test_a_last_batch_of_one_image_does_not_break_batch_norm(digits):
    model = fit(untrained(architecture="small_cnn_bn"), digits.pick(torch.arange(21)), epochs=1, batch_size=20)
    assert all(one.isfinite().all() for one in model.parameters())


def test_frozen_parameters_stay_as_they_are(digits):
    model = untrained()
    model.net.conv1.requires_grad_(False)
    trained = fit(model, digits, epochs=1)
    assert torch.equal(trained.net.conv1[0].weight, model.net.conv1[0].weight)
    assert not torch.equal(trained.net.conv2[0].weight, model.net.conv2[0].weight)


def test_training_without_labels_or_with_an_unknown_optimizer_is_refused(digits):
    with pytest.raises(NotHeld, match="labels"):
        fit(untrained(), digits.without_labels(), epochs=1)
    with pytest.raises(NotHeld, match="labels"):
        accuracy(untrained(), digits.without_labels())
    with pytest.raises(ParameterError, match="optimizer"):
        fit(untrained(), digits, epochs=1, optimizer="adamw")


# --- augmentation ---


def pixels() -> torch.Tensor:
    """64 equal images of 2 channels, 3 x 4, all pixels different."""
    return torch.arange(24.0).view(1, 2, 3, 4).repeat(64, 1, 1, 1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_no_augmentation_changes_nothing():
    assert torch.equal(Augmentation()(pixels(), generator()), pixels())


def test_flipping_mirrors_about_half_of_the_images_from_left_to_right():
    made = Augmentation(flip=True)(pixels(), generator())
    mirrored = (made == pixels().flip(3)).flatten(1).all(1)
    assert (mirrored | (made == pixels()).flatten(1).all(1)).all()
    assert 16 < int(mirrored.sum()) < 48


def test_shifting_moves_whole_images_by_every_offset_and_repeats_the_edge():
    made = Augmentation(shift=1)(pixels(), generator())
    original, seen = pixels()[0], set()
    rows, columns = torch.arange(3), torch.arange(4)
    for image in made:
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = original[:, (rows + down).clamp(0, 2)][:, :, (columns + right).clamp(0, 3)]
                if torch.equal(image, moved):
                    seen.add((down, right))
                    break
            else:
                continue
            break
        else:
            pytest.fail(f"not a shifted image: {image}")
    assert len(seen) == 9
    assert made.shape == pixels().shape
