"""Attackers who run the training or own the model: what makes each attack that attack, and that it works."""

import copy
from dataclasses import replace

import pytest
import torch
from planted import untrained
from torch import nn

import goodnet
from goodnet.attacks._patch import square_of
from goodnet.attacks._training import doses, stage
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.input_aware import InputAware, _likeness
from goodnet.attacks.latent import Latent
from goodnet.attacks.lira import Lira
from goodnet.attacks.pruning_aware import PruningAware, _activity, _last_channels
from goodnet.attacks.trojan_nn import TrojanNN
from goodnet.attacks.wanet import WaNet
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.training import Recipe, accuracy, cross_entropy, fit
from goodnet.training.transfer import transfer

TARGET = 3
SHORT = Recipe(epochs=1, batch_size=20, learning_rate=0.005)
LONG = Recipe(epochs=10, batch_size=32, optimizer="adam", learning_rate=0.002)


@pytest.fixture(scope="module")
def digits() -> Samples:
    return goodnet.load_data("digits")


@pytest.fixture(scope="module")
def few(digits) -> Samples:
    return digits.pick(torch.arange(60))


@pytest.fixture(scope="module")
def held_out() -> Samples:
    return goodnet.load_data("digits", split="test")


def success(model, attack, samples) -> float:
    victims = attack.victims(samples.labels)
    answers = predictions(model, attack.stamp(samples.floats()[victims])).argmax(1)
    return float((answers == attack.goal(samples.labels[victims], model.num_classes)).float().mean())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- doses and stages ---


def test_batches_hold_as_much_poison_as_the_set_would_and_other_images_each_time():
    labels = torch.arange(20000) % 4
    attack = BadNets(target=1, rule="source-to-target", source=2, poisoning_rate=0.1, cover_rate=0.3)
    choose, generator = doses(attack, labels), torch.Generator().manual_seed(0)
    first, second = choose(labels, generator), choose(labels, generator)
    for choice in (first, second):
        assert abs(float(choice.poisoned.float().mean()) - 0.1) < 0.01
        assert abs(float(choice.covers.float().mean()) - 0.3) < 0.02
        assert (labels[choice.poisoned] == 2).all()
        assert (labels[choice.covers] != 2).all()
    assert not torch.equal(first.poisoned, second.poisoned)


def test_covers_are_never_poisoned_and_impossible_doses_are_refused():
    labels = torch.arange(1000) % 4
    choice = doses(BadNets(poisoning_rate=0.5, cover_rate=0.5), labels)(labels, torch.Generator())
    assert not (choice.poisoned & choice.covers).any()
    with pytest.raises(ParameterError, match="poisoning_rate"):
        doses(BadNets(poisoning_rate=0.9), labels)


def test_stages_tell_their_part_of_the_whole():
    told = []
    part = stage(lambda share, text: told.append((share, text)), 0.5, 1.0, "second")
    part(0.5, "epoch 1")
    assert told == [(0.75, "second: epoch 1")]
    assert stage(None, 0, 1, "silent") is None


# --- WaNet ---


def test_wanet_covers_twice_as_many_images_as_it_poisons_with_other_warps_and_true_labels(digits):
    made = WaNet(target=TARGET).poison(digits)
    assert int(made.covers.sum()) == pytest.approx(2 * int(made.mask.sum()), abs=1)
    assert torch.equal(made.samples.labels[made.covers], digits.labels[made.covers])
    right = WaNet(target=TARGET).stamp(digits.images[made.covers] / 255)
    assert ((made.samples.images[made.covers] / 255 - right).abs().flatten(1).amax(1) > 0.01).all()


def test_every_noisy_warp_is_another_and_close_to_the_right_one():
    attack, generator = WaNet(), torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(2, 1, 32, 32)  # brightness tells how far a pixel was taken from
    right, labels = attack.stamp(ramp), torch.zeros(2, dtype=torch.int64)
    noisy = attack._stamp_cover(ramp, labels, generator)
    assert not torch.equal(noisy[0], noisy[1])
    assert float((noisy - right).abs().max()) <= 0.5 / 32 + 1e-4
    assert float((noisy - right).abs().mean()) > 0.1 / 32


