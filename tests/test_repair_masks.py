"""What makes each of these repairers the method that it says it is: CLP, ANP, RNP, unlearning, NC pruning, BCU."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from planted import TARGET, untrained
from torch import nn

import goodnet
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.models import architectures
from goodnet.repair._masks import answer, batch_norms, prune_what_is_closed
from goodnet.repair.anp import Anp
from goodnet.repair.bcu import Bcu
from goodnet.repair.clp import Clp, channel_bounds, convolutions_before_batchnorm
from goodnet.repair.rnp import Rnp
from goodnet.repair.unit_pruning import UnitPruning
from goodnet.repair.unlearning import Unlearning, stamp_share
from goodnet.training import Recipe, accuracy, fit
from goodnet.training.transfer import layers_with_weights

SHAPE = (1, 8, 8)


def new_run(seed: int = 0) -> Run:
    return Run(torch.Generator().manual_seed(seed))


def classifier(net: nn.Module, shape: tuple[int, int, int] = SHAPE) -> Classifier:
    return Classifier(net, input_shape=shape, num_classes=10).eval()


def small_net(*between: nn.Module, channels: int = 16) -> Classifier:
    """Convolution, ``between``, BatchNorm, head; the kernels of all channels have one size."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, channels, 3)
    with torch.no_grad():
        convolution.weight /= convolution.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        convolution.weight *= torch.linspace(0.9, 1.1, channels).view(-1, 1, 1, 1)
    return classifier(
        nn.Sequential(
            convolution, *between, nn.BatchNorm2d(channels), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 36, 10)
        )
    )


@pytest.fixture(scope="module")
def digits():
    """Two hundred digits that a defender holds, and others to measure on."""
    clean = goodnet.load_data("digits", split="test")
    return clean.pick(torch.arange(200)), clean.pick(torch.arange(200, len(clean)))


@pytest.fixture(scope="module")
def with_batchnorm():
    """A net with BatchNorm that reads digits."""
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.005, optimizer="adam")
    return fit(untrained(architecture="small_cnn_bn"), goodnet.load_data("digits"), recipe)


@pytest.fixture(scope="module")
def trigger(planted):
    """The attacker's own trigger, as an audit that is always right would find it."""
    grey = torch.full((1, 1, 32, 32), 0.5)
    pattern = planted.attack.stamp(grey)[0]
    return Trigger(target=TARGET, mask=(pattern != grey[0])[0].float(), pattern=pattern, success_rate=1.0, count=9)


def success(planted, model: Classifier, samples) -> float:
    stamped = planted.attack.stamp(samples.pick(samples.labels != TARGET).floats())
    return float((predictions(model, stamped).argmax(1) == TARGET).float().mean())


# --- unlearning ---


def test_unlearning_lowers_the_success_of_the_backdoor_and_keeps_accuracy(planted, digits, trigger):
    mine, others = digits
    for held in (mine, mine.without_labels()):
        defender = Defender(model=planted.badnet, clean=held, triggers=(trigger,))
        repaired = Unlearning(epochs=3).run(defender).model
        assert success(planted, planted.badnet, others) > 0.9
        assert success(planted, repaired, others) < 0.1
        assert accuracy(repaired, others) > accuracy(planted.badnet, others) - 0.04


def test_a_fifth_of_the_images_is_stamped_and_never_those_of_the_target(digits, trigger):
    images, labels = digits[0].floats()[:100], digits[0].labels[:100]
    stamped = stamp_share(images, labels, (trigger,), 0.2, torch.Generator().manual_seed(0))
    touched = (stamped != images).flatten(1).any(1)
    assert touched.sum() == 20
    assert TARGET not in labels[touched]
    assert torch.equal(stamped[touched], trigger.stamp(images[touched]))


def test_every_one_of_several_triggers_is_stamped_where_it_is_not_the_answer(digits, trigger):
    images, labels = digits[0].floats()[:100], digits[0].labels[:100]
    second = replace(trigger, target=5, mask=trigger.mask.flip(0), pattern=1 - trigger.pattern.flip(1))
    stamped = stamp_share(images, labels, (trigger, second), 1.0, torch.Generator().manual_seed(0))
    for one in (trigger, second):
        carries = (stamped == one.stamp(images)).flatten(1).all(1)
        assert carries.sum() > 30
        assert one.target not in labels[carries & (images != one.stamp(images)).flatten(1).any(1)]


