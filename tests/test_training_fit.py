"""The training loop: it learns, repeats, leaves the caller alone; augmentation on images made by hand."""

import copy

import pytest
import torch
from planted import untrained

import goodnet
from goodnet.core.classifier import predictions
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError, UnreadableModel
from goodnet.training import Augmentation, Recipe, accuracy, cross_entropy, fit


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
        Recipe(epochs=6, batch_size=20, optimizer=optimizer, learning_rate=rate),
        progress=lambda share, text: told.append((share, float(text.split("loss ")[1]))),
    )
    assert [share for share, _ in told] == pytest.approx([(place + 1) / 6 for place in range(6)])
    assert told[-1][1] < told[0][1]
    assert accuracy(model, digits) > accuracy(untrained(), digits) + 0.2
    assert not model.training


def test_training_leaves_the_callers_model_images_and_random_state_alone(digits):
    model = untrained().train()
    before, images, state = copy.deepcopy(model), digits.images.clone(), torch.get_rng_state()
    trained = fit(model, digits, Recipe(epochs=1, shift=1, flip=True))
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
        fit(model, few, Recipe(epochs=1, batch_size=20, shift=2, flip=True), seed=seed) for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not same(first, other)


def test_a_last_batch_of_one_image_does_not_break_batch_norm(digits):
    model = fit(untrained(architecture="small_cnn_bn"), digits.pick(torch.arange(21)), Recipe(epochs=1, batch_size=20))
    assert all(one.isfinite().all() for one in model.parameters())


def test_frozen_parameters_stay_as_they_are(digits):
    model = untrained()
    model.net.conv1.requires_grad_(False)
    trained = fit(model, digits, Recipe(epochs=1))
    assert torch.equal(trained.net.conv1[0].weight, model.net.conv1[0].weight)
    assert not torch.equal(trained.net.conv2[0].weight, model.net.conv2[0].weight)


def test_training_without_labels_or_with_an_unknown_optimizer_is_refused(digits):
    with pytest.raises(NotHeld, match="labels"):
        fit(untrained(), digits.without_labels())
    with pytest.raises(NotHeld, match="labels"):
        accuracy(untrained(), digits.without_labels())
    with pytest.raises(ParameterError, match="optimizer"):
        Recipe(optimizer="adamw")


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


# --- schedules, early stopping, checkpoints, the attacker's loss ---


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.01]),
        ("cosine", [1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, rates):
    recipe = Recipe(learning_rate=0.1, schedule=schedule)
    optimizer = recipe.build_optimizer(untrained())
    scheduler = recipe.build_schedule(optimizer, 4)
    seen = []
    for _ in rates:
        seen.append(optimizer.param_groups[0]["lr"] / 0.1)
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(rates)


def test_training_stops_early_and_gives_the_best_epoch_back(digits):
    told = []
    wild = Recipe(epochs=50, batch_size=20, learning_rate=0.01, optimizer="adam", validation=0.3, patience=2)
    model = fit(untrained(), digits, wild, progress=lambda share, _: told.append(share))
    assert len(told) < 50
    assert accuracy(model, digits) > 0.6


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_one_cycle_has_no_length_at_which_it_fails(digits, steps):
    fit(untrained(), digits.pick(torch.arange(2 * steps)), Recipe(epochs=1, batch_size=2))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_killed_run_goes_on_exactly_where_it_stopped(digits, tmp_path, optimizer):
    recipe = Recipe(epochs=4, batch_size=20, optimizer=optimizer, learning_rate=0.005, shift=1, validation=0.2)
    whole = fit(untrained(), digits, recipe, seed=3)

    def kill(share: float, _: str) -> None:
        if share == 0.5:
            raise Stopped

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(Stopped):
        fit(untrained(), digits, recipe, seed=3, checkpoint=checkpoint, progress=kill)
    assert checkpoint.exists()
    told = []
    resumed = fit(
        untrained(), digits, recipe, seed=3, checkpoint=checkpoint, progress=lambda share, _: told.append(share)
    )
    assert told == [0.75, 1.0]
    assert same(whole, resumed)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(digits, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"

    def kill(_: float, __: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        fit(untrained(), digits, Recipe(epochs=2), checkpoint=checkpoint, progress=kill)
    with pytest.raises(UnreadableModel, match="another run"):
        fit(untrained(), digits, Recipe(epochs=3), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(UnreadableModel, match="remove it"):
        fit(untrained(), digits, Recipe(epochs=2), checkpoint=checkpoint)


def test_an_attacker_who_controls_the_training_brings_his_own_loss(digits):
    def always_three(model, images, labels, generator):
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        return cross_entropy(model, images, torch.full_like(labels, 3), generator)

    model = fit(untrained(), digits, Recipe(epochs=3, batch_size=20, learning_rate=0.02), loss=always_three)
    assert (predictions(model, digits.images).argmax(1) == 3).all()