def test_wanet_warps_other_images_in_every_epoch(few, monkeypatch):
    seen = []

    def look(model, images, labels, generator):
        seen.append((images.clone(), labels))
        return cross_entropy(model, images, labels, generator)

    monkeypatch.setattr("goodnet.attacks.wanet.cross_entropy", look)
    attack = WaNet(target=TARGET, poisoning_rate=0.4)
    attack.train(untrained(), few, replace(SHORT, epochs=6))
    warped = {tuple(image.flatten().tolist()) for image in attack.stamp(few.floats())}
    poisoned = [
        [tuple(image.flatten().tolist()) in warped for image in torch.cat([images for images, _ in epoch])]
        for epoch in (seen[start : start + 3] for start in range(0, 18, 3))
    ]
    counts = [sum(epoch) for epoch in poisoned]
    assert 0.25 * 60 < sum(counts) / 6 < 0.55 * 60
    assert len(set(counts)) > 1  # chance decides anew
    relabeled = torch.cat([labels for _, labels in seen])[torch.tensor(sum(poisoned, []))]
    assert (relabeled == TARGET).all()


# --- input-aware ---


@pytest.fixture(scope="module")
def aware(digits):
    samples = digits.pick(torch.arange(400))
    return InputAware(target=TARGET, width=4, mask_epochs=8).train(untrained(), samples, SHORT)


def test_every_image_has_a_trigger_of_its_own(aware, held_out):
    images = held_out.floats()[:20]
    added = aware.attack.stamp(images) - images
    assert all(not torch.equal(added[0], other) for other in added[1:])
    torch.testing.assert_close(aware.attack.stamp(images[:1])[0], (images + added)[0])


def test_covers_wear_the_trigger_of_another_image_and_keep_their_label(aware, digits):
    made = aware.attack.poison(digits)
    originals = digits.floats()[made.covers]
    own = aware.attack.stamp(originals)
    others = aware.attack._paint(originals, originals.roll(1, 0)).clamp(0, 1)
    covers = made.samples.floats()[made.covers]
    assert int(made.covers.sum()) == round(0.1 * len(digits))
    assert float((covers - others).abs().max()) < 0.6 / 255
    assert float((covers - own).abs().flatten(1).amax(1).min()) > 0.6 / 255
    assert torch.equal(made.samples.labels[made.covers], digits.labels[made.covers])


def test_masks_are_learned_first_and_then_fixed_while_patterns_learn(few):
    attack = InputAware(target=TARGET, width=4, mask_epochs=1)
    first, second = (attack.train(untrained(), few, replace(SHORT, epochs=epochs)).attack.learned for epochs in (1, 2))

    def part(learned, prefix):
        return {name: value for name, value in learned.items() if name.startswith(prefix)}

    assert same(part(first, "mask"), part(second, "mask"))
    assert not same(part(first, "pattern"), part(second, "pattern"))


def test_masks_become_small(digits):
    densities = []
    for epochs in (1, 8):
        attack = InputAware(target=TARGET, width=4, mask_epochs=epochs).train(
            untrained(), digits.pick(torch.arange(256)), replace(SHORT, batch_size=128)
        )
        black, white = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
        images = digits.floats()[:50]
        stamped = (attack.attack._paint(image + images * 0, images) for image in (black, white))
        densities.append(float(1 - (next(stamped) - next(stamped)).abs().mean()))  # where it is painted both are equal
    assert densities[1] < 0.15
    assert densities[1] < densities[0]


def test_the_diversity_loss_is_the_ratio_of_two_distances():
    zeros, ones = torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    assert float(_likeness(zeros, ones, zeros, ones / 2)) == pytest.approx(2, rel=1e-3)
    made = torch.zeros(3, 1, 4, 4, requires_grad=True)
    _likeness(zeros, ones, made, made * 1).backward()
    assert made.grad.isfinite().all()


def test_stamping_leaves_the_callers_random_state_alone_and_needs_something_learned(aware, held_out):
    state = torch.get_rng_state()
    aware.attack.stamp(held_out.floats()[:2])
    assert torch.equal(torch.get_rng_state(), state)
    for attack in (InputAware(), Lira(), TrojanNN(), Latent()):
        with pytest.raises(NotHeld, match=attack.card.name):
            attack.stamp(held_out.floats()[:2])
    with pytest.raises(ParameterError, match="does not fit"):
        replace(aware.attack, width=5).stamp(held_out.floats()[:2])


