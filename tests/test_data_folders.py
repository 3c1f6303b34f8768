"""Folders of image files: labels, limits, odd pictures, damaged and hostile ones."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from goodnet import load_data
from goodnet.data import _images, _safety
from goodnet.errors import ParameterError, UnknownName, UnreadableData, UsageError


def save(path: Path, value: int = 0, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    """One picture of a single color, ``size`` wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * len(mode) if len(mode) > 1 else value).save(path)


def first_pixels(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_labels_are_the_sorted_folder_names(tmp_path: Path) -> None:
    for value, name in enumerate(["zebra", "Ant", "bee"]):
        save(tmp_path / name / "one.png", value)
    samples = load_data(tmp_path)
    assert samples.class_names == ("Ant", "bee", "zebra")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]
    assert first_pixels(samples.images) == [1, 2, 0]
    assert samples.shape == (3, 5, 6)
    assert samples.notes == ()


def test_folders_named_by_numbers_are_ordered_by_value_and_an_empty_one_keeps_its_place(tmp_path: Path) -> None:
    for value in (0, 2, 10):
        save(tmp_path / str(value) / "one.png", value)
    for empty in (1, 3, 4, 5, 6, 7, 8, 9):
        (tmp_path / str(empty)).mkdir()
    samples = load_data(str(tmp_path))
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 2, 10]
    assert samples.class_names == tuple(map(str, range(11)))
    assert samples.notes == ()


def test_numbers_with_gaps_are_mentioned(tmp_path: Path) -> None:
    for name in ("3", "12"):
        save(tmp_path / name / "one.png")
    assert "'3' is label 0" in load_data(tmp_path).notes[0]


def test_a_flat_folder_and_a_single_file_have_no_labels(tmp_path: Path) -> None:
    for value, suffix in enumerate(["png", "bmp", "PPM", "gif", "webp", "jpg", "jpeg"]):
        save(tmp_path / f"{value}.{suffix}", 10 * value)
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    samples = load_data(tmp_path)
    assert samples.labels is None
    assert samples.class_names == ()
    assert samples.notes == ()
    assert first_pixels(samples.images) == pytest.approx([0, 10, 20, 30, 40, 50, 60], abs=1)
    single = load_data(tmp_path / "2.PPM")
    assert (len(single), first_pixels(single.images), single.labels) == (1, [20], None)


def test_loose_images_beside_class_folders_are_left_out_and_mentioned(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "one.png")
    save(tmp_path / "loose.png")
    samples = load_data(tmp_path)
    assert len(samples) == 1
    assert samples.notes == ("left out 1 images that lie beside the class folders",)


def test_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "one.png", 1)
    save(tmp_path / "test" / "cat" / "one.png", 2)
    save(tmp_path / "test" / "dog" / "one.png", 3)
    assert first_pixels(load_data(tmp_path).images) == [1]
    assert first_pixels(load_data(tmp_path, split="test").images) == [2, 3]
    with pytest.raises(UnknownName, match="train, test"):
        load_data(tmp_path, split="val")
    save(tmp_path / "preview.png", 4)
    samples = load_data(tmp_path)
    assert first_pixels(samples.images) == [1]
    assert samples.notes == ("left out 1 images that lie beside the folders of the splits",)


def test_a_split_of_a_set_without_splits_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="leave out split='test'"):
        load_data(tmp_path, split="test")


def test_a_folder_that_holds_only_a_folder_stands_for_it(tmp_path: Path) -> None:
    save(tmp_path / "archive" / "faces" / "ann" / "one.png")
    assert load_data(tmp_path).class_names == ("ann",)


def test_a_limit_draws_the_same_images_for_the_same_seed_and_opens_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in range(60):
        save(tmp_path / f"{value % 3}" / f"{value:02}.png", value)
    everything = load_data(tmp_path)
    opened: list[str] = []
    original = _images.decode
    monkeypatch.setattr(
        _images, "decode", lambda picture, *others: opened.append(picture.path.name) or original(picture, *others)
    )
    ten = load_data(tmp_path, limit=10, seed=3)
    assert len(opened) == 10
    assert torch.equal(ten.images, load_data(tmp_path, limit=10, seed=3).images)
    assert not torch.equal(ten.images, load_data(tmp_path, limit=10, seed=4).images)
    assert ten.ids is not None
    assert torch.equal(ten.images, everything.pick(ten.ids).images)
    assert ten.labels is not None
    assert torch.equal(ten.labels, everything.pick(ten.ids).labels)
    assert len(load_data(tmp_path, limit=1000)) == 60


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"limit": 0}, "limit"),
        ({"seed": -1}, "seed"),
        ({"shape": (2, 5, 5)}, "shape"),
        ({"shape": (3, 5, 9999)}, "shape"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, arguments: dict, name: str) -> None:
    save(tmp_path / "one.png")
    with pytest.raises(ParameterError, match=name):
        load_data(tmp_path, **arguments)