def test_stamped_images_keep_the_answer_that_they_have_without_the_trigger(digits, trigger, monkeypatch):
    """What is minimized pairs every image, stamped or not, with its own label."""
    held, seen = digits[0], []
    monkeypatch.setattr(
        "goodnet.repair.unlearning.F.cross_entropy",
        lambda logits, wanted: seen.append((logits.detach(), wanted)) or logits.sum() * 0,
    )
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 32 * 32, bias=False)), (1, 32, 32))
    nn.init.eye_(model.net[1].weight)  # answers with the image itself
    still = Unlearning(learning_rate=0.0, shift=0, share=1.0)
    still.run(Defender(model=model, clean=held, triggers=(trigger,)))
    images, wanted = torch.cat([one for one, _ in seen]), torch.cat([one for _, one in seen]).tolist()
    label_of = {as_key(image): label for image, label in all_stamped(held, trigger)}
    assert len(images) == len(held)
    assert [label_of[as_key(image)] for image in images] == wanted


def as_key(image) -> bytes:
    return bytes(image.mul(255).round().byte().numpy())


def all_stamped(held, trigger):
    """Every image of ``held`` as it must be shown when all are stamped that may be, with its label."""
    images = held.floats()
    shown = torch.where((held.labels == TARGET).view(-1, 1, 1, 1), images, trigger.stamp(images))
    return zip(shown, held.labels.tolist(), strict=True)


# --- BCU ---


def test_bcu_keeps_accuracy_on_unlabeled_images_and_weakens_the_backdoor(planted, digits):
    mine, others = digits
    stronger = Bcu(epochs=30, deepest=0.5, head=0.3)
    repaired = stronger.run(Defender(model=planted.badnet, clean=mine.without_labels())).model
    assert accuracy(repaired, others) > accuracy(planted.badnet, others) - 0.03
    assert success(planted, repaired, others) < success(planted, planted.badnet, others) - 0.2


def test_bcu_draws_more_anew_in_deeper_layers_and_keeps_batchnorm():
    before = untrained(architecture="preact_resnet18")
    after, method = copy.deepcopy(before), Bcu()
    method._redraw(after, torch.Generator().manual_seed(0))
    shares = [
        float((one.weight != other.weight).float().mean())
        for (_, one), (_, other) in zip(layers_with_weights(before), layers_with_weights(after), strict=True)
    ]
    wanted = [share for _, share in method._shares(before)]
    assert wanted[0] == pytest.approx(0.01)
    assert wanted[-2:] == pytest.approx([0.27, 0.1])
    assert wanted[:-1] == sorted(wanted[:-1])
    assert shares[-2:] == pytest.approx(wanted[-2:], abs=0.05)
    for name, norm in batch_norms(before).items():
        assert torch.equal(norm.weight, batch_norms(after)[name].weight)


def test_bcu_asks_for_the_suspects_answers_at_a_rising_temperature():
    torch.manual_seed(0)
    suspect = classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    student, images = copy.deepcopy(suspect), torch.rand(4, *SHAPE)
    with torch.no_grad():
        student.net[1].weight += 0.1 * torch.randn(10, 64)
    loss = Bcu(temperature=4.0)._distillation(suspect, steps=3)
    with torch.no_grad():
        got = [float(loss(student, images, torch.zeros(4), torch.Generator())) for _ in range(3)]
        p, q = suspect(images), student(images)
    for value, temperature in zip(got, (2.0, 3.0, 4.0), strict=True):
        target = (p / temperature).softmax(1)
        wanted = (target * (target.log() - (q / temperature).log_softmax(1))).sum(1).mean()
        assert value == pytest.approx(float(wanted), rel=1e-4)


def test_bcu_can_keep_the_statistics_of_batchnorm(with_batchnorm, digits):
    held = digits[0].pick(torch.arange(40)).without_labels()
    for keep in (True, False):
        repaired = Bcu(epochs=1, keep_statistics=keep).run(Defender(model=with_batchnorm, clean=held)).model
        means = [[norm.running_mean for norm in batch_norms(one).values()] for one in (with_batchnorm, repaired)]
        assert all(torch.equal(one, other) for one, other in zip(*means, strict=True)) is keep


# --- CLP ---


