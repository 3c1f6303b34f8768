"""The entrance: what is recognized, what is said when nothing is, and how the layouts are found."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import goodnet
from goodnet import load_data
from goodnet.data import _layout
from goodnet.errors import UnreadableData


def test_every_file_of_the_folder_that_holds_a_layout_is_found() -> None:
    layouts = _layout.layouts()
    assert {layout.name for layout in layouts} == {
        "cifar10", "digits", "gtsrb", "hdf5_file", "image_folder", "mnist", "numpy_file", "poisoned_folder",
    }  # fmt: skip
    assert [layout.name for layout in layouts if layout.fallback] == [layouts[-1].name]


def test_a_path_that_does_not_exist_lists_what_can_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match="does not exist") as caught:
        load_data(tmp_path / "nowhere.png")
    message = str(caught.value)
    for layout in _layout.layouts():
        assert layout.description in message
    for owner in ("Bochum", "Toronto", "LeCun", "Amherst", "CSAW"):
        assert owner in message


def test_a_folder_of_nothing_known_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match="is empty"):
        load_data(tmp_path)
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_text("")
    with pytest.raises(UnreadableData, match="'a.h5', 'b.h5'"):
        load_data(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnreadableData, match="is a file"):
        load_data(tmp_path / "notes.txt")


def test_the_only_file_in_a_folder_stands_for_the_folder(tmp_path: Path) -> None:
    (tmp_path / "csaw").mkdir()
    (tmp_path / ".DS_Store").write_text("")
    with h5py.File(tmp_path / "csaw" / "clean.h5", "w") as file:
        file["data"] = np.zeros((2, 3, 4, 4), np.uint8)
    assert len(load_data(tmp_path)) == 2


def test_the_only_file_in_a_folder_is_not_followed_if_it_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "secret.npy", np.zeros((2, 3, 4, 4), np.uint8))
    (tmp_path / "in" / "data.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(UnreadableData, match="'data.npy'"):
        load_data(tmp_path / "in")


def test_the_bundled_name_wins_over_a_folder_that_can_still_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(load_data("digits", limit=7)) == 7
    assert len(load_data("./digits")) == 1
    assert len(load_data(tmp_path / "digits")) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UnreadableData, match="Permission denied"):
        load_data(tmp_path / "closed")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_cannot_be_paths_are_unreadable(name: str) -> None:
    with pytest.raises(UnreadableData, match="cannot be read|does not exist|is no layout"):
        load_data(name)


def test_any_layout_is_fitted_to_the_shape_that_a_model_wants(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 3, 10, 12), 77, np.uint8))
    samples = load_data(tmp_path / "a.npy", shape=(1, 5, 6))
    assert samples.shape == (1, 5, 6)
    assert samples.images.unique().tolist() == [77]


def test_load_data_is_a_public_name_of_the_library() -> None:
    assert goodnet.load_data is load_data
    assert "load_data" in goodnet.__all__
