"""Samples, preprocessing, randomness, parameters, the registry and the defender."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from planted import untrained

from goodnet.core.classifier import Preprocessing
from goodnet.core.defender import Defender
from goodnet.core.params import check_ranges, param
from goodnet.core.registry import Card, Needs, Registry
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError, UnknownName, UnreadableData


def samples(count: int = 6, shape=(1, 2, 2)) -> Samples:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(count, *shape).byte()
    return Samples(images=images, labels=torch.arange(count) % 3, sources=torch.arange(count) * 2)


# --- samples ---


def test_samples_number_themselves():
    assert samples(3).ids.tolist() == [0, 1, 2]


def test_picking_keeps_ids_labels_and_sources_with_their_images():
    picked = samples().pick(torch.tensor([4, 1])).pick(torch.tensor([True, False]))
    assert (picked.ids.tolist(), picked.labels.tolist(), picked.sources.tolist()) == ([4], [1], [8])
    assert picked.images.unique().tolist() == [4]


def test_a_split_keeps_all_images_of_one_source_on_one_side():
    tracks = torch.arange(300) // 30
    data = Samples(images=torch.zeros(300, 1, 2, 2, dtype=torch.uint8), sources=tracks)
    for seed in range(5):
        mine, aside = data.split(0.75, torch.Generator().manual_seed(seed))
        assert not set(mine.sources.tolist()) & set(aside.sources.tolist())
        assert sorted(torch.cat([mine.ids, aside.ids]).tolist()) == list(range(300))
        assert len(mine) in (210, 240)
        assert mine.sources[:30].unique().numel() > 1  # still in random order


def test_a_split_by_sources_leaves_no_side_empty():
    data = Samples(images=torch.zeros(50, 1, 2, 2, dtype=torch.uint8), sources=(torch.arange(50) > 0).long())
    for seed in range(5):
        assert all(len(side) for side in data.split(0.99, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("sources", [None, torch.zeros(40, dtype=torch.int64)])
def test_without_several_sources_a_split_is_image_by_image(sources):
    data = Samples(images=torch.zeros(40, 1, 2, 2, dtype=torch.uint8), sources=sources)
    mine, aside = data.split(0.75, torch.Generator().manual_seed(0))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([mine.ids, aside.ids]), order)
    assert len(mine) == 30


def test_shuffling_splits_without_repeats_and_depends_on_the_generator_alone():
    first = samples().shuffled(torch.Generator().manual_seed(1))
    again = samples().shuffled(torch.Generator().manual_seed(1), limit=4)
    assert sorted(first.ids.tolist()) == list(range(6))
    assert first.ids[:4].tolist() == again.ids.tolist()
    assert first.images[:, 0, 0, 0].tolist() == first.ids.tolist()


def test_floats_lie_between_zero_and_one_and_batches_add_up():
    held = Samples(images=torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), labels=torch.arange(3))
    assert held.floats().flatten().tolist() == pytest.approx([0, 0.2, 1])
    parts = list(held.batches(2))
    assert [len(images) for images, _ in parts] == [2, 1]
    assert torch.equal(torch.cat([images for images, _ in parts]), held.floats())
    assert torch.cat([labels for _, labels in parts]).tolist() == [0, 1, 2]


def test_samples_without_labels_have_none_anywhere():
    bare = samples().without_labels()
    assert bare.labels is None
    assert next(bare.batches(2))[1] is None
    assert bare.pick(torch.tensor([0])).labels is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(2, 1, 2, 2)},
        {"images": torch.zeros(2, 2, 2, dtype=torch.uint8)},
        {"images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(3, dtype=torch.int64)},
        {"images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "labels": torch.zeros(2)},
        {"images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "ids": torch.zeros(2, 1, dtype=torch.int64)},
    ],
)
def test_samples_of_a_wrong_kind_are_refused(wrong):
    with pytest.raises(UnreadableData):
        Samples(**wrong)


def test_grey_becomes_rgb_by_repetition_and_back():
    grey = samples()
    color = grey.fitted_to((3, 2, 2))
    assert color.shape == (3, 2, 2)
    assert (color.images == grey.images).all()
    assert torch.equal(color.fitted_to((1, 2, 2)).images, grey.images)


def test_rgb_becomes_grey_by_luma():
    red_green_blue = torch.zeros(3, 3, 1, 1, dtype=torch.uint8)
    for place in range(3):
        red_green_blue[place, place] = 255
    grey = Samples(images=red_green_blue).fitted_to((1, 1, 1))
    assert grey.images.flatten().tolist() == [76, 150, 29]  # 255 times 0.299, 0.587 and 0.114


def test_resizing_averages_and_keeps_labels():
    checkered = torch.tensor([[0, 200], [200, 0]], dtype=torch.uint8).repeat(4, 4)[None, None]
    small = Samples(images=checkered, labels=torch.tensor([7])).fitted_to((1, 2, 2))
    assert small.labels.tolist() == [7]
    assert (small.images.float() - 100).abs().max() <= 5
    assert (samples().fitted_to((1, 5, 7)).images == samples().images[:, :, :1, :1]).all()


def test_channels_that_cannot_be_fitted_are_refused():
    with pytest.raises(UnreadableData, match="channels"):
        Samples(images=torch.zeros(1, 4, 2, 2, dtype=torch.uint8)).fitted_to((3, 2, 2))


def test_no_images_can_be_fitted():
    assert samples(0).fitted_to((3, 4, 4)).images.shape == (0, 3, 4, 4)


# --- preprocessing ---


def test_preprocessing_reorders_scales_centers_and_divides_in_that_order():
    image = torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)
    made = Preprocessing(scale=10, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0), channel_order="BGR")(image)
    assert made.flatten().tolist() == pytest.approx([3.0, 0.0, -0.5])


def test_no_preprocessing_changes_nothing():
    image = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Preprocessing()(image), image)


# --- randomness ---


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_isolated_randomness_repeats_and_leaves_the_callers_alone():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = [draws(), draws()]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = draws()
    inside = []
    for _ in range(2):
        with isolated_rng(7) as generator:
            inside.append((draws(), float(torch.rand(1, generator=generator))))
    assert inside[0] == inside[1]
    assert [first, draws()] == expected


def test_randomness_comes_back_after_an_exception():
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()

    def draws_and_fails() -> None:
        with isolated_rng(1):
            draws()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        draws_and_fails()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


# --- parameters ---


@dataclass(frozen=True)
class Knobs:
    share: float = param(0.5, low=0.0, high=1.0, doc="none")
    count: int | None = param(None, low=1, doc="none")
    kind: str = param("a", choices=("a", "b"), doc="none")


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"share": -0.1}, "Knobs.share"),
        ({"share": 1.1}, "Knobs.share"),
        ({"share": float("nan")}, "Knobs.share"),
        ({"share": "half"}, "Knobs.share"),
        ({"share": True}, "Knobs.share"),
        ({"count": 0}, "Knobs.count"),
        ({"count": float("nan")}, "Knobs.count"),
        ({"kind": "c"}, "Knobs.kind"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong, name):
    with pytest.raises(ParameterError, match=name):
        check_ranges(Knobs(**wrong))


@pytest.mark.parametrize("right", [{}, {"share": 0}, {"share": 1.0}, {"count": 1}, {"count": 10**9}, {"kind": "b"}])
def test_the_bounds_themselves_are_in_range(right):
    check_ranges(Knobs(**right))


# --- the registry ---


def registry() -> Registry:
    made = Registry("tool", "goodnet.triggers")
    made.register(card("hammer"))(type("Hammer", (), {}))
    made.register(card("anvil"))(type("Anvil", (), {}))
    return made


def card(name: str) -> Card:
    return Card(name=name, version=1, needs=Needs.NOTHING, source="none", summary="none")


def test_the_registry_lists_by_name_and_hands_out_classes_with_their_card():
    tools = registry()
    assert tools.names() == ("anvil", "hammer")
    assert [tool.card.name for tool in tools] == ["anvil", "hammer"]
    assert tools["hammer"].__name__ == "Hammer"


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="already Hammer"):
        registry().register(card("hammer"))(type("Other", (), {}))


def test_a_misspelled_name_is_answered_with_the_nearest_one():
    with pytest.raises(UnknownName, match="Did you mean 'hammer'") as caught:
        registry()["hamer"]
    assert str(caught.value).startswith("no tool named 'hamer'")
    assert isinstance(caught.value, KeyError)


# --- the defender ---


def everything() -> Defender:
    return Defender(model=untrained(), clean=samples(), training_set=samples())


def test_a_method_sees_only_what_it_declares():
    seen = everything().restricted_to(Needs.MODEL, "m")
    assert seen.model is not None
    assert seen.clean is None
    assert seen.training_set is None
    assert everything().restricted_to(Needs.CLEAN, "m").clean.labels is None
    assert everything().restricted_to(Needs.CLEAN | Needs.CLEAN_LABELS, "m").clean.labels is not None


@pytest.mark.parametrize(
    ("needs", "missing", "word"),
    [
        (Needs.MODEL, "model", "model"),
        (Needs.CLEAN, "clean", "clean images"),
        (Needs.TRAINING_SET, "training_set", "training set"),
    ],
)
def test_what_is_missing_is_named_with_what_to_pass(needs, missing, word):
    poorer = Defender(**{**vars(everything()), missing: None})
    with pytest.raises(NotHeld, match=rf"m needs .*{word}.*{missing}="):
        poorer.restricted_to(needs, "m")


@pytest.mark.parametrize("clean", [None, samples().without_labels()])
def test_missing_labels_are_named(clean):
    with pytest.raises(NotHeld, match="labels"):
        Defender(clean=clean).restricted_to(Needs.CLEAN_LABELS, "m")