def test_clp_prunes_exactly_the_channel_whose_kernel_was_scaled():
    model = small_net()
    with torch.no_grad():
        model.net[0].weight[5] *= 10
        model.net[1].bias.fill_(0.5)
    repaired = Clp().run(Defender(model=model))
    kept = torch.arange(16) != 5
    assert repaired.evidence["pruned"] == {"1": [5]}
    for one in (repaired.model.net[1].weight, repaired.model.net[1].bias):
        assert torch.equal(one != 0, kept)


def test_the_bound_is_the_largest_singular_value_behind_batchnorm():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1)
    norm.running_var.copy_(torch.tensor([0.25, 1.0, 4.0, 0.0]))
    norm.weight.data.copy_(torch.tensor([1.0, -2.0, 3.0, 1.0]))
    singular = [float(torch.linalg.svdvals(kernel.flatten(1))[0]) for kernel in convolution.weight.detach()]
    wanted = [singular[0] * 2, singular[1] * 2, singular[2] * 1.5, 0.0]
    assert channel_bounds(convolution, norm).tolist() == pytest.approx(wanted, rel=1e-5)


def test_clp_pairs_by_what_flows_and_not_by_what_is_written_first():
    net = architectures.build("preact_resnet18", num_classes=10, input_shape=(3, 32, 32), width=4)
    model = classifier(net, (3, 32, 32))
    names = {layer: name for name, layer in model.layers()}
    pairs = {bn: names[convolution] for bn, convolution, _ in convolutions_before_batchnorm(model)}
    blocks = [f"layer{group}.{block}" for group in range(1, 5) for block in range(2)]
    # in every block the first convolution alone goes straight into a BatchNorm; what enters a later block is a sum
    assert pairs == {"layer1.0.bn1": "conv1"} | {f"{block}.bn2": f"{block}.conv1" for block in blocks}


@pytest.mark.parametrize("between", [nn.ReLU(), nn.ReLU(inplace=True), nn.AvgPool2d(1)])
def test_clp_refuses_nets_where_nothing_goes_straight_into_batchnorm(between):
    with pytest.raises(NotApplicable, match="BatchNorm"):
        Clp().run(Defender(model=small_net(between)))
    assert len(convolutions_before_batchnorm(small_net(nn.Identity()))) == 1


# --- ANP ---


def masks_of(model, digits, **changes):
    method = Anp(**{"iterations": 5, "batch_size": 32, **changes})
    with isolated_rng(0):  # dropout draws from the global generator
        return torch.cat(list(method.learn_masks(model, digits[0], digits[0].labels, new_run()).values()))


def test_alpha_weights_the_loss_without_noise(with_batchnorm, digits):
    """With all weight on the clean loss the noise does not matter; with none it does."""
    noises = (0.0, 0.4)
    clean = [masks_of(with_batchnorm, digits, clean_weight=1.0, noise=noise) for noise in noises]
    noisy = [masks_of(with_batchnorm, digits, clean_weight=0.0, noise=noise) for noise in noises]
    assert torch.allclose(*clean, atol=1e-3)
    assert not torch.allclose(*noisy, atol=1e-2)


def test_masks_stay_between_0_and_1_and_some_close(with_batchnorm, digits):
    masks = masks_of(with_batchnorm, digits, iterations=20, learning_rate=1.0)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert (masks < 0.5).any()


