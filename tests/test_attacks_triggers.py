"""What makes each attack that attack: pixels, mixture, frequency, smooth warp, labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from goodnet.attacks._base import to_bytes
from goodnet.attacks.badnets import BadNets
from goodnet.attacks.blended import Blended
from goodnet.attacks.sig import Sig
from goodnet.attacks.wanet import WaNet
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.triggers import patch_mask, warp, warping_grid


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def labeled(count: int = 40) -> Samples:
    return Samples(images=to_bytes(noise(count, 3, 16, 16)), labels=torch.arange(count) % 4)


# --- BadNets ---


def test_badnets_paints_its_square_and_nothing_else():
    images = noise(2, 3, 16, 16)
    stamped = BadNets(size=2, row=3, column=-1, color=(1.0, 0.5, 0.0)).stamp(images)
    square = torch.zeros(16, 16, dtype=torch.bool)
    square[3:5, 14:16] = True
    assert torch.equal(stamped[:, :, ~square], images[:, :, ~square])
    for channel, value in enumerate((1.0, 0.5, 0.0)):
        assert stamped[:, channel, square] == pytest.approx(value)


def test_one_color_value_is_for_all_channels():
    stamped = BadNets(size=16, row=0, column=0, color=(0.25,)).stamp(noise(1, 3, 16, 16))
    assert stamped.unique().tolist() == [0.25]


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 4))
def test_negative_places_count_from_the_far_edge(size, row, column):
    near = patch_mask(10, 10, size, row, column)
    far = patch_mask(10, 10, size, -row - 1, -column - 1)
    assert torch.equal(far, near.flip(0, 1))
    assert int(near.sum()) == size * size


# --- Blended ---


def test_blended_is_a_mixture_with_one_image():
    attack = Blended(alpha=0.3)
    first, second = noise(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    pattern = attack.stamp(second) / 0.3
    assert 0 <= float(pattern.min()) < 0.05
    assert 0.95 < float(pattern.max()) <= 1 + 1e-6
    torch.testing.assert_close(attack.stamp(first), 0.7 * first + 0.3 * pattern)
    assert not torch.equal(Blended(pattern_seed=1).stamp(second), Blended(pattern_seed=2).stamp(second))


def test_blended_with_all_of_the_trigger_hides_the_image():
    attack = Blended(alpha=1.0)
    torch.testing.assert_close(attack.stamp(noise(1, 1, 8, 8)), attack.stamp(torch.zeros(1, 1, 8, 8)))


# --- SIG ---


@pytest.mark.parametrize("frequency", [2, 6])
def test_sig_adds_a_wave_of_its_frequency_along_the_columns(frequency):
    grey = torch.full((1, 1, 32, 32), 0.5)
    wave = Sig(amplitude=0.1, frequency=float(frequency)).stamp(grey)[0, 0] - 0.5
    assert torch.equal(wave, wave[:1].expand(32, 32))
    spectrum = torch.fft.rfft(wave[0]).abs()
    assert int(spectrum.argmax()) == frequency
    assert float(spectrum[frequency]) == pytest.approx(0.1 * 32 / 2, rel=1e-4)
    assert float(spectrum.sum() - spectrum[frequency]) < 1e-4
    assert float(wave[0, 0]) == pytest.approx(0, abs=1e-6)


def test_sig_is_clipped_at_black_and_white():
    stamped = Sig(amplitude=0.5).stamp(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 32))
    assert (float(stamped.min()), float(stamped.max())) == (0.0, 1.0)


# --- WaNet ---


def test_the_warping_grid_is_smooth_and_stays_within_the_picture():
    grid = warping_grid(32, 32, control=4, strength=0.5, generator=torch.Generator().manual_seed(0))
    still = warping_grid(32, 32, control=4, strength=0.0, generator=torch.Generator().manual_seed(0))
    assert grid.shape == (1, 32, 32, 2)
    assert float(grid.abs().max()) <= 1
    moved = (grid - still) * 32 / 0.5  # the field itself, of mean absolute value about one at its control points
    assert 0.3 < float(moved.abs().mean()) < 2
    moved = moved[:, 2:-2, 2:-2]  # at the border the field is cut off where it would leave the picture
    step = torch.cat([moved.diff(dim=1).abs().flatten(), moved.diff(dim=2).abs().flatten()])
    assert float(step.max()) < 1  # white noise would change by the size of the field from pixel to pixel
    assert float(step.mean()) < 0.3


def test_the_grid_is_the_identity_without_strength_and_looks_x_before_y():
    still = warping_grid(5, 9, control=4, strength=0.0, generator=torch.Generator().manual_seed(0))
    image = noise(1, 1, 5, 9)
    torch.testing.assert_close(warp(image, still), image)
    torch.testing.assert_close(still[0, 2, :, 0], torch.linspace(-1, 1, 9))
    torch.testing.assert_close(still[0, :, 3, 1], torch.linspace(-1, 1, 5))


def test_wanet_changes_images_a_little_and_all_with_one_field():
    smooth = torch.nn.functional.interpolate(noise(2, 1, 4, 4), (32, 32), mode="bicubic").clamp(0, 1)
    stamped = WaNet().stamp(smooth)
    assert 0 < float((stamped - smooth).abs().mean()) < 0.05
    torch.testing.assert_close(WaNet().stamp(smooth[1:]), stamped[1:])
    assert not torch.equal(WaNet(field_seed=1).stamp(smooth), stamped)


# --- labels ---


def test_only_images_of_other_labels_are_poisoned_and_get_the_target():
    clean = labeled()
    poisoned = BadNets(target=2, poisoning_rate=0.5).poison(clean)
    assert int(poisoned.mask.sum()) == 20
    assert (clean.labels[poisoned.mask] != 2).all()
    assert (poisoned.samples.labels[poisoned.mask] == 2).all()
    assert torch.equal(poisoned.samples.images[~poisoned.mask], clean.images[~poisoned.mask])


def test_more_poison_than_there_are_images_of_other_labels_is_refused():
    with pytest.raises(ParameterError, match="asks for 40 images and 30 may be taken"):
        BadNets(target=2, poisoning_rate=1.0).poison(labeled())
    poisoned = BadNets(target=2, poisoning_rate=1.0, rate_of="eligible").poison(labeled())
    assert torch.equal(poisoned.mask, labeled().labels != 2)


def test_another_seed_poisons_other_images():
    first, second = (BadNets(poisoning_rate=0.3).poison(labeled(), seed=seed).mask for seed in (1, 2))
    assert not torch.equal(first, second)


def test_poisoning_needs_labels_and_a_rate_that_is_a_share():
    with pytest.raises(NotHeld, match="badnets"):
        BadNets().poison(labeled().without_labels())
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ParameterError, match="poisoning_rate"):
            BadNets(poisoning_rate=rate)


def test_images_are_stored_at_eight_bits_by_rounding():
    assert to_bytes(torch.tensor([0.0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1.0, 1.2])).tolist() == [0, 0, 1, 255, 255]