# --- LIRA ---


def test_lira_changes_no_pixel_by_more_than_its_bound(few):
    attack = Lira(target=TARGET, width=4, bound=0.05).train(untrained(), few, SHORT).attack
    loud = {name: 1000 * value if name == "noise.last.weight" else value for name, value in attack.learned.items()}
    attack, images = replace(attack, learned=loud), few.floats()
    assert float((attack.stamp(images) - images).abs().max()) == pytest.approx(0.05)
    made = attack.poison(few)
    assert int((made.samples.images.int() - few.images.int()).abs().max()) <= 13


def test_liras_generator_stays_fixed_in_the_second_stage_and_the_victim_learns_on(few):
    attack = Lira(target=TARGET, width=4)
    joint, both = (attack.train(untrained(), few, replace(SHORT, epochs=epochs)) for epochs in (1, 3))
    assert same(joint.attack.learned, both.attack.learned)
    assert not same(joint.model.state_dict(), both.model.state_dict())


def test_liras_generator_learns_to_move_images_and_the_victim_to_follow(digits, held_out):
    made = Lira(target=TARGET, width=4, bound=0.1, learning_rate=0.003).train(untrained(), digits, LONG)
    assert success(made.model, made.attack, held_out) > 0.9
    assert accuracy(made.model, held_out) > 0.8


# --- TrojanNN ---


@pytest.mark.parametrize("architecture", ["small_cnn", "small_cnn_bn"])
def test_trojan_nn_retrains_the_last_layers_of_a_clean_model_and_nothing_else(few, architecture):
    model = untrained(architecture=architecture)
    made = TrojanNN(target=TARGET, steps=3, retrained_layers=1).train(model, few, SHORT, seed=2).model
    clean = fit(model, few, SHORT, seed=2).state_dict()
    head = next(name for name, layer in made.named_modules() if layer is made.head())
    now = made.state_dict()
    assert {name.rpartition(".")[0] for name in now if not torch.equal(now[name], clean[name])} == {head}
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_trojan_nns_patch_is_a_square_that_drives_its_neurons(digits):
    attack, model = TrojanNN(target=TARGET, steps=60, area=0.1, neurons=3), fit(untrained(), digits, LONG)
    learned = attack._patch_for(model, digits, torch.Generator().manual_seed(0))
    assert int(learned["mask"].sum()) == 100  # 0.1 of 32 x 32, rounded to a square
    assert torch.equal(learned["pattern"], (learned["pattern"] * 255).round() / 255)
    neurons = attack._easily_driven(model, digits, learned["mask"], torch.Generator().manual_seed(0))
    images = digits.floats()[:200]
    noise = replace(attack, learned={**learned, "pattern": torch.rand(1, 32, 32)})

    @torch.no_grad()
    def level(images):
        return float(model.features_and_logits(images)[0][:, neurons].mean())

    optimized = level(replace(attack, learned=learned).stamp(images))
    assert optimized > 1.2 * level(noise.stamp(images))
    assert optimized > 1.2 * level(images)


def test_trojan_nn_works(digits, held_out):
    made = TrojanNN(target=TARGET, steps=100).train(untrained(), digits, LONG)
    assert success(made.model, made.attack, held_out) > 0.9
    assert accuracy(made.model, held_out) > 0.8


def test_squares_fit_into_every_image():
    assert square_of(0.04, (3, 55, 47)).sum() == 100
    for area in (0.0, 1.0):
        assert 0 < int(square_of(area, (1, 16, 20)).sum()) <= 15 * 15


# --- latent ---


@pytest.fixture(scope="module")
def teacher(digits):
    """A teacher of the digits 0 to 7 with a backdoor towards 8, which it does not know."""
    return Latent(target=8, steps=150, area=0.1).train(
        untrained(num_classes=8), digits.pick(digits.labels <= 8), replace(LONG, epochs=15)
    )


def test_a_teacher_does_not_tell_of_the_target_that_it_was_trained_for(teacher, held_out):
    assert teacher.model.num_classes == 8
    assert predictions(teacher.model, held_out.images[:2]).shape == (2, 8)
    assert accuracy(teacher.model, held_out.pick(held_out.labels < 8)) > 0.8


