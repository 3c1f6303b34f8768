"""Pruning: the tail gives the whole net's numbers, channels go in the right order, and the last good net is kept."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted import TARGET
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable, ParameterError, UsageError
from goodnet.models import architectures, keras_graph
from goodnet.repair import _tuning, fine_pruning
from goodnet.repair._channels import (
    Channel,
    Convolution,
    activity,
    answers_along,
    chosen_convolutions,
    convolutions,
    pruning_order,
    silence,
)
from goodnet.repair._tail import Tail
from goodnet.repair.fine_pruning import FinePruning
from goodnet.repair.pruning import Pruning, last_good, pruned_until, pruning_curve
from goodnet.training.fit import accuracy

KERAS = [
    {"class_name": "InputLayer", "config": {"name": "in", "batch_input_shape": [None, 12, 10, 3]}},
    {"class_name": "Conv2D", "config": {"name": "a", "filters": 4, "kernel_size": [3, 3], "activation": "relu"}},
    {"class_name": "MaxPooling2D", "config": {"name": "p", "padding": "same", "pool_size": [2, 2]}},
    {"class_name": "Conv2D", "config": {"name": "b", "filters": 6, "kernel_size": [3, 3], "use_bias": False}},
    {"class_name": "BatchNormalization", "config": {"name": "n"}},
    {"class_name": "Flatten", "config": {"name": "f"}},
    {"class_name": "Dense", "config": {"name": "d", "units": 5}},
]


def stirred(net: nn.Module, shape: tuple[int, int, int], classes: int) -> Classifier:
    """With random numbers everywhere, also in what is 0 or 1 in a fresh network."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
                value.copy_(value.abs() + 0.2 if "var" in name else value)
    return Classifier(net, input_shape=shape, num_classes=classes).eval()


def of_architecture(name: str, shape: tuple[int, int, int]) -> Classifier:
    return stirred(architectures.build(name, num_classes=5, input_shape=shape), shape, 5)


def of_keras() -> Classifier:
    graph = {"class_name": "Sequential", "config": {"name": "net", "layers": KERAS}}
    network, shape, _ = keras_graph.build(Path("model.h5"), graph, None)
    arrays = {"a/kernel": (3, 3, 3, 4), "a/bias": (4,), "b/kernel": (3, 3, 4, 6), "n/gamma": (6,), "n/beta": (6,)}
    arrays |= {"n/mean": (6,), "n/variance": (6,), "d/kernel": (3 * 2 * 6, 5), "d/bias": (5,)}
    keras_graph.fill(Path("model.h5"), network, {name: torch.rand(size) for name, size in arrays.items()})
    return stirred(network, shape, 5)


class Untraceable(nn.Module):
    """Python looks at the numbers, which no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norm(self.conv(images))
        if maps.isnan().any():
            raise ValueError("not a number")
        return self.head(maps.relu().mean((2, 3)))


class WorksInPlace(nn.Module):
    """A shortcut that is changed in place by what follows the pruned layer, then read by its new or old name."""

    def __init__(self, old_name: bool) -> None:
        super().__init__()
        self.old_name = old_name
        self.first, self.second, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Linear(6, 5)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        changed = maps.add_(self.relu(self.second(maps)))
        return self.head((maps if self.old_name else changed).mean((2, 3)))


class Shared(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(images).relu()).mean((2, 3)))


NETS = {
    "small_cnn": lambda: of_architecture("small_cnn:width=4", (1, 16, 16)),
    "small_cnn_bn": lambda: of_architecture("small_cnn_bn:width=4", (3, 16, 16)),
    "deepid": lambda: of_architecture("deepid", (3, 55, 47)),
    "resnet18": lambda: of_architecture("resnet18:width=4", (3, 32, 32)),
    "preact_resnet18": lambda: of_architecture("preact_resnet18:width=4", (3, 16, 16)),
    "keras": of_keras,
    "untraceable": lambda: stirred(Untraceable(), (3, 8, 8), 5),
    "in place": lambda: stirred(WorksInPlace(old_name=False), (3, 8, 8), 5),
    "in place, old name": lambda: stirred(WorksInPlace(old_name=True), (3, 8, 8), 5),
    "shared": lambda: stirred(Shared(), (3, 8, 8), 5),
}


def noise(model: Classifier, count: int = 7) -> Tensor:
    shape = (count, *model.input_shape)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def masked_forward(model: Classifier, masks: dict[str, Tensor], images: Tensor) -> Tensor:
    """The oracle: all of the net, with the layers' outputs multiplied in hooks."""
    model, layers = copy.deepcopy(model), dict(model.net.named_modules())
    for name in layers.keys() & masks.keys():
        mask = masks[name].view(1, -1, 1, 1)
        model.net.get_submodule(name).register_forward_hook(lambda *given, mask=mask: given[2] * mask)
    return predictions(model, images)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("last", [1, 2])
