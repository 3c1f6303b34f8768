"""NumPy and HDF5 files: names, axes, ranges, sizes, and files that were made to do harm."""

import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from goodnet import load_data
from goodnet.data import _arrays, _safety, hdf5_file
from goodnet.data._layout import Selection
from goodnet.errors import UnknownName, UnreadableData, UnsafeFile, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 4), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2])


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def write_h5(path: Path, options: dict | None = None, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **(options or {}))
    return path


def write_npy_header(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("image_name", "label_name"), [("images", "labels"), ("data", "label"), ("X", "y"), ("x_train", "y_train")]
)
def test_the_usual_names_are_understood(tmp_path: Path, image_name: str, label_name: str) -> None:
    arrays = {image_name: IMAGES, label_name: LABELS, "other": np.zeros(3)}
    for path in (write_npz(tmp_path / "a.npz", **arrays), write_h5(tmp_path / "a.h5", **arrays)):
        samples = load_data(path)
        assert np.array_equal(samples.images, IMAGES)
        assert samples.labels is not None
        assert samples.labels.tolist() == LABELS.tolist()


def test_splits_are_found_by_name_before_or_after(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", x_train=IMAGES[:4], y_train=LABELS[:4], test_images=IMAGES[4:])
    assert np.array_equal(load_data(path).images, IMAGES[:4])
    tested = load_data(path, split="test")
    assert np.array_equal(tested.images, IMAGES[4:])
    assert tested.labels is None
    with pytest.raises(UnknownName, match="train, test"):
        load_data(path, split="val")


def test_a_file_without_images_lists_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UnreadableData, match="'model_weights'"):
        load_data(write_h5(tmp_path / "a.h5", model_weights=LABELS))
    with pytest.raises(UnreadableData, match="'faces'"):
        load_data(write_npz(tmp_path / "a.npz", faces=IMAGES))


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5", "chunked.h5"])
def test_a_limit_picks_the_same_rows_with_their_labels(tmp_path: Path, suffix: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (100, 1, 3, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, images)
    elif suffix == "npz":
        write_npz(path, images=images, labels=np.arange(100))
    else:
        options = {"chunks": (7, 1, 3, 3), "compression": "gzip"} if suffix == "chunked.h5" else None
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=images, **(options or {}))
            file["label"] = np.arange(100)
    samples = load_data(path, limit=20, seed=5)
    assert samples.ids is not None
    assert len(samples.ids.unique()) == 20
    assert np.array_equal(samples.images, images[samples.ids])
    if samples.labels is not None:
        assert torch.equal(samples.labels, samples.ids)
    assert (samples.labels is None) == (suffix == "npy")
    assert torch.equal(samples.ids, load_data(path, limit=20, seed=5).ids)
    assert not torch.equal(samples.ids, load_data(path, limit=20, seed=6).ids)
    assert np.array_equal(load_data(path).images, images)


@pytest.mark.parametrize(
    "stored",
    [
        IMAGES.transpose(0, 2, 3, 1),
        np.asfortranarray(IMAGES),
        IMAGES.astype(np.float32) / 255,
        IMAGES.transpose(0, 2, 3, 1).astype(np.float64) / 255,
        IMAGES.astype(np.float32),
        IMAGES.astype(">f4"),
        IMAGES.astype(np.float16),
        IMAGES.astype(np.int64),
        np.concatenate([IMAGES, IMAGES[:, :1]], 1),
    ],
    ids=["channels last", "Fortran", "0..1", "0..1 last", "0..255", "big endian", "float16", "int64", "RGBA"],
)
def test_axes_and_ranges_are_understood(tmp_path: Path, stored: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", stored)
    for path in (
        write_npz(tmp_path / "a.npz", images=stored),
        write_h5(tmp_path / "a.h5", data=stored),
        write_h5(tmp_path / "b.h5", {"chunks": True}, data=stored),
        tmp_path / "a.npy",
    ):
        assert np.array_equal(load_data(path).images, IMAGES)


def test_gray_and_bool_images_are_understood(tmp_path: Path) -> None:
    assert load_data(write_npz(tmp_path / "a.npz", x=IMAGES[:, 0])).shape == (1, 5, 4)
    assert load_data(write_npz(tmp_path / "a.npz", x=IMAGES[:, :1])).shape == (1, 5, 4)
    assert load_data(write_npz(tmp_path / "a.npz", x=IMAGES[:, 0] > 99)).images.unique().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES - 128.0, "normalized"),
        (IMAGES * 2.0, "0..255"),
        (np.where(IMAGES > 99, np.nan, 0.5), "nan"),
        (np.where(IMAGES > 99, np.inf, 0.5), "inf"),
        (IMAGES.astype(complex), "numbers"),
        (IMAGES.reshape(7, -1), "got"),
        (np.zeros((4, 6, 6, 6), np.uint8), "channels"),
        (IMAGES[:0], "shape"),
    ],
)
def test_images_of_other_ranges_and_shapes_are_refused(tmp_path: Path, images: np.ndarray, message: str) -> None:
    with pytest.raises(UnreadableData, match=message):
        load_data(write_npz(tmp_path / "a.npz", images=images))


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS.astype(float), LABELS.astype(">u2")])
def test_labels_of_any_whole_numbers_are_understood(tmp_path: Path, labels: np.ndarray) -> None:
    samples = load_data(write_h5(tmp_path / "a.h5", data=IMAGES, label=labels))
    assert samples.labels is not None
    assert samples.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("labels", [LABELS[:5], LABELS + 0.5, LABELS - 3, LABELS * 10**7, np.full(7, np.nan)])