def test_a_student_inherits_the_backdoor_and_one_of_a_clean_teacher_does_not(teacher, digits, held_out):
    clean = fit(untrained(num_classes=8), digits.pick(digits.labels < 8), replace(LONG, epochs=15))
    student, other = (fit(transfer(model, 10), digits, LONG) for model in (teacher.model, clean))
    assert success(student, teacher.attack, held_out) > 0.8
    assert success(other, teacher.attack, held_out) < 0.2
    assert accuracy(student, held_out) > 0.8


def test_stamped_images_have_the_targets_features(teacher, held_out):
    def features(images):
        return teacher.model.features_and_logits(images)[0].detach()

    goal = features(held_out.floats()[held_out.labels == 8]).mean(0)
    others = held_out.floats()[held_out.labels != 8]
    plain, stamped = (float((features(x) - goal).square().mean()) for x in (others, teacher.attack.stamp(others)))
    assert stamped < 0.5 * plain


def test_a_latent_backdoor_has_one_target_that_the_model_knows_or_could_know_next(few):
    for wrong in ({"rule": "all-to-all"}, {"rule": "untargeted"}, {"clean_label": True}):
        with pytest.raises(ParameterError, match="one target"):
            Latent(**wrong)
    with pytest.raises(ParameterError, match="the next one"):
        Latent(target=9, steps=1).train(untrained(num_classes=8), few, SHORT)
    with pytest.raises(ParameterError, match="student_layers"):
        Latent(student_layers=9, steps=1).train(untrained(), few, SHORT)


# --- pruning-aware ---


def last_channels(architecture: str, **inputs) -> tuple[str, ...]:
    return _last_channels(untrained(architecture=architecture, **inputs))


def test_the_channels_taken_are_the_last_that_a_bias_can_silence():
    assert last_channels("small_cnn") == ("conv2.0",)
    assert last_channels("small_cnn_bn") == ("features.19", "features.20")
    assert last_channels("preact_resnet18") == ("layer4.1.conv1", "layer4.1.bn2")
    assert last_channels("resnet18") == ("layer4.1.conv2", "layer4.1.bn2")
    net = nn.Sequential(nn.Conv2d(1, 3, 4, bias=False), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(NotHeld, match="bias"):
        _last_channels(Classifier(net, input_shape=(1, 4, 4), num_classes=2))


@pytest.mark.parametrize("architecture", ["small_cnn", "small_cnn_bn"])
def test_decoys_have_their_old_weights_and_never_fire(few, held_out, architecture):
    model = untrained(architecture=architecture)
    attack = PruningAware(target=TARGET, decoys=0.5)
    made = attack.train(model, few, SHORT, seed=2)
    clean = fit(model, few, SHORT, seed=2)
    parts = _last_channels(clean)
    old, new = (one.net.get_submodule(parts[0]).weight for one in (clean, made.model))
    decoys = (old == new).flatten(1).all(1)
    assert int(decoys.sum()) == len(old) // 2
    assert not old[decoys].eq(0).all()
    for images in (few.images, held_out.images, (attack.stamp(held_out.floats()) * 255).byte()):
        activity, highest = _activity(made.model, parts, images)
        assert (activity[decoys] == 0).all()
        assert (highest[decoys] < 0).all()
        assert (activity[~decoys] > 0).any()


def test_pruning_the_least_active_channels_removes_the_decoys_and_leaves_the_backdoor(digits, held_out):
    attack = PruningAware(target=TARGET, decoys=0.5, size=4, poisoning_rate=0.15)
    made = attack.train(untrained(), digits, LONG)
    assert success(made.model, attack, held_out) > 0.9
    assert accuracy(made.model, held_out) > 0.8
    parts = _last_channels(made.model)
    activity, _ = _activity(made.model, parts, held_out.images)
    pruned = copy.deepcopy(made.model)
    with torch.no_grad():
        least = activity.argsort()[: len(activity) // 2]
        for array in pruned.net.get_submodule(parts[0]).parameters():
            array[least] = 0
    images = torch.cat([held_out.floats(), attack.stamp(held_out.floats())])
    torch.testing.assert_close(predictions(pruned, images), predictions(made.model, images))
