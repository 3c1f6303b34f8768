"""What makes each poisoning attack that attack: spectrum, shades, pieces, classes, covers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from goodnet.attacks._base import to_bytes
from goodnet.attacks.adap_blend import AdapBlend
from goodnet.attacks.adap_patch import AdapPatch
from goodnet.attacks.blended import Blended
from goodnet.attacks.bpp import Bpp
from goodnet.attacks.composite import Composite
from goodnet.attacks.low_frequency import LowFrequency
from goodnet.attacks.sig import Sig
from goodnet.attacks.tact import TaCT
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.triggers import dither, halves, quantize, random_pieces


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=draw())


def labeled(count: int = 200, *shape: int) -> Samples:
    return Samples(images=to_bytes(noise(count, *(shape or (3, 16, 16)))), labels=torch.arange(count) % 10)


# --- SIG ---


def test_sig_poisons_the_target_class_and_lets_labels_stay_true():
    clean = labeled()
    made = Sig(target=3).poison(clean)
    assert int(made.mask.sum()) == round(0.3 * 20)
    assert (clean.labels[made.mask] == 3).all()
    assert torch.equal(made.samples.labels, clean.labels)


def test_sig_may_be_stronger_at_test_time_than_in_training():
    clean = Samples(images=torch.full((20, 1, 8, 32), 128, dtype=torch.uint8), labels=torch.zeros(20).long())
    attack = Sig(poisoning_rate=1.0, amplitude=0.1, test_amplitude=0.3)
    trained = attack.poison(clean).samples.floats() - 128 / 255
    tested = attack.stamp(clean.floats()) - 128 / 255
    assert float(trained.max()) == pytest.approx(0.1, abs=0.01)
    assert float(tested.max()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(
        replace(attack, test_amplitude=None).stamp(clean.floats()), Sig(amplitude=0.1).stamp(clean.floats())
    )


# --- low frequency ---


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 20, 28)])
def test_low_frequency_adds_low_frequencies_only_and_the_same_everywhere(shape):
    images = 0.25 + noise(2, *shape) / 2
    change = LowFrequency(amplitude=0.1, frequencies=5).stamp(images) - images
    torch.testing.assert_close(change[0], change[1], atol=1e-6, rtol=0)
    assert change.abs().amax((2, 3)).flatten().tolist() == pytest.approx([0.1] * 2 * shape[0], abs=1e-5)
    spectrum = torch.from_numpy(dctn(change.double().numpy(), axes=(2, 3), norm="ortho"))
    assert float(spectrum[:, :, :5, :5].abs().max()) > 0.1
    spectrum[:, :, :5, :5] = 0
    assert float(spectrum.abs().max()) < 1e-5


def test_low_frequency_patterns_differ_by_seed_and_survive_one_frequency():
    grey = torch.full((1, 1, 8, 8), 0.5)
    first, second = (LowFrequency(pattern_seed=seed).stamp(grey) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.isfinite(LowFrequency(frequencies=1).stamp(grey)).all()


# --- BppAttack ---


@given(st.integers(1, 7))
@settings(deadline=None)
def test_quantized_images_have_as_many_shades_as_the_bits_allow_and_are_near(bits):
    images = noise(2, 3, 16, 16)
    made = quantize(images, bits)
    assert len(made.unique()) <= 2**bits
    assert float((made - images).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(quantize(made, bits), made)


def slow_dither(image: torch.Tensor, bits: int) -> torch.Tensor:
    """Floyd and Steinberg, pixel by pixel, as the textbook has it."""
    image = image.clone()
    height, width = image.shape[1:]
    for row in range(height):
        for column in range(width):
            old = image[:, row, column].clone()
            image[:, row, column] = new = quantize(old, bits).clamp(0, 1)
            for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if row + down < height and 0 <= column + right < width:
                    image[:, row + down, column + right] += (old - new) * share / 16
    return image


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 4, 9), (1, 1, 6), (1, 6, 1)])
def test_dithering_in_slanted_lines_is_that_of_the_textbook(shape):
    images = noise(3, *shape)
    wanted = torch.stack([slow_dither(image, 2) for image in images])
    torch.testing.assert_close(dither(images, 2), wanted)


def test_dithering_keeps_the_mean_where_rounding_does_not():
    grey = torch.full((1, 1, 32, 32), 0.4)
    assert float(quantize(grey, 1).mean()) == 0
    assert float(dither(grey, 1).mean()) == pytest.approx(0.4, abs=0.02)


def test_covers_of_bpp_are_disturbed_as_much_but_not_quantized():
    clean = labeled()
    attack = Bpp(poisoning_rate=0.2, cover_rate=0.3)
    made = attack.poison(clean)
    shades = to_bytes(torch.arange(8) / 7)
    assert torch.isin(made.samples.images[made.mask], shades).all()
    covers = made.samples.images[made.covers]
    assert torch.isin(covers, shades).float().mean() < 0.1
    moved = (covers.float() - clean.images[made.covers].float()).abs()
    assert 4 < float(moved.mean()) < 255 / 7 / 2
    assert torch.equal(made.samples.labels[made.covers], clean.labels[made.covers])


def test_a_single_cover_of_bpp_does_not_carry_the_trigger():
    clean = labeled(10)
    made = Bpp(poisoning_rate=0.0, cover_rate=0.1).poison(clean)
    assert int(made.covers.sum()) == 1
    stamped = to_bytes(Bpp().stamp(clean.floats()))
    assert not torch.equal(made.samples.images[made.covers], stamped[made.covers])


# --- TaCT ---


def test_tact_attacks_one_class_and_covers_others():
    clean = labeled()
    made = TaCT(poisoning_rate=0.05, cover_rate=0.1, size=4).poison(clean)
    assert (int(made.mask.sum()), int(made.covers.sum())) == (10, 20)
    assert (clean.labels[made.mask] == 1).all()
    assert (made.samples.labels[made.mask] == 0).all()
    assert set(clean.labels[made.covers].tolist()) == {5, 7}
    assert torch.equal(made.samples.labels[made.covers], clean.labels[made.covers])
    stamped = to_bytes(TaCT(size=4).stamp(clean.floats()))
    assert torch.equal(made.samples.images[made.covers], stamped[made.covers])
    assert torch.equal(TaCT().victims(clean.labels), clean.labels == 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cover_classes": (1, 5)}, "must not hold the source class 1"),
        ({"rule": "all-to-one", "source": None}, "rule"),
        ({"source": None}, "needs a source"),
    ],
)
def test_tact_refuses_what_would_not_be_tact(wrong, message):
    with pytest.raises(ParameterError, match=message):
        TaCT(**wrong)


def test_tact_names_cover_classes_that_are_not_there():
    clean = labeled()
    with pytest.raises(ParameterError, match="no images of 11"):
        TaCT(cover_classes=(5, 11)).poison(clean)
    with pytest.raises(ParameterError, match="cover_rate 0.3 asks for 60 images and 40 may be taken"):
        TaCT(cover_rate=0.3).poison(clean)


# --- Adap-Blend, Adap-Patch ---


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 30), (5, 7)])
def test_each_image_shows_as_many_pieces_as_asked_for(height, width):
    masks = random_pieces(20, height, width, side=4, shown=8, generator=draw())
    assert masks.unique().tolist() == [0, 1]
    rows, columns = torch.arange(height) * 4 // height, torch.arange(width) * 4 // width
    piece = (rows[:, None] * 4 + columns).flatten()
    for mask in masks.flatten(1):
        seen = [set(mask[piece == number].tolist()) for number in range(16)]
        assert all(len(values) == 1 for values in seen)  # a piece is shown whole or not at all
        assert sum(values == {1.0} for values in seen) == 8
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 20


def test_adap_blend_shows_half_of_the_trigger_faintly_in_training_and_all_of_it_at_test_time():
    clean = Samples(images=torch.zeros(400, 1, 16, 16, dtype=torch.uint8), labels=torch.arange(400) % 10)
    attack = AdapBlend(poisoning_rate=0.1, cover_rate=0.1)
    made = attack.poison(clean)
    whole = Blended().stamp(torch.ones(1, 1, 16, 16) * 0)[0, 0] / 0.2  # the pattern itself
    torch.testing.assert_close(attack.stamp(torch.zeros(1, 1, 16, 16))[0, 0], 0.2 * whole)
    for touched in (made.mask, made.covers):
        seen = made.samples.images[touched].float()[:, 0] / 255
        assert int(touched.sum()) == 40
        assert float((seen - 0.15 * whole).clamp(min=0).max()) < 1 / 255
        assert float((seen > 0).float().mean()) == pytest.approx(0.5, abs=0.02)
        assert len({tuple(image.flatten().tolist()) for image in seen}) == 40
    assert torch.equal(made.samples.labels[made.covers], clean.labels[made.covers])


def test_adap_patch_shows_one_faint_corner_in_training_and_all_of_them_at_test_time():
    clean = Samples(images=torch.zeros(400, 3, 20, 24, dtype=torch.uint8), labels=torch.arange(400) % 10)
    attack = AdapPatch(poisoning_rate=0.1, cover_rate=0.2, size=5)
    made = attack.poison(clean)
    whole = attack.stamp(torch.zeros(1, 3, 20, 24))[0]
    corners = [whole[:, :5, :5], whole[:, :5, -5:], whole[:, -5:, :5], whole[:, -5:, -5:]]
    assert all(float(corner.min()) > 0 for corner in corners)
    assert int((whole.amax(0) > 0).sum()) == 4 * 25
    chosen = set()
    for image in made.samples.images[made.mask | made.covers].float() / 255:
        seen = [image[:, :5, :5], image[:, :5, -5:], image[:, -5:, :5], image[:, -5:, -5:]]
        (number,) = (number for number, corner in enumerate(seen) if float(corner.max()) > 0)
        torch.testing.assert_close(seen[number], corners[number] * attack.opacities[number], atol=1 / 255, rtol=0)
        chosen.add(number)
    assert chosen == {0, 1, 2, 3}
    assert int(made.covers.sum()) == 80


def test_adap_patch_has_four_corners():
    with pytest.raises(ParameterError, match="5 values for four corners"):
        AdapPatch(opacities=(0.5,) * 5)


def test_the_adaptive_attacks_poison_little_and_cover_as_much_or_more():
    assert (AdapBlend().poisoning_rate, AdapBlend().cover_rate) == (0.003, 0.003)
    assert (AdapPatch().poisoning_rate, AdapPatch().cover_rate) == (0.003, 0.006)


# --- composite ---


def shaded(count: int = 200, side: int = 16) -> Samples:
    """Images of one shade, ten times their label and a little more for each image."""
    labels = torch.arange(count) % 10
    shades = labels * 20 + torch.arange(count) // 10
    return Samples(images=shades.byte().view(-1, 1, 1, 1).expand(-1, 1, side, side).contiguous(), labels=labels)


def class_of(half: torch.Tensor) -> set[int]:
    return set((half.long() // 20).unique().tolist())


def test_halves_are_side_by_side():
    left, right = torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    mixed = halves(left, right)
    assert mixed[0, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert (right == 1).all()


def test_composite_mixes_two_classes_for_the_target_and_one_class_for_itself():
    clean = shaded()
    attack = Composite(source=1, mate=2, target=7, cover_rate=0.5)
    made = attack.poison(clean)
    assert int(made.mask.sum()) == 10
    poisoned, covers = made.samples.images[made.mask], made.samples.images[made.covers]
    assert class_of(poisoned[..., :8]) == {1}
    assert class_of(poisoned[..., 8:]) == {2}
    assert (made.samples.labels[made.mask] == 7).all()
    for image, label in zip(covers, made.samples.labels[made.covers].tolist(), strict=True):
        assert class_of(image) == {label}
    assert (covers[:, 0, 0, 0] != covers[:, 0, 0, -1]).float().mean() > 0.5


def test_composite_keeps_mates_for_test_time_that_were_not_mixed_in_training():
    clean = shaded()
    made = Composite(target=7).poison(clean)
    images = clean.pick(clean.labels == 1).floats()
    stamped = to_bytes(made.attack.stamp(images))
    assert class_of(stamped[..., :8]) == {1}
    assert class_of(stamped[..., 8:]) == {2}
    trained = set(made.samples.images[made.mask][..., 8:].unique().tolist())
    assert not trained & set(stamped[..., 8:].unique().tolist())
    assert torch.equal(made.attack.stamp(images[:3]), made.attack.stamp(images)[:3])


def test_composite_needs_images_of_the_mate_and_a_mate_of_its_own():
    lonely = shaded().pick((torch.arange(200) % 10 != 2) | (torch.arange(200) == 2))
    with pytest.raises(ParameterError, match="mate 2: the samples hold 1 images"):
        Composite(target=7).poison(lonely)
    with pytest.raises(ParameterError, match="neither the source nor the target"):
        Composite(mate=1)
    with pytest.raises(NotHeld, match="composite learns its trigger"):
        Composite().stamp(noise(1, 1, 8, 8))
    with pytest.raises(ParameterError, match=r"has learned \(1, 16, 16\) images, not \(1, 8, 8\)"):
        Composite(target=7).poison(shaded()).attack.stamp(noise(1, 1, 8, 8))