def test_the_tail_gives_what_the_masked_net_and_the_pruned_net_give(name, last, monkeypatch):
    monkeypatch.setattr("goodnet.repair._tail.BATCH", 4)  # two batches, one of them short
    model = NETS[name]()
    images, generator = noise(model), torch.Generator().manual_seed(2)
    chosen = chosen_convolutions(model, min(last, len(convolutions(model))))
    tail = Tail(model, [layer for one in chosen for layer in one.layers], images)
    assert tail.runs_in_full == (name == "untraceable" or (name == "in place, old name" and last == 1))
    for _ in range(3):
        keep = {one: (torch.rand(one.channels, generator=generator) < 0.5).float() for one in chosen}
        masks = {layer: mask for one, mask in keep.items() for layer in one.layers}
        logits = tail(masks)
        rounding = 1e-5 * float(logits.abs().max())  # of sums of terms as large as the largest logit
        torch.testing.assert_close(logits, masked_forward(model, masks, images), rtol=1e-4, atol=rounding)
        assert torch.equal(tail.answers(masks), logits.argmax(1))
        pruned = copy.deepcopy(model)
        silence(pruned, [Channel(one, place) for one in chosen for place in (keep[one] == 0).nonzero().flatten()])
        torch.testing.assert_close(logits, predictions(pruned, images), rtol=1e-4, atol=rounding)
    assert not torch.allclose(logits, predictions(model, images), atol=100 * rounding)  # the masks do something


def test_the_tail_runs_nothing_that_comes_before_the_layer():
    model = NETS["deepid"]()
    tail = Tail(model, ["conv_4"], noise(model))
    run = {str(node.target) for node in tail._rest.graph.nodes if node.op == "call_module"}
    assert run == {"fc_2", "output"}


