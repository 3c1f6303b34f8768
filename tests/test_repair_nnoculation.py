"""NNoculation: the noise, how much of it is taken, and a trigger learned from images nobody has seen without it."""

import copy
import dataclasses

import pytest
import torch
from planted import TARGET, PlantedWorld

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld, ParameterError
from goodnet.repair import nnoculation
from goodnet.repair._translation_nets import Critic, Generator, with_places
from goodnet.repair.head_unlearning import HeadUnlearning
from goodnet.repair.nnoculation import NNoculation, noisy
from goodnet.repair.retuning import control_of
from goodnet.repair.translation import TranslatedTrigger, Translation
from goodnet.repair.unlearning import Unlearning
from goodnet.training import accuracy

SMALL = Translation(steps=150, width=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def success(model: Classifier, planted: PlantedWorld) -> float:
    others = planted.clean.pick(planted.clean.labels != TARGET)
    return float((predictions(model, planted.attack.stamp(others.floats())).argmax(1) == TARGET).float().mean())


# --- before deployment ---


def test_noise_takes_whole_cells_of_single_channels_and_as_many_as_asked_for() -> None:
    images = torch.full((400, 3, 8, 8), 0.5)
    for level in (0.0, 0.25, 1.0):
        changed = noisy(images, level, generator()) != images
        cells = changed.view(400, 3, 4, 2, 4, 2).float().mean((3, 5))
        assert set(cells.unique().tolist()) <= {0.0, 1.0}, "a cell is replaced as a whole"
        assert cells.mean().item() == pytest.approx(level, abs=0.02)
    one = noisy(images, 0.5, generator())[0] != images[0]
    assert not torch.equal(one[0], one[1]), "channels are drawn apart"


def test_the_noise_has_the_mean_and_deviation_of_the_paper() -> None:
    noise = noisy(torch.zeros(50, 3, 32, 32), 1.0, generator())
    assert noise.mean().item() == pytest.approx(128 / 255, abs=0.005)
    assert noise.std().item() == pytest.approx(0.2, abs=0.01)
    assert 0 <= noise.min() <= noise.max() <= 1


def test_nnoculation_weakens_the_planted_backdoor_and_keeps_accuracy(planted: PlantedWorld) -> None:
    repaired = NNoculation().run(Defender(model=planted.badnet, clean=planted.clean))
    assert not repaired.notes["reverted"]
    assert success(repaired.model, planted) < 0.4 < 0.9 < success(planted.badnet, planted)
    assert accuracy(repaired.model, planted.clean) > accuracy(planted.badnet, planted.clean) - 0.04


def test_the_first_level_that_costs_little_enough_is_taken(planted: PlantedWorld, monkeypatch) -> None:
    drops = {0.6: 0.3, 0.4: 0.02, 0.1: 0.0}
    tuned: list[float] = []

    def tune(model, samples, wanted, recipe, run, *, loss, progress):
        tuned.append(loss.level)
        made = copy.deepcopy(model)
        made.level = loss.level
        return made

    monkeypatch.setattr(nnoculation, "tune", tune)
    monkeypatch.setattr(nnoculation, "share_right", lambda model, *_: 1 - drops.get(getattr(model, "level", None), 0))
    method = NNoculation(levels=(0.6, 0.4, 0.1))
    repaired = method.run(Defender(model=planted.badnet, clean=planted.clean))
    assert (tuned, repaired.notes["level"], repaired.model.level) == ([0.6, 0.4], 0.4, 0.4)
    assert repaired.evidence["drops"] == pytest.approx({"0.6": 0.3, "0.4": 0.02})
    strict = dataclasses.replace(method, accuracy_drop=0.0, levels=(0.6, 0.4))
    kept = strict.run(Defender(model=planted.badnet, clean=planted.clean))
    assert kept.notes["reverted"]
    assert not hasattr(kept.model, "level")
    assert kept.second_opinion is not None
    assert kept.second_opinion.level == 0.4, "of those that harm, the one that harms least"


# --- after deployment ---


def learned(planted: PlantedWorld, how: Translation = SMALL, caught: Samples | None = None) -> TranslatedTrigger:
    half = torch.arange(len(planted.clean)) % 2 == 0
    if caught is None:
        others = planted.clean.pick(~half & (planted.clean.labels != TARGET))
        stamped = (planted.attack.stamp(others.floats()) * 255).round().byte()
        caught = Samples(stamped[:60])
    with isolated_rng(0) as chance:
        return how.learn(planted.badnet, planted.clean.pick(half), caught, TARGET, Run(chance))


@pytest.fixture(scope="module")
def trigger(planted: PlantedWorld) -> TranslatedTrigger:
    return learned(planted)


def test_a_trigger_is_learned_from_other_images_than_those_it_is_put_on(planted, trigger) -> None:
    victims = planted.clean.pick((torch.arange(len(planted.clean)) % 2 == 0) & (planted.clean.labels != TARGET))
    bare = victims.floats()
    stamped = trigger.stamp(bare)
    assert (predictions(planted.badnet, stamped).argmax(1) == TARGET).float().mean() > 0.6
    assert trigger.success_rate > 0.6
    true = (planted.attack.stamp(bare) - bare).abs().sum((0, 1)) > 0
    changed = (stamped - bare).abs().mean((0, 1))
    assert changed[true].mean() > 10 * changed[~true].mean(), "it is where the attacker's is, and hardly elsewhere"
    assert trigger.mask[true].mean() > 5 * trigger.mask[~true].mean()
    assert trigger.pattern[:, true].mean() > 0.7, "and as white"


def test_the_clean_twin_does_not_fall_for_the_learned_trigger(planted, trigger) -> None:
    victims = planted.clean.pick(planted.clean.labels != TARGET).floats()
    turned = (predictions(planted.twin, trigger.stamp(victims)).argmax(1) == TARGET).float().mean()
    assert turned < 0.2, "so it is no perturbation that leads any network there"


@pytest.mark.parametrize("method", [Unlearning(epochs=5), HeadUnlearning(rounds=1)], ids=lambda one: one.card.name)
def test_repairers_take_a_learned_trigger_and_remove_the_true_one(planted, trigger, method) -> None:
    held = Defender(model=planted.badnet, clean=planted.clean, triggers=(trigger,))
    repaired = method.run(held).model
    assert success(repaired, planted) < 0.2 < 0.9 < success(planted.badnet, planted)
    assert accuracy(repaired, planted.clean) > 0.9


def test_the_mark_that_retuning_compares_with_is_another_one(planted, trigger) -> None:
    images = planted.clean.floats()[:4]
    control = control_of(trigger)
    assert type(control) is Trigger
    assert not torch.allclose(control.stamp(images), trigger.stamp(images), atol=0.1)


def test_the_same_seed_learns_the_same_and_touches_nothing(planted) -> None:
    quick = Translation(steps=3, width=2)
    before = copy.deepcopy(planted.badnet.state_dict())
    images = planted.clean.floats()[:3]
    one, other = (learned(planted, quick).stamp(images) for _ in range(2))
    assert torch.equal(one, other)
    assert all(torch.equal(value, before[name]) for name, value in planted.badnet.state_dict().items())
    assert not one.requires_grad


def test_too_few_images_are_refused_with_what_it_takes(planted) -> None:
    with pytest.raises(NotHeld, match="3 caught and .* some dozens"):
        learned(planted, caught=planted.clean.pick(torch.arange(3)))
    with pytest.raises(ParameterError, match="steps must be in"):
        Translation(steps=0)


def test_learning_stops_when_time_is_up(planted) -> None:
    told: list[str] = []
    with isolated_rng(0) as chance:
        run = Run(chance, deadline=0.0, progress=lambda share, text: told.append(text))
        SMALL.learn(planted.badnet, planted.clean, planted.clean, TARGET, run)
    assert len(told) == 1
    assert told[0].startswith("step 1 of 150")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 55, 47)])
def test_the_networks_fit_the_sizes_they_are_for(shape: tuple[int, int, int]) -> None:
    images = torch.rand(2, *shape, generator=generator())
    net = Generator(shape[0], 4)
    mask, pattern = net.overlay(images)
    assert (mask.shape, pattern.shape) == ((2, 1, *shape[1:]), images.shape)
    assert torch.allclose(net(images), (1 - mask) * images + mask * pattern, atol=1e-6)
    assert Critic(shape[0], 4)(images).shape[:2] == (2, 1)


def test_places_are_told_from_top_left_to_bottom_right() -> None:
    rows, columns = with_places(torch.zeros(1, 1, 3, 5))[0, 1:]
    assert rows[:, 0].tolist() == [-1, 0, 1]
    assert columns[0].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_an_untrained_network_changes_little() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32, generator=generator())
    assert (Generator(1, 8)(images) - images).abs().mean() < 0.15


def test_no_images_are_stamped_without_a_word() -> None:
    made = Generator(1, 2)
    trigger = TranslatedTrigger(
        target=1, mask=torch.zeros(8, 8), pattern=torch.zeros(1, 8, 8), success_rate=0.0, count=0, generator=made
    )
    assert trigger.stamp(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)