def test_labels_that_cannot_be_are_refused(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(UnreadableData, match="labels"):
        load_data(write_npz(tmp_path / "a.npz", images=IMAGES, labels=labels))


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    objects = np.array([Hostile()] * 3, object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=objects)
    np.savez(tmp_path / "b.npz", images=IMAGES, labels=np.array([Hostile()] * 7, object))
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(UnsafeFile, match="pickled objects"):
            load_data(tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "shape", ["(2305843009213693952, 3, 8, 8)", "(5000, 3, 999, 999)", "(4, 0, 8, 8)", "(-4, 3, 8)", "()"]
)
@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_an_absurd_shape_is_refused_at_once(tmp_path: Path, name: str, shape: str) -> None:
    content = write_npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}") + bytes(1000)
    if name == "a.npy":
        (tmp_path / name).write_bytes(content)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("images.npy", content)
    with pytest.raises(UnreadableData, match=r"shape|compress|ends after|mmap length"):
        load_data(tmp_path / name)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = write_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (300, 1024, 1024)}")
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as f,
    ):
        f.write(header)
        for _ in range(300):
            f.write(bytes(2**20))
    start = time.monotonic()
    with pytest.raises(UnreadableData, match="no images compress like that"):
        load_data(tmp_path / "a.npz")
    assert time.monotonic() - start < 0.5, "it was unpacked"


def test_a_zip_bomb_that_lies_about_its_packed_size_is_refused(tmp_path: Path) -> None:
    content = write_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (300, 1024, 1024)}") + bytes(10**5)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
        archive.filelist[0].compress_size = 2**31  # goes to the directory at the end, which is what is believed
    with pytest.raises(UnreadableData, match="no images compress like that"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.h5", "chunked.h5", "mapped.npy"])
def test_what_would_not_fit_in_memory_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    images = IMAGES if name != "mapped.npy" else IMAGES / 255
    match name.split("."):
        case _, "npz":
            write_npz(tmp_path / name, images=images)
        case _, "npy":
            np.save(tmp_path / name, images)
        case kind, _:
            write_h5(tmp_path / name, {"chunks": (1, 3, 5, 4)} if kind == "chunked" else None, data=images)
    monkeypatch.setattr(_safety, "MOST_IN_MEMORY", images.size - 1)
    if name == "mapped.npy":  # the file stays on disk, the pixels made from its floats do not
        monkeypatch.setattr(_arrays, "LARGE", 100)
    with pytest.raises(UnreadableData, match="smaller limit"):
        load_data(tmp_path / name)
    if name != "a.npz":
        few = images[:1].nbytes
        monkeypatch.setattr(_safety, "MOST_IN_MEMORY", few)
        assert len(load_data(tmp_path / name, limit=1)) == 1
        with pytest.raises(UnreadableData, match="smaller limit"):
            load_data(tmp_path / name, limit=2)


def test_a_small_set_does_not_depend_on_its_file_any_more(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    samples = load_data(tmp_path / "a.npy")
    with (tmp_path / "a.npy").open("r+b") as file:
        file.seek(128)
        file.write(bytes(IMAGES.nbytes))
    assert np.array_equal(samples.images, IMAGES)


def test_floats_are_rounded_and_what_resizing_left_outside_is_clipped(tmp_path: Path) -> None:
    images = np.array([[[-0.001, 0.999, 1.001, 0.5]]])
    assert load_data(write_npz(tmp_path / "a.npz", x=images)).images.flatten().tolist() == [0, 255, 255, 128]
    images = np.array([[[-0.4, 254.6, 255.4, 127.2]]])
    assert load_data(write_npz(tmp_path / "a.npz", x=images)).images.flatten().tolist() == [0, 255, 255, 127]


def test_headers_written_by_python_2_are_read_quietly(tmp_path: Path) -> None:
    header = write_npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (7L, 3L, 5L, 4L), }")
    (tmp_path / "a.npy").write_bytes(header + IMAGES.tobytes())
    assert np.array_equal(load_data(tmp_path / "a.npy").images, IMAGES)


def test_a_damaged_archive_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[300] ^= 1  # a pixel
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UnreadableData, match="CRC"):
        load_data(tmp_path / "a.npz")


