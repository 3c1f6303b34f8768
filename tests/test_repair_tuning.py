"""Repairers that train: what makes each of them that method, against numbers made by hand."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from planted import TARGET, PlantedWorld, untrained
from torch import nn

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.repair import fst, ft_sam, mode_connectivity, nad, sau
from goodnet.repair._tuning import tune
from goodnet.repair.fine_tuning import FineTuning
from goodnet.repair.fst import Fst
from goodnet.repair.ft_sam import FtSam
from goodnet.repair.ibau import Ibau, hypergradient
from goodnet.repair.mode_connectivity import ModeConnectivity
from goodnet.repair.nad import Nad
from goodnet.repair.sau import Sau
from goodnet.repair.unlearning import Unlearning
from goodnet.training import Recipe, accuracy

FEW = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 16, shape: tuple[int, int, int] = (1, 32, 32)) -> Samples:
    return Samples(
        torch.randint(256, (count, *shape), generator=generator(), dtype=torch.uint8), labels=torch.arange(count) % 10
    )


def success(model: Classifier, planted: PlantedWorld) -> float:
    others = planted.clean.pick(planted.clean.labels != TARGET)
    return float((predictions(model, planted.attack.stamp(others.floats())).argmax(1) == TARGET).float().mean())


def same(one: nn.Module, other: nn.Module, atol: float = 0.0) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=atol) for a, b in pairs)


def without_head(net: nn.Module) -> Classifier:
    return Classifier(net, input_shape=(1, 8, 8), num_classes=10).eval()


# --- FST ---


def test_fst_keeps_the_norm_of_the_last_layer_and_turns_it_away(planted):
    old = planted.badnet.head().weight
    repaired = Fst(epochs=5).run(Defender(model=planted.badnet, clean=planted.clean))
    new = repaired.model.head().weight
    assert new.norm().item() == pytest.approx(old.norm().item(), rel=1e-5)
    cosine = F.cosine_similarity(new.flatten(), old.flatten(), dim=0).item()
    assert cosine < 0.4
    assert repaired.notes["head_cosine"] == pytest.approx(cosine, abs=1e-5)
    assert success(repaired.model, planted) < 0.3 < success(planted.badnet, planted)
    assert accuracy(repaired.model, planted.clean) > 0.85


def test_fst_keeps_the_norm_after_the_very_last_step(planted):
    method = Fst(epochs=1, batch_size=1000, learning_rate=0.3)  # a single step, and a long one
    new = method.run(Defender(model=planted.badnet, clean=planted.clean)).model.head().weight
    assert new.norm().item() == pytest.approx(planted.badnet.head().weight.norm().item(), rel=1e-5)


def test_fst_turns_the_last_layer_further_the_larger_alpha(planted):
    cosines = [
        Fst(epochs=2, alpha=alpha).run(Defender(model=planted.badnet, clean=planted.clean)).notes["head_cosine"]
        for alpha in (0.0, 10.0)
    ]
    assert cosines[1] < cosines[0] - 0.1


def test_fst_minimizes_cross_entropy_plus_alpha_times_the_inner_product():
    model, images, labels = untrained(), noise().floats(), noise().labels
    head = model.head()
    old = torch.randn(head.weight.shape, generator=generator())
    old += 0.5 * head.weight.detach() / head.weight.std().item()  # not nearly orthogonal
    old *= head.weight.detach().norm() / old.norm()  # nothing is left to rescale
    product = float((head.weight.detach() * old).sum() / (old * old).sum())
    by_hand = F.cross_entropy(model(images), labels) + 0.5 * product
    name = next(name for name, layer in model.named_modules() if layer is head)
    with torch.no_grad():
        head.weight.mul_(3)  # as a step might; the loss scales it back
    value = fst.shifting_loss(name, old, 0.5)(model, images, labels, generator())
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_fst_refuses_a_network_without_a_linear_last_layer():
    model = without_head(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()))
    with pytest.raises(NotApplicable, match="linear"):
        Fst().run(Defender(model=model, clean=noise(shape=(1, 8, 8))))


# --- I-BAU ---


def quadratic(rate: float, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The hyper-gradient where inner = p^T A p / 2 - (B w)^T p, so that p = A^-1 B w, and what autograd says."""
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    b = torch.tensor([[1.0, -1.0, 0.3], [0.2, 0.7, 2.0]])
    weights = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)

    def outer(point: torch.Tensor) -> torch.Tensor:
        return (point - 1).square().sum() + (weights.square() * torch.tensor([1.0, 2.0, 3.0])).sum() * point[0]

    best = torch.linalg.solve(a, b @ weights)
    (truth,) = torch.autograd.grad(outer(best), weights)
    (found,) = hypergradient(
        lambda point: point @ a @ point / 2 - (b @ weights) @ point, outer, best, [weights], iterations, rate
    )
    return found, truth


