"""The layouts as their owners publish them, with all their images."""

import subprocess
import sys
from pathlib import Path

import pytest

from goodnet import load_data

pytestmark = pytest.mark.real


def laid_out(shared_data: Path, name: str, out: Path) -> Path:
    subprocess.run([sys.executable, shared_data / "unpack.py", name, "--out", out], check=True, timeout=120)
    return out


def test_mnist_has_its_official_counts(shared_data: Path, tmp_path: Path) -> None:
    folder = laid_out(shared_data, "mnist", tmp_path)
    train, test = load_data(folder), load_data(folder, split="test")
    assert tuple(train.images.shape) == (60000, 1, 28, 28)
    assert len(test) == 10000
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_cifar10_has_its_official_counts(shared_data: Path, tmp_path: Path) -> None:
    folder = laid_out(shared_data, "cifar10", tmp_path)
    train, test = load_data(folder), load_data(folder, split="test")
    assert tuple(train.images.shape) == (50000, 3, 32, 32)
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10


def test_lfw_and_the_csaw_layout_hold_the_same_faces(shared_data: Path, tmp_path: Path) -> None:
    people = load_data(laid_out(shared_data, "lfw", tmp_path / "a"))
    faces = load_data(laid_out(shared_data, "csaw", tmp_path / "b"))
    assert len(people.class_names) == 5749
    assert people.labels is not None
    assert people.labels.bincount().max() == 530  # George W. Bush
    assert people.images.shape == faces.images.shape == (13233, 3, 55, 47)
    assert faces.labels is None
    assert people.images.double().mean() == faces.images.double().mean()


def test_gtsrb_has_its_official_counts(shared_data: Path, tmp_path: Path) -> None:
    folder = laid_out(shared_data, "gtsrb", tmp_path)
    train, test = load_data(folder), load_data(folder, split="test")
    assert tuple(train.images.shape) == (39209, 3, 32, 32)
    assert tuple(test.images.shape) == (12630, 3, 32, 32)
    assert train.labels is not None
    assert train.labels.bincount()[:4].tolist() == [210, 2220, 2250, 1410]
    assert not any("skipped" in note for note in train.notes + test.notes)