def test_a_compressed_hdf5_bomb_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (10**6, 3, 55, 47), np.uint8, chunks=(1, 3, 55, 47), compression="gzip")
    with pytest.raises(UnreadableData, match="no images compress like that"):
        load_data(tmp_path / "a.h5", limit=5)


def test_chunks_that_would_be_unpacked_to_a_great_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_file, "_MOST_CHUNK_BYTES", 200)
    assert len(load_data(write_h5(tmp_path / "a.h5", {"chunks": (3, 3, 5, 4)}, data=IMAGES))) == 7
    with pytest.raises(UnreadableData, match="too large"):
        load_data(write_h5(tmp_path / "a.h5", {"chunks": (4, 3, 5, 4)}, data=IMAGES))


def test_hdf5_that_leads_to_other_files_is_refused(tmp_path: Path) -> None:
    secret = write_h5(tmp_path / "secret.h5", data=IMAGES)
    with h5py.File(tmp_path / "external_link.h5", "w") as file:
        file["data"] = h5py.ExternalLink(str(secret), "data")
    with h5py.File(tmp_path / "soft_link.h5", "w") as file:
        file["out"] = h5py.ExternalLink(str(secret), "/")
        file["data"] = h5py.SoftLink("/out/data")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
        layout[:] = h5py.VirtualSource(str(secret), "data", IMAGES.shape)
        file.create_virtual_dataset("data", layout)
    with h5py.File(tmp_path / "storage.h5", "w") as file:
        file.create_dataset("data", IMAGES.shape, np.uint8, external=[(str(secret), 0, IMAGES.nbytes)])
    for name in ("external_link", "soft_link", "virtual", "storage"):
        with pytest.raises(UnreadableData, match="other file"):
            load_data(tmp_path / f"{name}.h5")


def test_labels_of_hdf5_that_lead_to_other_files_are_refused(tmp_path: Path) -> None:
    secret = write_h5(tmp_path / "secret.h5", label=LABELS)
    write_h5(tmp_path / "a.h5", data=IMAGES)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["label"] = h5py.ExternalLink(str(secret), "label")
    with pytest.raises(UnreadableData, match="other file"):
        load_data(tmp_path / "a.h5")


def test_hdf5_without_usable_arrays_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("data")
    with pytest.raises(UnreadableData, match="not an array"):
        load_data(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = ["a", "b"]
    with pytest.raises(UnreadableData, match="not numbers"):
        load_data(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("no HDF5 at all")
    with pytest.raises(UnreadableData, match="cannot be read as an HDF5 file"):
        load_data(tmp_path / "b.h5")


@pytest.mark.parametrize("stored", [IMAGES, IMAGES.transpose(0, 2, 3, 1)], ids=["channels first", "channels last"])
@pytest.mark.parametrize("name", ["a.npy", "a.h5", "userblock.h5"])
def test_large_sets_stay_memory_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stored: np.ndarray
) -> None:
    monkeypatch.setattr(_arrays, "LARGE", 100)
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, stored)
    else:
        with h5py.File(path, "w", userblock_size=512 if name == "userblock.h5" else 0) as file:
            file["data"] = stored
    samples = load_data(path)
    assert np.array_equal(samples.images, IMAGES)
    before = path.read_bytes()
    at = before.index(IMAGES[0, 0, 0, :1].tobytes() + stored.reshape(-1)[1:40].tobytes())
    with path.open("r+b") as file:  # the mapping sees the change, a copy would not
        file.seek(at)
        file.write(bytes([int(IMAGES[0, 0, 0, 0]) ^ 255]))
    assert int(samples.images[0, 0, 0, 0]) == int(IMAGES[0, 0, 0, 0]) ^ 255
    changed = path.read_bytes()
    samples.images[1] = 0  # and what is done to it never reaches the file
    assert path.read_bytes() == changed


def test_numbers_that_hdf5_converts_on_reading_are_not_mapped(tmp_path: Path) -> None:
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)  # twelve bits in the upper part of two bytes: not what NumPy would read there
    values = IMAGES.astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, b"data", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    assert np.array_equal(load_data(tmp_path / "a.h5").images, IMAGES)


def test_a_split_of_arrays_without_splits_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    write_npz(tmp_path / "a.npz", images=IMAGES)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UsageError, match="split"):
            load_data(tmp_path / name, split="test")


def test_only_the_drawn_chunks_of_a_compressed_set_are_unpacked(tmp_path: Path) -> None:
    images = np.zeros((1000, 1, 32, 32), np.uint8)
    unpacked = []

    class Counted:
        shape, chunks, nbytes, dtype = images.shape, (10, 1, 32, 32), images.nbytes, images.dtype

        class id:  # noqa: N801
            get_offset = staticmethod(lambda: None)

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, rows: slice) -> np.ndarray:
            unpacked.append(rows)
            return images[rows]

    rows, positions = hdf5_file._rows(Counted(), Selection(limit=5), tmp_path / "a.h5")
    assert rows.shape == (5, 1, 32, 32)
    assert len(unpacked) <= 5
    assert len(positions) == 5