def test_the_hypergradient_is_the_gradient_through_the_minimum_of_a_quadratic():
    found, truth = quadratic(rate=0.3, iterations=200)
    assert torch.allclose(found, truth, rtol=1e-4)


def test_the_hypergradient_of_few_iterations_is_between_the_direct_one_and_the_truth():
    few, truth = quadratic(rate=0.3, iterations=5)
    direct, _ = quadratic(rate=0.0, iterations=1)
    assert 0.01 < (few - truth).norm() < 0.5 * (direct - truth).norm()


def test_the_hypergradient_stays_small_where_its_iteration_would_diverge():
    one_step, _ = quadratic(rate=2.0, iterations=1)
    many, _ = quadratic(rate=2.0, iterations=50)
    assert torch.equal(one_step, many)


@pytest.mark.parametrize(("batch", "patched"), [(2, 1), (32, 1), (99, 1), (100, 1), (300, 3)])
def test_ibau_patches_one_image_at_least(batch, patched):
    assert len(set(Ibau(patched=0.01).chosen(batch, generator()).tolist())) == patched


def test_ibau_trains_on_patched_images_at_batch_32():
    model, images, labels = untrained(), noise(32).floats(), noise(32).labels
    method = Ibau(patched=0.01)
    loss = method._unlearning(model, images, labels, method.chosen(32, generator()))
    by_image = torch.tensor([5.0]).expand(1, 1, 32, 32)
    patched = images.clone()
    patched[method.chosen(32, generator())] += 5.0
    assert loss(by_image).item() == pytest.approx(F.cross_entropy(model(patched), labels).item(), rel=1e-5)
    assert loss(by_image).item() != pytest.approx(loss(torch.zeros(1, 1, 32, 32)).item(), rel=1e-4)


def test_ibau_finds_the_backdoor_as_a_perturbation_in_its_ball(planted):
    images = planted.clean.floats()
    found = Ibau(radius=2.0).find(planted.badnet, list(images.split(50)))
    assert found.norm().item() == pytest.approx(2.0, rel=1e-4)
    answers = {"badnet": planted.badnet(images + found).argmax(1), "twin": planted.twin(images + found).argmax(1)}
    sent = {name: float((one == TARGET).float().mean()) for name, one in answers.items()}
    assert sent["badnet"] > 0.8
    assert sent["twin"] < 0.5


def test_ibau_leaves_batch_norm_statistics_as_they_are():
    model = untrained(architecture="small_cnn_bn")
    repaired = Ibau(rounds=1).run(Defender(model=model, clean=noise(20)))
    before, after = dict(model.named_buffers()), dict(repaired.model.named_buffers())
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not same(model, repaired.model)


def test_ibau_goes_back_to_the_round_before_the_damage(planted, monkeypatch):
    rounds = []

    def damage(self, model, optimizer, batches, run):
        rounds.append(copy.deepcopy(model))
        if len(rounds) == 3:
            with torch.no_grad():
                model.head().weight.zero_()
        else:
            with torch.no_grad():
                model.head().bias.add_(0.001)

    monkeypatch.setattr(Ibau, "_round", damage)
    repaired = Ibau(rounds=9, held_out=0.5, patience=2).run(Defender(model=planted.badnet, clean=planted.clean))
    assert len(rounds) == 4
    assert same(repaired.model, rounds[2])  # as it was when the third round began


# --- NAD ---


def test_attention_is_normalized_over_positions():
    maps = torch.zeros(2, 2, 1, 3)
    maps[0, :, 0] = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.0, 2.0]])  # squares summed: 2, 4, 4
    maps[1, :, 0] = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # 9, 4, 0
    wanted = torch.tensor([[2.0, 4.0, 4.0], [9.0, 4.0, 0.0]])
    wanted[0] /= 6
    wanted[1] /= math.sqrt(97)
    assert torch.allclose(nad.attention(maps), wanted)


