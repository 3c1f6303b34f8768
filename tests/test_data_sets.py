"""The layouts of published sets, made tiny: GTSRB, CIFAR-10, MNIST; and the bundled digits."""

import gzip
import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from goodnet import load_data
from goodnet.data import _arrays, _safety, cifar10, gtsrb
from goodnet.data._layout import Selection
from goodnet.errors import UnknownName, UnreadableData, UnsafeFile

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def sign(inner: int, size: tuple[int, int] = (10, 8)) -> Image.Image:
    """White, with the region of interest (2, 3, 6, 7) filled with ``inner``."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels[3:7, 2:6] = inner
    return Image.fromarray(pixels)


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """GTSRB with two training frames of class 5, one of class 12, and two test frames."""
    root = tmp_path / "GTSRB"
    for label, count in [(5, 2), (12, 1)]:
        folder = root / "Final_Training" / "Images" / f"{label:05}"
        folder.mkdir(parents=True)
        rows = [f"{frame:05}_00000.ppm;10;8;2;3;6;7;{label}\n" for frame in range(count)]
        for frame in range(count):
            sign(label + frame).save(folder / f"{frame:05}_00000.ppm")
        (folder / f"GT-{label:05}.csv").write_text(HEADER + "".join(rows))
    folder = root / "Final_Test" / "Images"
    folder.mkdir(parents=True)
    for frame in range(2):
        sign(100 + frame).save(folder / f"{frame:05}.ppm")
    (root / "GT-final_test.csv").write_text(HEADER + "00001.ppm;10;8;2;3;6;7;7\n00000.ppm;10;8;2;3;6;7;42\n")
    return root


def test_signs_are_cut_to_their_region_of_interest(signs: Path) -> None:
    samples = load_data(signs)
    assert samples.shape == (3, 32, 32)
    assert [image.unique().tolist() for image in samples.images] == [[5], [6], [12]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [5, 5, 12]
    assert samples.class_names[12] == "priority road"
    assert len(samples.class_names) == 43
    assert samples.notes == ("frames are cut to the region of interest",)


def test_the_track_of_a_training_sign_is_its_source(signs: Path) -> None:
    folder = signs / "Final_Training" / "Images" / "00005"
    sign(9).save(folder / "00001_00001.ppm")
    with (folder / "GT-00005.csv").open("a") as table:
        table.write("00001_00001.ppm;10;8;2;3;6;7;5\n")
    sources = load_data(signs).sources
    assert sources is not None
    assert sources.tolist() == [0, 1, 1, 2]  # the first track of the next class is another one
    assert load_data(signs, split="test").sources is None


def test_signs_can_be_kept_whole(signs: Path) -> None:
    samples = gtsrb.load(signs, Selection(shape=(3, 8, 10)), crop=False)
    assert np.array_equal(samples.images[0], np.asarray(sign(5)).transpose(2, 0, 1))
    assert "whole" in samples.notes[0]


@pytest.mark.parametrize("table", ["../GT-final_test.csv", "GT-final_test.csv", "Final_Test/Images/GT-final_test.csv"])
def test_test_signs_are_found_wherever_their_table_was_unpacked(signs: Path, table: str) -> None:
    (signs / "GT-final_test.csv").rename(signs / table)
    for place in (signs, signs.parent):
        samples = load_data(place, split="test")
        assert samples.labels is not None
        assert samples.labels.tolist() == [7, 42]
        assert samples.images[:, 0, 0, 0].tolist() == [101, 100]


def test_the_folder_of_a_split_of_signs_is_that_split(signs: Path) -> None:
    test_labels = load_data(signs / "Final_Test" / "Images").labels
    train_labels = load_data(signs / "Final_Training" / "Images").labels
    assert test_labels is not None
    assert train_labels is not None
    assert test_labels.tolist() == [7, 42]
    assert train_labels.tolist() == [5, 5, 12]
    with pytest.raises(UnknownName, match="Known: train"):
        load_data(signs / "Final_Training" / "Images", split="test")


def test_a_missing_sign_is_skipped_with_its_label(signs: Path) -> None:
    (signs / "Final_Training" / "Images" / "00005" / "00000_00000.ppm").unlink()
    samples = load_data(signs)
    assert samples.labels is not None
    assert samples.labels.tolist() == [5, 12]
    assert samples.images[:, 0, 0, 0].tolist() == [6, 12]
    assert samples.ids is not None
    assert samples.ids.tolist() == [1, 2]
    assert "skipped 1 of 3 images: '00000_00000.ppm' (no such file)" in samples.notes


def test_a_limit_of_signs_draws_rows_of_the_tables(signs: Path) -> None:
    samples = load_data(signs, limit=2, seed=1)
    everything = load_data(signs)
    assert len(samples) == 2
    assert samples.ids is not None
    assert torch.equal(samples.images, everything.images[samples.ids])


@pytest.mark.parametrize("box", ["2;3;60;7", "-1;3;6;7", "6;3;2;7", "2;3;2;7", "0;0;99999999;99999999"])
def test_a_region_outside_of_its_frame_is_skipped(signs: Path, box: str) -> None:
    table = signs / "Final_Training" / "Images" / "00012" / "GT-00012.csv"
    table.write_text(HEADER + f"00000_00000.ppm;10;8;{box};12\n")
    assert "region of interest" in load_data(signs).notes[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../00005/00000_00000.ppm;10;8;2;3;6;7;12\n", "not in its folder"),
        ("/etc/passwd;10;8;2;3;6;7;12\n", "not in its folder"),
        ("..;10;8;2;3;6;7;12\n", "no such file"),
        (";10;8;2;3;6;7;12\n", "not in its folder"),
        ("00000_00000.ppm;10;8;2;3;6;7;43\n", "class 43"),
        ("00000_00000.ppm;10;8;2;3;6;7;x\n", "cannot be read"),
        ("00000_00000.ppm;10\n", "cannot be read"),
    ],
)
def test_a_table_that_lies_is_refused(signs: Path, row: str, message: str) -> None:
    (signs / "Final_Training" / "Images" / "00012" / "GT-00012.csv").write_text(HEADER + row)
    for folder in (signs / "Final_Training" / "Images").iterdir():
        if folder.name != "00012":
            (folder / f"GT-{folder.name}.csv").unlink()
    with pytest.raises(UnreadableData, match=message):
        load_data(signs)


def test_a_table_without_class_ids_is_refused(signs: Path) -> None:
    (signs / "GT-final_test.csv").write_text(HEADER.replace(";ClassId", "") + "00001.ppm;10;8;2;3;6;7\n")
    with pytest.raises(UnreadableData, match="ClassId"):
        load_data(signs, split="test")


def test_signs_behind_a_link_out_of_the_folder_are_refused(signs: Path, tmp_path: Path) -> None:
    images = signs / "Final_Training" / "Images"
    (images / "00012").rename(tmp_path / "elsewhere")
    (images / "00012").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnreadableData, match="link"):
        load_data(signs)


def test_a_table_that_is_a_link_is_refused(signs: Path, tmp_path: Path) -> None:
    table = signs / "Final_Training" / "Images" / "00012" / "GT-00012.csv"
    table.rename(tmp_path / "table.csv")
    table.symlink_to(tmp_path / "table.csv")
    with pytest.raises(UnreadableData, match="link"):
        load_data(signs)


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
LABELS = [number % 10 for number in range(12)]


def write_binary_cifar(folder: Path) -> Path:
    folder.mkdir()
    records = np.column_stack([np.array(LABELS, np.uint8), PIXELS.reshape(12, -1)])
    for batch in range(5):
        (folder / f"data_batch_{batch + 1}.bin").write_bytes(records[2 * batch : 2 * batch + 2].tobytes())
    (folder / "test_batch.bin").write_bytes(records[10:].tobytes())
    return folder


def pickled_by_python_2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as published, opcode for opcode: protocol 2, byte strings, numpy.core.multiarray._reconstruct."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01" + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + text(b"batch_label") + text(b"1") + b"u."


def write_pickled_cifar(folder: Path, python_2: bool = True) -> Path:
    folder.mkdir()
    for batch, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        pixels, labels = PIXELS[2 * batch : 2 * batch + 2].reshape(2, -1), LABELS[2 * batch : 2 * batch + 2]
        content = (
            pickled_by_python_2(pixels, labels)
            if python_2
            else pickle.dumps({"data": pixels, "labels": labels}, protocol=4)
        )
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", ["binary", "Python 2", "Python 3"])
def test_cifar10_is_read_from_either_version(tmp_path: Path, kind: str) -> None:
    if kind == "binary":
        folder = write_binary_cifar(tmp_path / "cifar-10-batches-bin")
    else:
        folder = write_pickled_cifar(tmp_path / "cifar-10-batches-py", kind == "Python 2")
    (tmp_path / "other").mkdir()
    for place in (folder, tmp_path):
        samples = load_data(place)
        assert np.array_equal(samples.images, PIXELS[:10])
        assert samples.labels is not None
        assert samples.labels.tolist() == LABELS[:10]
        assert samples.class_names[3] == "cat"
        tested = load_data(place, split="test")
        assert np.array_equal(tested.images, PIXELS[10:])
    few = load_data(folder, limit=3, seed=2)
    assert few.ids is not None
    assert np.array_equal(few.images, PIXELS[few.ids])
    assert few.labels is not None
    assert few.labels.tolist() == [LABELS[position] for position in few.ids]


def test_the_handmade_batch_is_what_pickle_reads() -> None:
    batch = pickle.loads(pickled_by_python_2(PIXELS[:2].reshape(2, -1), [4, 2]), encoding="bytes")
    assert np.array_equal(batch[b"data"], PIXELS[:2].reshape(2, -1))
    assert batch[b"labels"] == [4, 2]


class Touches:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_hostile_cifar10_pickle_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    folder = write_pickled_cifar(tmp_path / "batches")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (folder / "data_batch_2").write_bytes(pickle.dumps({"data": Touches(tmp_path / "run")}, protocol=protocol))
        with pytest.raises(UnsafeFile, match=r"mkdir.*nothing was run") as caught:
            load_data(folder)
        assert caught.value.findings[0].endswith(".mkdir")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "numpy\nload",
        "numpy.core.multiarray\nscalar",
        "numpy\nndarray.tofile",
        "copyreg\n_reconstructor",
    ],
)
def test_cifar10_pickles_may_name_nothing_but_arrays(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x02c" + name.encode() + b"\n.")
    with pytest.raises(UnsafeFile, match=name.split("\n")[0]):
        load_data(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}.",
        b"\x80\x02].",
        b"\x80\x02K\x05r\xff\xff\xff\x7f.",  # a memo index of two billion
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",  # a byte string of 2**56
        b"\x80\x02cnumpy\nndarray\nK\x01b.",  # state for a class instead of an object
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1).astype(float), "labels": [0, 1]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1).astype(np.int8), "labels": [0, 1]}, protocol=4),
        pickle.dumps({"data": np.asfortranarray(PIXELS[:2].reshape(2, -1)), "labels": [0, 1]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2], "labels": [0, 1]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1), "labels": [0, 3.5]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1), "labels": [0, 1, 2]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1), "labels": [0, 10]}, protocol=4),
        pickle.dumps({"data": PIXELS[:2].reshape(2, -1), "labels": [0, -1]}, protocol=4),
        pickled_by_python_2(PIXELS[:2].reshape(2, -1), [0, 1])[:-100],
    ],
)
def test_a_damaged_cifar10_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(UnreadableData):
        load_data(tmp_path)


def test_a_memo_index_in_a_pickle_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"\x80\x02K\x05r\x00\x00\x00\x01.")  # index 2**24
    tracemalloc.start()
    with pytest.raises(UnreadableData):
        load_data(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no images"),
        (bytes(3072), "download complete"),
        (bytes(3074), "download complete"),
        (b"\x0a" + bytes(3072), "up to 10"),
    ],
)
def test_a_damaged_cifar10_binary_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(UnreadableData, match=message):
        load_data(tmp_path)


def test_batches_and_tables_of_absurd_size_are_refused_unread(
    tmp_path: Path, signs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "_MOST_BATCH_BYTES", 1000)
    with pytest.raises(UnreadableData, match="larger than any"):
        load_data(write_binary_cifar(tmp_path / "batches"))
    monkeypatch.setattr(gtsrb, "_MOST_TABLE_BYTES", 10)
    with pytest.raises(UnreadableData, match="larger than any"):
        load_data(signs)


GRAY = PIXELS[:, 0, :28, :20]


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_mnist_is_read_plain_and_gzipped(tmp_path: Path, suffix: str, mark: str) -> None:
    pack = gzip.compress if suffix else bytes
    labels = np.array(LABELS, np.uint8)
    for name, chosen in [("train", slice(0, 9)), ("t10k", slice(9, 12))]:
        (tmp_path / f"{name}-images{mark}idx3-ubyte{suffix}").write_bytes(pack(idx(GRAY[chosen])))
        (tmp_path / f"{name}-labels{mark}idx1-ubyte{suffix}").write_bytes(pack(idx(labels[chosen])))
    samples, tested = load_data(tmp_path), load_data(tmp_path, split="test")
    assert np.array_equal(samples.images[:, 0], GRAY[:9])
    assert np.array_equal(tested.images[:, 0], GRAY[9:])
    assert tested.labels is not None
    assert tested.labels.tolist() == LABELS[9:]
    few = load_data(tmp_path, limit=4)
    assert few.ids is not None
    assert few.labels is not None
    assert np.array_equal(few.images[:, 0], GRAY[few.ids])
    assert few.labels.tolist() == [LABELS[position] for position in few.ids]


def test_mnist_without_labels_has_none_and_with_too_few_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(GRAY))
    assert load_data(tmp_path).labels is None
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(UnreadableData, match="12 images need labels"):
        load_data(tmp_path)


def test_a_large_idx_file_stays_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arrays, "LARGE", 100)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(GRAY))
    samples = load_data(tmp_path)
    with path.open("r+b") as file:
        file.seek(16)
        file.write(bytes([GRAY[0, 0, 0] ^ 255]))
    assert samples.images[0, 0, 0, 0] == GRAY[0, 0, 0] ^ 255


@pytest.mark.parametrize(
    "content",
    [
        b"",
        idx(GRAY)[:-1],
        idx(GRAY) + b"x",
        b"\0\0\x0d\x03" + idx(GRAY)[4:],
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 0, 28),
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 300_000, 32, 32) + bytes(1000),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes) -> None:
    plain, packed = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-images-idx3-ubyte.gz"
    plain.write_bytes(content)
    with pytest.raises(UnreadableData):
        load_data(tmp_path)
    plain.unlink()
    packed.write_bytes(gzip.compress(content))
    with pytest.raises(UnreadableData):
        load_data(tmp_path)


def test_a_gzipped_idx_file_is_bounded_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 300_000, 32, 32) + bytes(10**5)))
    with pytest.raises(UnreadableData, match="no images compress like that"):
        load_data(tmp_path)
    path.write_bytes(gzip.compress(idx(GRAY)))
    monkeypatch.setattr(_safety, "MOST_IN_MEMORY", GRAY.size - 1)
    with pytest.raises(UnreadableData, match="smaller limit"):
        load_data(tmp_path)


def test_a_gzipped_idx_file_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=0) as file:
        file.write(idx(GRAY))
    content = bytearray(stream.getvalue())
    content[len(content) // 2] ^= 1
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UnreadableData, match="CRC"):
        load_data(tmp_path)


def test_the_bundled_digits_have_fixed_stratified_splits() -> None:
    train, test = load_data("digits"), load_data("digits", split="test")
    assert train.shape == (1, 32, 32)
    assert (len(train), len(test)) == (1442, 355)
    assert train.class_names == tuple("0123456789")
    assert train.labels is not None
    assert test.labels is not None
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert share.min() > 0.19
    assert share.max() <= 0.2
    assert train.images.max() == 255
    assert train.images.double().mean().item() == pytest.approx(77.7, abs=0.5)
    seen = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in seen for image in test.images)


def test_a_limit_of_digits_keeps_image_and_label_together() -> None:
    everything, few = load_data("digits"), load_data("digits", limit=50, seed=9)
    assert few.ids is not None
    assert torch.equal(few.images, everything.images[few.ids])
    assert few.labels is not None
    assert everything.labels is not None
    assert torch.equal(few.labels, everything.labels[few.ids])


def test_digits_fit_a_model_that_wants_color() -> None:
    samples = load_data("digits", limit=5, shape=(3, 28, 28))
    assert samples.shape == (3, 28, 28)
    assert torch.equal(samples.images[:, 0], samples.images[:, 2])