def test_damaged_images_are_named_counted_and_skipped(tmp_path: Path) -> None:
    for value in range(3):
        save(tmp_path / "a" / f"{value}.png", value, size=(40, 40))
    (tmp_path / "a" / "text.png").write_text("hello")
    save(tmp_path / "a" / "cut.bmp", 9, size=(40, 40))
    whole = (tmp_path / "a" / "cut.bmp").read_bytes()
    (tmp_path / "a" / "cut.bmp").write_bytes(whole[: len(whole) // 2])
    samples = load_data(tmp_path)
    assert first_pixels(samples.images) == [0, 1, 2]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 0]
    assert samples.ids is not None
    assert samples.ids.tolist() == [0, 1, 2]
    (note,) = samples.notes
    assert note.startswith("skipped 2 of 5 images")
    assert "'text.png' (not an image)" in note
    assert "'cut.bmp'" in note


def test_a_long_list_of_damaged_images_is_cut_short_and_terminal_escapes_are_made_visible(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    for number in range(9):
        (tmp_path / f"\x1b[31m{number}.png").write_text("")
    (note,) = load_data(tmp_path).notes
    assert "and 4 more" in note
    assert "\x1b" not in note


def test_only_damaged_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(UnreadableData, match=r"'a.png' \(not an image\)"):
        load_data(tmp_path)
    with pytest.raises(UnreadableData, match="'a.png'"):
        load_data(tmp_path, shape=(3, 8, 8))


def test_differing_sizes_become_the_most_common_one(tmp_path: Path) -> None:
    for name, size in [("a", (6, 5)), ("b", (6, 5)), ("c", (60, 50))]:
        save(tmp_path / f"{name}.png", 7, size)
    samples = load_data(tmp_path)
    assert samples.shape == (3, 5, 6)
    assert samples.notes == ("resized 1 of 3 images to 5x6 (height x width), the most common size",)
    assert torch.equal(samples.images, torch.full_like(samples.images, 7))


def test_images_are_decoded_straight_to_the_shape_that_is_wanted(tmp_path: Path) -> None:
    for name, size in [("a", (6, 5)), ("b", (6, 5)), ("c", (60, 50))]:
        save(tmp_path / f"{name}.png", 7, size)
    samples = load_data(tmp_path, shape=(3, 25, 30))
    assert (samples.shape, samples.notes) == ((3, 25, 30), ())


def test_other_decoders_never_see_a_file_with_the_name_of_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (6, 5)).save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    with pytest.raises(UnreadableData, match="not an image"):
        load_data(tmp_path)


def test_a_shape_is_kept_to(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    gray = load_data(tmp_path, shape=(1, 20, 15))
    assert gray.shape == (1, 20, 15)
    expected = load_data(tmp_path).fitted_to((1, 20, 15))
    assert (gray.images.int() - expected.images.int()).abs().max() <= 2  # Pillow rounds between its two steps


def test_gray_images_keep_one_channel_and_become_three_beside_colored_ones(tmp_path: Path) -> None:
    save(tmp_path / "gray.png", 50, mode="L")
    assert load_data(tmp_path).shape == (1, 5, 6)
    save(tmp_path / "red.png", 0)
    samples = load_data(tmp_path)
    assert samples.shape == (3, 5, 6)
    assert samples.images[0].unique().tolist() == [50]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8))  # red left, green right
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to look at it: red comes to the top
    image.save(tmp_path / "a.png", exif=exif)
    samples = load_data(tmp_path)
    assert samples.shape == (3, 2, 1)
    assert samples.images[0, :, :, 0].T.tolist() == [[255, 0, 0], [0, 255, 0]]


def test_alpha_is_dropped_and_mentioned(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    samples = load_data(tmp_path)
    assert samples.images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert samples.notes == ("dropped the alpha channel of 1 images",)


def test_sixteen_bits_become_the_upper_eight(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "b.pgm").write_bytes(b"P5 4 1 65535\n" + np.array([0, 255, 256, 65535], ">u2").tobytes())
    samples = load_data(tmp_path)
    assert samples.images[:, 0, 0].tolist() == [[0, 0, 1, 255]] * 2


def test_palette_transparency_cmyk_and_bilevel_images_are_read(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 2), 2)
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 100, 50])
    palette.save(tmp_path / "a.png", transparency=bytes([0, 100, 255]))
    Image.new("CMYK", (2, 2), (0, 0, 0, 255)).save(tmp_path / "b.jpg")
    Image.new("1", (2, 2), 1).save(tmp_path / "c.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = load_data(tmp_path)
    assert samples.images[0, :, 0, 0].tolist() == [200, 100, 50]
    assert samples.images[1].max() <= 3
    assert samples.images[2].unique().tolist() == [255]


def test_floating_point_pixels_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"Pf\n1 1\n-1.0\n" + np.float32(0.5).tobytes())
    with pytest.raises(UnreadableData, match="floating-point pixels"):
        load_data(tmp_path)


def test_only_the_first_frame_of_a_gif_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (200, 100)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert first_pixels(load_data(tmp_path).images) == [200]


def test_a_decompression_bomb_is_skipped_before_it_is_decoded(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    for name, side in [("large.ppm", 9000), ("absurd.ppm", 10**6)]:
        (tmp_path / name).write_bytes(f"P6 {side} {side} 255\n".encode() + bytes(100))
    samples = load_data(tmp_path)
    assert len(samples) == 1
    assert "skipped 2 of 3" in samples.notes[0]
    assert "too many" in samples.notes[0]


def test_a_set_too_large_for_memory_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_safety, "MOST_IN_MEMORY", 100)
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    assert len(load_data(tmp_path, limit=1)) == 1
    with pytest.raises(UnreadableData, match="smaller limit"):
        load_data(tmp_path)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    save(outside / "secret.png", 99)
    save(inside / "cat" / "a.png", 1)
    (inside / "cat" / "b.png").symlink_to(outside / "secret.png")
    (inside / "cat" / "c.png").symlink_to(inside / "cat" / "a.png")
    (inside / "dog").symlink_to(outside)
    samples = load_data(inside)
    assert samples.class_names == ("cat",)
    assert first_pixels(samples.images) == [1, 1]
    assert samples.notes[0] == "left out 1 linked folders"
    assert "'b.png' (a link that leads out of the folder)" in samples.notes[1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "'pipe.png' (no such file)" in load_data(tmp_path).notes[0]