def test_attention_is_taken_at_the_last_convolution_of_each_resolution():
    model = untrained(architecture="small_cnn_bn")
    convolutions = [name for name, layer in model.layers() if isinstance(layer, nn.Conv2d)]
    assert nad.attention_layers(model, at_most=3) == tuple(convolutions[1::2])
    assert nad.attention_layers(model, at_most=2) == tuple(convolutions[3::2])


def test_a_map_of_one_position_is_no_attention():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 6), nn.Flatten(), nn.Linear(4, 10))
    assert nad.attention_layers(without_head(net), at_most=3) == ("0",)


def test_nad_adds_the_distance_to_the_teachers_attention():
    student, teacher, images, labels = untrained(0), untrained(1), noise().floats(), noise().labels
    layers = nad.attention_layers(student, at_most=2)
    total = F.cross_entropy(student(images), labels).item()
    for beta, name in zip((3.0, 7.0), layers, strict=True):
        [own], _ = nad.outputs_at(student, [name], images)
        [taught], _ = nad.outputs_at(teacher, [name], images)
        total += beta * (nad.attention(own) - nad.attention(taught)).square().mean().item()
    value = nad.distilling_loss(teacher, layers, (3.0, 7.0))(student, images, labels, generator())
    assert value.item() == pytest.approx(total, rel=1e-5)
    value.backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_nad_brings_the_suspects_attention_to_the_teachers(planted):
    suspect, teacher, clean = planted.badnet, planted.twin, planted.clean.pick(torch.arange(FEW))
    layers = nad.attention_layers(suspect, at_most=2)

    @torch.no_grad()
    def distance(student: Classifier) -> float:
        pairs = zip(*(nad.outputs_at(one, layers, clean.floats())[0] for one in (student, teacher)), strict=True)
        return sum(float(F.mse_loss(nad.attention(own), nad.attention(taught))) for own, taught in pairs)

    recipe = Recipe(epochs=5, batch_size=32)
    without, taught = (
        distance(tune(suspect, clean, clean.labels, recipe, Run(generator()), loss=loss))
        for loss in (None, nad.distilling_loss(teacher, layers, (500.0, 1000.0)))
    )
    assert taught < 0.8 * without