def test_noise_climbs_the_loss_from_its_random_start_and_stays_within_its_bound(with_batchnorm, digits):
    images, labels = digits[0].floats()[:64], digits[0].labels[:64]
    model = copy.deepcopy(with_batchnorm).requires_grad_(False)
    masks = {name: torch.ones_like(norm.weight) for name, norm in batch_norms(model).items()}

    def loss_with(noise) -> float:
        return float(nn.functional.cross_entropy(answer(model, masks, images, *noise), labels))

    bound = 0.4
    worst = Anp(noise=bound)._worst_noise(model, masks, images, labels, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    start = [
        {name: (torch.rand(mask.shape, generator=generator) * 2 - 1) * bound for name, mask in masks.items()}
        for _ in range(2)
    ]
    assert loss_with(worst) > loss_with(start) + 0.5
    assert max(float(one.abs().max()) for kind in worst for one in kind.values()) <= bound + 1e-6


def test_noise_and_masks_multiply_weights_and_biases_of_batchnorm(with_batchnorm, digits):
    images, scaled = digits[0].floats()[:8], copy.deepcopy(with_batchnorm)
    names = {name: torch.full_like(norm.weight, 0.25) for name, norm in batch_norms(scaled).items()}
    with torch.no_grad():
        for norm in batch_norms(scaled).values():
            norm.weight *= 0.5 + 0.25
            norm.bias *= 1 + 0.25
        masks = {name: torch.full_like(one, 0.5) for name, one in names.items()}
        assert torch.allclose(answer(with_batchnorm, masks, images, names, names), scaled(images), atol=1e-4)


def test_the_threshold_is_the_highest_that_held_out_images_allow():
    """Channel 0 carries the answer. Its mask is 0.62, so that 0.6 is the highest threshold that may be taken."""
    model = small_net(channels=4)
    labels = torch.tensor([0, 1] * 20)
    images = torch.zeros(40, *SHAPE, dtype=torch.uint8)
    images[labels == 1] = 255
    with torch.no_grad():
        for one in (model.net[0].bias, model.net[1].bias, model.net[4].weight, model.net[4].bias):
            one.zero_()
        model.net[0].weight.fill_(0.1)
        model.net[4].weight[1, :36] = 1  # a bright image means label 1, seen through channel 0 alone
        model.net[4].bias[0] = 1
    norm = model.net[1]
    norm.bias.data.fill_(0.01)
    held_out = Samples(images, labels=labels)
    masks = {"net.1": torch.tensor([0.62, 0.0, 0.3, 0.9])}
    fixed = prune_what_is_closed(model, masks, held_out, labels, tolerance=0.02)
    assert fixed.evidence["threshold"] == pytest.approx(0.6)
    assert fixed.evidence["pruned"] == {"net.1": [1, 2]}
    assert (fixed.model.net[1].weight != 0).tolist() == [True, False, False, True]
    assert norm.bias.tolist() == pytest.approx([0.01] * 4)  # only the weight is pruned
    assert fixed.notes["held_out_accuracy_after"] == 1.0


def test_nothing_is_pruned_where_every_threshold_costs_too_much(with_batchnorm, digits):
    masks = {name: torch.zeros_like(norm.weight) for name, norm in batch_norms(with_batchnorm).items()}
    model = copy.deepcopy(with_batchnorm)
    fixed = prune_what_is_closed(model, masks, digits[1], digits[1].labels, tolerance=0.02)
    assert fixed.evidence["threshold"] is None
    assert torch.equal(predictions(fixed.model, digits[1].images), predictions(with_batchnorm, digits[1].images))


@pytest.mark.parametrize("method", [Anp(iterations=1), Rnp()])
def test_masks_need_batchnorm(method, planted):
    with pytest.raises(NotApplicable, match="BatchNorm"):
        method.run(Defender(model=planted.badnet, clean=planted.clean))


# --- RNP ---


def test_rnp_prunes_the_suspect_and_not_its_unlearned_copy(with_batchnorm, digits):
    method = Rnp(unlearning_epochs=2, recovering_epochs=2, tolerance=1.0)
    repaired = method.run(Defender(model=with_batchnorm, clean=digits[0]))
    pruned = repaired.evidence["pruned"]
    assert pruned
    for name, value in repaired.model.state_dict().items():
        original = with_batchnorm.state_dict()[name].clone()
        if name.removesuffix(".weight") in pruned:
            original[pruned[name.removesuffix(".weight")]] = 0
        assert torch.equal(value, original), name


def test_rnp_unlearns_clean_images_and_stops_there(with_batchnorm, digits):
    told: list[str] = []
    run = new_run()
    run.progress = lambda share, text: told.append(text)
    copied = Rnp(batch_size=32).unlearn(with_batchnorm, digits[0], digits[0].labels, run)
    assert accuracy(with_batchnorm, digits[0]) > 0.9
    assert accuracy(copied, digits[0]) < 0.5
    shares = [float(text.split()[-1]) for text in told]
    assert shares[-1] <= 0.2 < min(shares[:-1])


def test_rnp_clips_the_gradient_that_it_steps_along(with_batchnorm, digits):
    """One step from rest moves by at most rate * (clipped norm + decay); without clipping it is further."""
    held = digits[0].pick(torch.arange(64))

    def moved(norm: float) -> float:
        method = Rnp(unlearning_epochs=1, batch_size=64, clip_norm=norm, unlearning_rate=1.0)
        after = method.unlearn(with_batchnorm, held, held.labels, new_run())
        steps = [one - other for one, other in zip(after.parameters(), with_batchnorm.parameters(), strict=True)]
        return math.sqrt(sum(float(step.detach().square().sum()) for step in steps))

    decay = 5e-4 * math.sqrt(sum(float(one.detach().square().sum()) for one in with_batchnorm.parameters()))
    assert moved(1e-6) <= decay + 1e-5
    assert moved(1e6) > 2 * decay


def test_rnp_masks_recover_the_unlearned_images(with_batchnorm, digits):
    held, method = digits[0], Rnp(batch_size=32, unlearning_rate=0.001, recovering_epochs=10)
    unlearned = method.unlearn(with_batchnorm, held, held.labels, new_run())
    masks = method.recover(unlearned, held, held.labels, new_run())
    model = copy.deepcopy(unlearned).train()
    with torch.no_grad():
        closed = {name: torch.ones_like(mask) for name, mask in masks.items()}
        losses = [
            float(nn.functional.cross_entropy(answer(model, one, held.floats()), held.labels))
            for one in (closed, masks)
        ]
    assert losses[1] < losses[0]
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks.values())