def test_a_batchnorm_behind_a_pruned_convolution_puts_out_zero():
    for norm in (nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
        model = stirred(net, (3, 8, 8), 5)
        (one,) = convolutions(model)
        assert one == Convolution("0", 4, ("1",))
        silence(model, [Channel(one, 2)])
        for mode in (False, True):
            out = net.train(mode)[:2](torch.rand(5, 3, 8, 8))
            assert [bool(out[:, place].any()) for place in range(4)] == [True, True, False, True]


def test_convolutions_come_in_execution_order_with_their_own_norm():
    assert [one.norms for one in convolutions(NETS["preact_resnet18"]())][:3] == [
        ("layer1.0.bn1",),  # a shortcut reads this convolution as well
        ("layer1.0.bn2",),
        (),
    ]
    assert chosen_convolutions(NETS["deepid"](), 2)[0].name == "conv_4"
    assert [one.name for one in chosen_convolutions(NETS["deepid"](), 1, "conv_3")] == ["conv_3"]
    assert chosen_convolutions(NETS["keras"](), 1) == [Convolution("b.convolution", 6, ("n",))]


def test_networks_without_what_is_asked_for_are_refused():
    with pytest.raises(NotApplicable, match="conv_9"):
        chosen_convolutions(NETS["deepid"](), 1, "conv_9")
    with pytest.raises(NotApplicable, match="5 convolution"):
        chosen_convolutions(NETS["deepid"](), 5)
    with pytest.raises(NotApplicable, match="no layer 'conv'"):
        Tail(NETS["deepid"](), ["conv"], noise(NETS["deepid"]()))
    with pytest.raises(ParameterError, match="both set"):
        Pruning(channels=1, share=0.5)
    with pytest.raises(ParameterError, match="whole number"):
        Pruning(channels=1.5)


# --- the order, computed by hand ---


class ByHand(nn.Module):
    """A pixel's grey value v (two pixels) times 4 known weights, pooled to the largest; channel c votes for class c.

    On a picture (0, 1): outputs behind the ReLU are (0, 3), (0, 0), (1, 1), (0, 2); behind the pooling 3, 0, 1, 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 1), nn.Linear(4, 4)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d((1, 2))
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([3.0, -1, 0, 2]).view(4, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([0.0, 0, 1, 0]))
            self.head.weight.copy_(torch.eye(4))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(self.conv(images))).flatten(1))


def by_hand() -> Classifier:
    return Classifier(ByHand(), input_shape=(1, 1, 2), num_classes=4).eval()


def pictures(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.uint8).view(-1, 1, 1, 2)


def test_activity_is_read_behind_activation_and_pooling():
    (one,) = convolutions(by_hand())
    images = pictures((0, 255), (0, 0))
    # behind the pooling: 3, 0, 1, 2 on the first image and 0, 0, 1, 0 on the second
    assert activity(by_hand(), [one], images, "mean")[0].tolist() == [1.5, 0.0, 1.0, 1.0]
    assert activity(by_hand(), [one], images, "apoz")[0].tolist() == [0.5, 0.0, 1.0, 0.5]
    assert [channel.index for channel in pruning_order(by_hand(), [one], images, "mean")] == [1, 2, 3, 0]
    assert [channel.index for channel in pruning_order(by_hand(), [one], images, "apoz")] == [1, 0, 3, 2]


def test_several_layers_are_pruned_jointly_by_rank():
    model = NETS["keras"]()
    chosen = chosen_convolutions(model, 2)  # of 6 and of 4 channels
    order = pruning_order(model, chosen, noise(model))
    # shares gone: 1/6, 1/4, 2/6, 3/6, 2/4, 4/6, 3/4, 5/6, 6/6, 4/4
    assert [one.convolution.channels for one in order] == [6, 4, 6, 6, 4, 6, 4, 6, 6, 4]


def test_the_ranking_looks_at_the_defenders_images_only():
    """Defect 23 of the peers: the published code ranks on the test images."""
    model, images = by_hand(), pictures((0, 255), (0, 0))
    dark = pictures((0, 0), (0, 0))  # as the defender has none but dark ones, only channel 2 is ever active
    held = Samples(dark, labels=torch.tensor([2, 2]))
    repaired = Pruning(channels=3).run(Defender(model=model, clean=held))
    gone = [row["channel"] for row in repaired.evidence["pruned"]]
    assert gone == [0, 1, 3]
    assert gone != [one.index for one in pruning_order(model, convolutions(model), images)][:3]
    rows = pruning_curve(model, images, ranked_on=dark)
    assert rows.tolist() == [[0, 2], [3, 2], [3, 2], [2, 2], [0, 0]]


# --- where it stops ---


def voters() -> tuple[Classifier, Samples]:
    """Pruned in the order 1, 2, 3, 0; answers: 8 bright pictures 0, then 0, 0, 0; 2 dark pictures 2, 2, 0, 0, 0."""
    images = pictures(*[(0, 255)] * 8, *[(0, 0)] * 2)
    return by_hand(), Samples(images, labels=torch.tensor([0] * 8 + [2] * 2))


@pytest.mark.parametrize(("drop", "pruned"), [(0.0, 1), (0.19, 1), (0.2, 4), (1.0, 4)])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_last_net_within_the_tolerance_is_kept(drop, pruned, labelled):
    """Defect 9 of the peers: theirs keeps the net that has already failed."""
    model, clean = voters()
    held = clean if labelled else clean.without_labels()
    repaired = Pruning(accuracy_drop=drop).run(Defender(model=model, clean=held))
    assert repaired.notes["channels_pruned"] == pruned
    assert 1 - accuracy(repaired.model, clean) <= drop + 1e-9
    assert repaired.notes["accuracy_after"] == accuracy(repaired.model, clean).__round__(6)
    curve = [row["accuracy"] for row in repaired.evidence["curve"]]
    assert curve == [1.0, 1.0, 0.8, 0.8, 0.8]  # all of it, also beyond the tolerance
    assert repaired.evidence["measure"] == ("accuracy" if labelled else "agreement")


def test_the_first_fall_ends_it_even_if_the_curve_comes_back():
    assert last_good((0.9, 0.88, 0.80, 0.9), 0.04) == 1
    assert last_good((0.9, 0.86, 0.86), 0.04) == 2
    assert last_good((0.5,), 0.0) == 0


def test_a_count_and_a_share_are_taken_at_their_word():
    model, clean = voters()
    for method, count in ((Pruning(channels=2), 2), (Pruning(share=0.75), 3), (Pruning(channels=99), 4)):
        repaired = method.run(Defender(model=model, clean=clean))
        assert repaired.notes["channels_pruned"] == count
        silent = (repaired.model.net.conv.weight == 0).flatten() & (repaired.model.net.conv.bias == 0)
        assert int(silent.sum()) == count
        assert len(repaired.evidence["pruned"]) == count


def test_the_curve_is_that_of_models_pruned_one_by_one():
    model = NETS["small_cnn_bn"]()
    images, order = noise(model, 20), pruning_order(model, chosen_convolutions(model, 2), noise(model))
    before = copy.deepcopy(model.state_dict())
    rows = list(answers_along(model, images, order))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(rows) == 1 + 16 + 16
    pruned = copy.deepcopy(model)
    for count, answers in enumerate(rows):
        assert torch.equal(answers, predictions(pruned, images).argmax(1))
        silence(pruned, order[count : count + 1])


# --- fine-pruning ---


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("name", ["small_cnn_bn", "deepid"])
def test_pruned_channels_stay_silent_while_the_rest_is_tuned(stepwise, name):
    model = NETS[name]()
    clean = Samples(noise(model, 30), labels=torch.arange(30) % 5)
    method = FinePruning(share=0.5, epochs=2, learning_rate=0.05, stepwise=stepwise, step_channels=99)
    repaired = method.run(Defender(model=model, clean=clean))
    (one,) = chosen_convolutions(model, 1)
    gone = [row["channel"] for row in repaired.evidence["pruned"]]
    assert len(gone) == one.channels // 2
    new, old = repaired.model.net, model.net
    for layer in one.layers:
        for array in ("weight", "bias"):
            assert not getattr(new.get_submodule(layer), array)[gone].any()
    kept = [place for place in range(one.channels) if place not in gone]
    moved = new.get_submodule(one.name).weight[kept] != old.get_submodule(one.name).weight[kept]
    assert moved.any(), "nothing was tuned"
    caught: list[Tensor] = []
    new.get_submodule(one.layers[-1]).register_forward_hook(lambda *given: caught.append(given[2]))
    predictions(repaired.model, clean.images)
    assert not caught[0][:, gone].any()
    assert caught[0][:, kept].any()


@pytest.mark.parametrize("stepwise", [False, True])
def test_no_step_of_the_tuning_sees_a_pruned_channel_awake(stepwise, monkeypatch):
    """Behind an ELU the bias of a pruned channel's BatchNorm has a gradient, so that it would wake up by itself."""
    model, seen, tune = NETS["small_cnn_bn"](), [], fine_pruning.tune
    (one,) = chosen_convolutions(model, 1)

    def watched(model, samples, wanted, recipe, run, *, loss, progress):
        def looks(now, images, answers, generator):
            value = loss(now, images, answers, generator)
            layers = [now.net.get_submodule(name) for name in one.layers]
            arrays = [array.detach().reshape(one.channels, -1) for layer in layers for array in layer.parameters()]
            awake = torch.cat(arrays, 1).abs().sum(1)
            seen.append(int((awake == 0).sum()))
            return value

        return tune(model, samples, wanted, recipe, run, loss=looks, progress=progress)

    monkeypatch.setattr(fine_pruning if stepwise else _tuning, "tune", watched)
    clean = Samples(noise(model, 40), labels=torch.arange(40) % 5)
    method = FinePruning(channels=5, epochs=3, batch_size=10, learning_rate=0.1, stepwise=stepwise, step_channels=5)
    replace(method, attempts=1).run(Defender(model=model, clean=clean))
    assert len(seen) == 12
    assert set(seen) == {5}


def test_stepwise_keeps_the_last_net_within_the_tolerance(monkeypatch):
    """What the images kept aside say after each tuning: 1.0 at the start, then 0.99, 0.97, 0.9."""
    model = NETS["small_cnn_bn"]()
    said, tuned = iter([1.0, 0.99, 0.97, 0.9, 1.0]), []
    monkeypatch.setattr(fine_pruning, "share_right", lambda *_: next(said))
    monkeypatch.setattr(
        FinePruning, "_tuned", lambda self, model, gone, *_: tuned.append(len(gone)) or _silent(model, gone)
    )
    clean = Samples(noise(model, 20), labels=torch.arange(20) % 5)
    repaired = FinePruning(stepwise=True, step_channels=3, accuracy_drop=0.04).run(Defender(model=model, clean=clean))
    assert tuned == [3, 6, 9]
    assert repaired.notes["channels_pruned"] == 6
    assert repaired.notes["accuracy_tuned"] == 0.97
    (one,) = chosen_convolutions(model, 1)
    weights = repaired.model.net.get_submodule(one.name).weight
    assert int((weights.flatten(1) == 0).all(1).sum()) == 6
    assert [row["channels"] for row in repaired.evidence["curve"]] == [0, 3, 6, 9]
    json.dumps(dict(repaired.evidence), allow_nan=False)


def _silent(model: Classifier, gone: list[Channel]) -> Classifier:
    model = copy.deepcopy(model)
    silence(model, gone)
    return model


@pytest.mark.parametrize(
    "method", [Pruning(), FinePruning(epochs=3), FinePruning(epochs=1, stepwise=True, step_channels=8)], ids=repr
)
def test_the_planted_badnet_stays_accurate_and_untouched(planted, method):
    before = copy.deepcopy(planted.badnet.state_dict())
    half = torch.arange(len(planted.clean)) % 2 == 0
    held, others = planted.clean.pick(half), planted.clean.pick(~half)
    for clean in (held, held.without_labels()):
        repaired = method.run(replace(Defender(), model=planted.badnet, clean=clean), seed=1)
        assert accuracy(repaired.model, others) >= accuracy(planted.badnet, others) - 0.07
        assert repaired.notes["channels_pruned"] >= 1
        assert all(torch.equal(value, before[name]) for name, value in planted.badnet.state_dict().items())


def test_models_along_the_curve_are_those_pruned_by_count(planted):
    held = Defender(model=planted.badnet, clean=planted.clean.pick(torch.arange(100)))
    repaired = Pruning(accuracy_drop=0.0).run(held)
    marks = {mark["accuracy_drop"]: mark["channels"] for mark in repaired.evidence["marks"]}
    assert tuple(marks) == (0.02, 0.04, 0.1)
    assert marks[0.1] > len(repaired.evidence["pruned"])  # else this shows nothing
    made = pruned_until(planted.badnet, repaired.evidence, 0.1)
    wanted = Pruning(channels=marks[0.1]).run(held).model
    images = planted.clean.floats()[:20]
    with torch.no_grad():
        assert torch.equal(made(images), wanted(images))
    assert made.origin.history[-1]["channels_pruned"] == marks[0.1]
    with pytest.raises(UsageError, match="along the curve"):
        pruned_until(planted.badnet, {}, 0.1)


def test_held_triggers_are_watched_along_the_curve_and_change_nothing(planted):
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    trigger = Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)
    held = Defender(model=planted.badnet, clean=planted.clean.pick(torch.arange(100)))
    bare, watched = (Pruning().run(one) for one in (held, replace(held, triggers=(trigger,))))
    assert watched.evidence["pruned"] == bare.evidence["pruned"]
    assert "success" not in bare.evidence["curve"][0]
    victims = held.clean.pick(held.clean.labels != TARGET)
    last = len(watched.evidence["pruned"])
    for count, model in ((0, planted.badnet), (last, watched.model)):
        turned = predictions(model, trigger.stamp(victims.floats())).argmax(1) == TARGET
        assert abs(watched.evidence["curve"][count]["success"] - float(turned.double().mean())) < 0.05