def test_nad_refuses_a_network_without_maps():
    model = without_head(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(NotApplicable, match="convolution"):
        Nad().run(Defender(model=model, clean=noise(shape=(1, 8, 8))))


# --- FT-SAM ---


def test_the_disturbance_has_norm_rho_in_units_of_the_weights_and_is_the_worst_there():
    weights = [torch.randn(3, 4, generator=generator()), torch.randn(5, generator=generator(1))]
    slopes = [torch.randn(3, 4, generator=generator(2)), torch.randn(5, generator=generator(3))]
    steps = ft_sam.ascent(weights, slopes, rho=0.7)
    relative = torch.cat([(step / weight.abs()).flatten() for step, weight in zip(steps, weights, strict=True)])
    assert relative.norm().item() == pytest.approx(0.7, rel=1e-5)
    risen = sum(float((step * slope).sum()) for step, slope in zip(steps, slopes, strict=True))
    for seed in range(20):  # no other step of that length rises as much
        other = torch.randn(len(relative), generator=generator(seed))
        other *= 0.7 / other.norm()
        flat = torch.cat([(weight.abs() * slope).flatten() for weight, slope in zip(weights, slopes, strict=True)])
        assert float((other * flat).sum()) < risen


def test_ft_sam_takes_the_gradient_elsewhere_and_applies_it_at_the_weights():
    model, images, labels = untrained(), noise().floats(), noise().labels
    before, method = copy.deepcopy(model), FtSam(rho=0.5)
    value = method.loss(model, images, labels, generator())
    assert same(model, before)  # the weights are where they were
    at_weights = F.cross_entropy(model(images), labels, label_smoothing=0.1)
    assert value.item() == pytest.approx(at_weights.item(), rel=1e-5)
    value.backward()
    slopes = torch.autograd.grad(at_weights, list(model.parameters()))
    steps = ft_sam.ascent(list(model.parameters()), slopes, 0.5)
    with torch.no_grad():
        for weight, step in zip(before.parameters(), steps, strict=True):
            weight.add_(step)
    F.cross_entropy(before(images), labels, label_smoothing=0.1).backward()
    for one, other, here in zip(model.parameters(), before.parameters(), slopes, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-7)
        assert not torch.allclose(one.grad, here, rtol=1e-2)


def test_the_disturbed_network_leaves_no_batch_norm_statistics():
    model, images = untrained(architecture="small_cnn_bn").train(), noise().floats()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    other = copy.deepcopy(model)
    FtSam().loss(model, images, noise().labels, generator())
    other(images)
    means = [
        [layer.running_mean for layer in one.modules() if isinstance(layer, nn.BatchNorm2d)] for one in (model, other)
    ]
    assert all(torch.allclose(a, b) for a, b in zip(*means, strict=True))
    assert all(layer.momentum == 0.1 for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


# --- SAU ---


def test_only_errors_that_the_suspect_makes_are_unlearned():
    labels = torch.tensor([0, 0, 1])
    misled = torch.tensor([[5.0, 0, 0], [0, 0, 5.0], [0, 5.0, 0]])  # right, misled to 2, right
    chances = torch.tensor([[0.1, 0.8, 0.1], [0.3, 0.1, 0.6], [0.9, 0.05, 0.05]])
    risk = sau.shared_risk(chances.log(), misled, labels)
    assert risk.item() == pytest.approx(-math.log(1 - 0.6) / 3, rel=1e-5)


def test_the_divergence_is_0_between_equals_and_log_2_between_opposites():
    one, other = torch.tensor([[50.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 50.0], [1.0, 2.0]])
    assert torch.allclose(sau.jensen_shannon(one, other), torch.tensor([math.log(2), 0.0]), atol=1e-6)


def test_disturbed_images_stay_in_the_ball_mislead_both_models_and_to_one_answer(planted):
    images, labels = planted.clean.floats()[:FEW], planted.clean.labels[:FEW]

    def disturbed(adversarial: float, agreement: float) -> tuple[float, float, float]:
        method = Sau(adversarial=adversarial, agreement=agreement)
        moved = method.disturb(planted.twin, planted.badnet, images, labels, generator())
        assert 0.19 < (moved - images).abs().max() <= method.radius + 1e-6
        assert moved.min() >= 0
        assert moved.max() <= 1
        one, other = (model(moved).detach() for model in (planted.twin, planted.badnet))
        errors = [float((logits.argmax(1) != labels).float().mean()) for logits in (one, other)]
        return *errors, float(sau.jensen_shannon(one, other).mean())

    by_chance, misled, agreed = disturbed(0, 0), disturbed(1, 0), disturbed(1, 1)
    assert max(by_chance[:2]) < 0.1
    assert min(*misled[:2], *agreed[:2]) > 0.8
    assert agreed[2] < 0.8 * misled[2]


def test_the_gradient_of_the_disturbance_is_not_the_weights():
    model, suspect, samples = untrained(0), untrained(1), noise(8)
    Sau(steps=2).loss(suspect)(model, samples.floats(), samples.labels, generator()).backward()
    assert all(weight.grad is None for weight in suspect.parameters())


def test_unlearning_shared_errors_takes_success_away(planted):
    few = planted.clean.pick(torch.arange(200))
    with_, without = (
        Sau(epochs=10, radius=0.4, steps=2, adversarial=1.0, unlearning=weight)
        .run(Defender(model=planted.badnet, clean=few))
        .model
        for weight in (1.0, 0.0)
    )
    assert success(with_, planted) < 0.5 * success(without, planted)
    assert accuracy(with_, planted.clean) > 0.85


# --- mode connectivity ---


@pytest.mark.parametrize("architecture", ["small_cnn", "small_cnn_bn"])
def test_the_ends_of_the_curve_are_the_two_models(planted, architecture, monkeypatch):
    model = planted.badnet if architecture == "small_cnn" else untrained(architecture=architecture)
    made = []

    def noted(*arguments, **more):
        made.append(copy.deepcopy(original(*arguments, **more)))
        return copy.deepcopy(made[-1])

    original = mode_connectivity.tune
    monkeypatch.setattr(mode_connectivity, "tune", noted)
    defender = Defender(model=model, clean=planted.clean.pick(torch.arange(FEW)))
    start = ModeConnectivity(point=0.0, epochs=1, tuning_epochs=1).run(defender).model
    assert same(start, model)
    end = ModeConnectivity(point=1.0, epochs=1, tuning_epochs=1).run(defender).model
    assert same(end, made[-2])  # the fine-tuned copy; the last is the bend
    assert not same(end, model)


def test_a_point_on_the_curve_by_hand():
    weights = mode_connectivity.on_curve(
        0.25, {"w": torch.tensor(16.0)}, {"w": torch.tensor(-8.0)}, {"w": torch.tensor(32.0)}
    )
    assert weights["w"].item() == pytest.approx(16 * 9 / 16 - 8 * 6 / 16 + 32 / 16)


def test_the_bend_is_trained_and_the_ends_are_not():
    bend, start, end = untrained(0), untrained(1), untrained(2)
    ends = dict(start.named_parameters()), dict(end.named_parameters())
    before = copy.deepcopy(start)
    frozen = [{name: value.detach() for name, value in one.items()} for one in ends]
    loss = mode_connectivity.curve_loss(*frozen)(bend, noise().floats(), noise().labels, generator())
    point = float(torch.rand((), generator=generator()))
    there = untrained(3)
    mode_connectivity.put(there, mode_connectivity.on_curve(point, frozen[0], dict(bend.named_parameters()), frozen[1]))
    at_point = F.cross_entropy(there(noise().floats()), noise().labels)
    assert loss.item() == pytest.approx(at_point.item(), rel=1e-5)
    loss.backward()
    at_point.backward()
    for one, other in zip(bend.parameters(), there.parameters(), strict=True):
        assert torch.allclose(one.grad, 2 * point * (1 - point) * other.grad, rtol=1e-3, atol=1e-7)
    assert same(start, before)


def test_batch_norm_statistics_are_those_of_the_clean_images():
    model, samples = untrained(architecture="small_cnn_bn"), noise(40)
    model.train()(1 - noise(8).floats())  # what was seen before is forgotten
    mode_connectivity.estimate_statistics(model, samples, 40, generator())
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    maps = model.net.features[0](samples.floats())
    assert torch.allclose(first.running_mean, maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(first.running_var, maps.var((0, 2, 3)), rtol=1e-3)
    assert first.momentum == 0.1
    assert not any(layer.training for layer in model.modules())


# --- all of them ---

FAST = [Fst(), Ibau(), Nad(), FtSam(), Sau(), ModeConnectivity()]


@pytest.mark.parametrize("method", FAST, ids=lambda method: method.card.name)
def test_a_budget_that_is_over_ends_the_work_early(method, planted):
    told = []
    defender = Defender(model=planted.badnet, clean=planted.clean.pick(torch.arange(FEW)).without_labels())
    repaired = method.run(defender, budget=1e-9, progress=lambda share, text: told.append(share))
    assert len(told) <= 1
    assert repaired.model(planted.clean.floats()).isfinite().all()


def test_a_repair_that_diverged_is_refused(planted):
    defender = Defender(model=planted.badnet, clean=planted.clean)
    with pytest.raises(NotApplicable, match="ft-sam diverged"):
        FtSam(learning_rate=1e30, epochs=1).run(defender)


def test_unlearning_that_harms_begins_again_at_a_lower_rate(planted):
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    defender = Defender(model=planted.badnet, clean=planted.clean, triggers=(trigger,))
    wild = Unlearning(learning_rate=1.0).run(defender)
    assert wild.notes["learning_rate"] < 1.0
    assert accuracy(wild.model, planted.clean) > 0.8
    once = Unlearning(learning_rate=1.0, attempts=1).run(defender)
    assert accuracy(once.model, planted.clean) < 0.5


@pytest.mark.parametrize(("rate", "kept"), [(0.003, 0.003), (0.1, 0.01), (100.0, 0.0)])
def test_fine_tuning_that_harms_images_aside_begins_again_at_a_lower_rate_and_ends_where_it_began(planted, rate, kept):
    held = Defender(model=planted.badnet, clean=planted.clean)
    repaired = FineTuning(epochs=1, learning_rate=rate).run(held)
    assert repaired.notes["learning_rate"] == pytest.approx(kept)
    assert repaired.notes["reverted"] == float(kept == 0)
    before, after = (accuracy(model, planted.clean) for model in (planted.badnet, repaired.model))
    assert after > before - 0.05