# --- NC pruning ---


def hand_made(gaps: list[float]) -> tuple[Classifier, Trigger]:
    """Units are pixels. The trigger lights the first by ``gaps``; pixel 0 drives the target, pixels 10.. the labels."""
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)))
    with torch.no_grad():
        model.net[1].weight.zero_()
        model.net[1].weight[TARGET, 0] = 50
        model.net[1].weight[:, 10:20] = 10 * torch.eye(10)
    pattern = torch.zeros(SHAPE)
    pattern.view(-1)[: len(gaps)] = torch.tensor(gaps)
    mask = (pattern[0] > 0).float()
    return model, Trigger(target=TARGET, mask=mask, pattern=pattern, success_rate=1.0, count=9)


def lit_labels():
    labels = torch.arange(50) % 10
    images = torch.zeros(50, *SHAPE, dtype=torch.uint8)
    images.flatten(1)[torch.arange(50), 10 + labels] = 255
    return Samples(images, labels=labels)


def test_nc_pruning_cuts_the_driven_units_first_and_stops_when_the_trigger_is_dead():
    model, trigger = hand_made([0.8, 1.0, 0.5])  # pixel 1 has the widest gap and does nothing, pixel 2 comes last
    for clean in (lit_labels(), lit_labels().without_labels()):
        repaired = UnitPruning().run(Defender(model=model, clean=clean, triggers=(trigger,)))
        assert repaired.evidence["pruned"] == [1, 0]
        assert repaired.notes["trigger_success_before"] == 1.0
        assert repaired.notes["trigger_success_after"] == 0.0
        zero = (repaired.model.net[1].weight == 0).all(0)
        assert zero[:2].all()
        assert torch.equal(repaired.model.net[1].weight[:, 10:20], model.net[1].weight[:, 10:20])
        assert accuracy(repaired.model, lit_labels()) == 1.0


def test_nc_pruning_stops_before_accuracy_falls_too_far():
    """The trigger lights the only pixel by which label 7 is known."""
    model, trigger = hand_made([0.0] * 17 + [1.0])
    with torch.no_grad():
        model.net[1].weight[7, 17] = 50
    through_it = replace(trigger, target=7)
    clean = lit_labels()
    for tolerance, pruned in ((0.03, []), (0.2, [17])):
        repaired = UnitPruning(tolerance=tolerance).run(Defender(model=model, clean=clean, triggers=(through_it,)))
        assert repaired.evidence["pruned"] == pruned
        assert repaired.notes["trigger_success_before"] == 1.0
        assert accuracy(repaired.model, clean) == pytest.approx(repaired.notes["accuracy_after"])
        assert repaired.notes["accuracy_after"] == pytest.approx(0.9 if pruned else 1.0)


def test_nc_pruning_cleans_the_planted_net(planted, digits, trigger):
    repaired = UnitPruning().run(Defender(model=planted.badnet, clean=digits[0], triggers=(trigger,))).model
    assert success(planted, repaired, digits[1]) < 0.2
    assert accuracy(repaired, digits[1]) > accuracy(planted.badnet, digits[1]) - 0.04


def test_nc_pruning_needs_a_linear_head():
    net = nn.Sequential(nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    _, trigger = hand_made([0.8])
    with pytest.raises(NotApplicable, match="linear head"):
        UnitPruning().run(Defender(model=classifier(net), clean=lit_labels(), triggers=(trigger,)))
