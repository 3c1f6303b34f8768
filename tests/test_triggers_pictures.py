"""Pictures from files: what is read, what is refused, and where their transparency puts them."""

import numpy as np
import pytest
import torch
from PIL import Image

from goodnet.attacks.blended import Blended
from goodnet.attacks.image_patch import ImagePatch
from goodnet.errors import ParameterError, UnreadableData
from goodnet.triggers import glasses, paste, read_image


@pytest.fixture
def sticker(tmp_path):
    """2x4 pixels: red and opaque on the left, green and half transparent, then blue that nobody sees."""
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[:, :2] = (255, 0, 0, 255)
    pixels[:, 2] = (0, 255, 0, 51)
    pixels[:, 3] = (0, 0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "sticker.png")
    return tmp_path / "sticker.png"


def grey(count: int, *shape: int) -> torch.Tensor:
    return torch.full((count, *shape), 0.5)


def test_colors_and_opacity_are_what_the_file_says(sticker):
    color, opacity = read_image(sticker, 3)
    assert (color.shape, opacity.shape) == ((3, 2, 4), (2, 4))
    assert color[:, 0, 0].tolist() == [1, 0, 0]
    assert color[:, 0, 2].tolist() == [0, 1, 0]
    torch.testing.assert_close(opacity[1], torch.tensor([1.0, 1.0, 0.2, 0.0]))


def test_color_becomes_luma_for_grey_images(sticker):
    color, _ = read_image(sticker, 1)
    assert color.shape == (1, 2, 4)
    assert float(color[0, 0, 0]) == pytest.approx(0.299)
    assert float(color[0, 0, 2]) == pytest.approx(0.587)


def test_a_picture_without_transparency_is_opaque(tmp_path):
    Image.fromarray(np.full((3, 3), 51, np.uint8)).save(tmp_path / "grey.bmp")
    color, opacity = read_image(tmp_path / "grey.bmp", 3)
    assert color.unique().tolist() == pytest.approx([0.2])
    assert (opacity == 1).all()


def test_the_size_asked_for_is_given_and_one_side_keeps_the_proportions(sticker):
    sizes = {(8, 6): (8, 6), (4, None): (4, 8), (None, 2): (1, 2), (None, 1): (1, 1)}
    for (height, width), wanted in sizes.items():
        color, opacity = read_image(sticker, 3, height, width)
        assert tuple(opacity.shape) == tuple(color.shape[1:]) == wanted


def test_hidden_colors_do_not_bleed_in_when_a_picture_is_scaled(sticker):
    color, opacity = read_image(sticker, 3, 16, 32)
    assert float((color[2] * (opacity > 0.05)).max()) < 0.02


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    whole = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    np.save(tmp_path / "array.npy", whole)
    Image.fromarray(whole).save(tmp_path / "other.tiff")  # a format whose decoder is not needed
    for name in ("text.png", "cut.png", "array.npy", "other.tiff", "missing.png", ".", "nul\0.png"):
        with pytest.raises(UnreadableData, match="cannot be read as a picture"):
            read_image(f"{tmp_path}/{name}", 3)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (5000, 5000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UnreadableData, match="5000x5000 pixels are too many"):
        read_image(tmp_path / "bomb.png", 3)


def test_a_size_that_no_image_has_is_refused_before_memory_is_asked_for(sticker):
    with pytest.raises(ParameterError, match="too large"):
        read_image(sticker, 3, 10**6, 10**6)


def test_other_numbers_of_channels_are_refused(sticker):
    with pytest.raises(ParameterError, match="1 or 3 channels, these have 4"):
        read_image(sticker, 4)


def test_pasting_covers_as_much_as_the_picture_is_opaque(sticker):
    stamped = ImagePatch(image=str(sticker), row=1, column=-1).stamp(grey(2, 3, 6, 8))
    assert stamped[1, :, 1, 4].tolist() == [1, 0, 0]
    torch.testing.assert_close(stamped[0, :, 2, 6], torch.tensor([0.4, 0.6, 0.4]))
    assert stamped[0, :, 1, 7].tolist() == [0.5, 0.5, 0.5]
    outside = torch.ones(6, 8, dtype=torch.bool)
    outside[1:3, 4:] = False
    assert (stamped[:, :, outside] == 0.5).all()


def test_opacity_makes_the_whole_picture_fainter(sticker):
    stamped = ImagePatch(image=str(sticker), opacity=0.5).stamp(grey(1, 3, 6, 8))
    torch.testing.assert_close(stamped[0, :, 1, 0], torch.tensor([0.75, 0.25, 0.25]))


def test_glasses_are_seen_on_black_and_on_white():
    for background in (0.0, 1.0):
        images = torch.full((1, 1, 16, 16), background)
        assert 15 < int((ImagePatch().stamp(images) != images).sum()) < 60
    assert glasses(3, width=30)[0].shape == (3, 8, 30)


def test_a_picture_larger_than_the_images_is_refused(sticker):
    with pytest.raises(ParameterError, match="trigger of 2x4 pixels at row 5"):
        ImagePatch(image=str(sticker), row=5).stamp(grey(1, 3, 6, 8))
    with pytest.raises(ParameterError, match="4x15"):
        ImagePatch().stamp(grey(1, 1, 8, 8))


def test_pasting_leaves_the_images_alone():
    images = grey(1, 1, 4, 4)
    paste(images, torch.ones(1, 2, 2), torch.ones(2, 2), 0, 0)
    assert (images == 0.5).all()


def test_blended_mixes_a_picture_in_where_it_is_opaque(sticker):
    stamped = Blended(image=str(sticker), alpha=0.5).stamp(torch.zeros(1, 3, 2, 4))
    assert stamped[0, :, 0, 0].tolist() == [0.5, 0, 0]
    torch.testing.assert_close(stamped[0, :, 0, 2], torch.tensor([0.0, 0.1, 0.0]))
    assert stamped[0, :, 0, 3].tolist() == [0, 0, 0]
