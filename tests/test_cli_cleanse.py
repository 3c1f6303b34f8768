"""goodnet cleanse as people and scripts meet it: what it writes, what it refuses, how it ends."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import goodnet
from goodnet.cleanse.files import cleanse_data
from goodnet.cleanse.spectral_signatures import SpectralSignatures
from goodnet.cli.main import app
from goodnet.errors import UnreadableData, UsageError


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "samples.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows nothing, for sets of digits."""
    folder = tmp_path_factory.mktemp("model") / "net"
    samples = goodnet.load_data("digits", limit=200)
    goodnet.save_model(goodnet.untrained("small_cnn_bn:width=4", samples), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder of images per class."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    samples = goodnet.load_data("digits", limit=60)
    for place, (image, label) in enumerate(zip(samples.images, samples.labels, strict=True)):
        inside = folder / f"digit{int(label)}"
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(inside / f"{place:03}.png")
    return folder


def test_poison_is_taken_out_and_the_rest_can_be_trained_with(dirty, tmp_path):
    samples = dirty.poisoned.samples
    np.savez(tmp_path / "train.npz", images=samples.images.numpy(), labels=samples.labels.numpy())
    goodnet.save_model(dirty.model, tmp_path / "net")
    out = tmp_path / "out"
    words = ["cleanse", tmp_path / "train.npz", "--model", tmp_path / "net", "--method", "spectral-signatures"]
    found = call(*words, "--out", out, "--json")
    assert found.exit_code == 1, found.output
    record = json.loads(found.stdout)
    assert json.loads((out / "cleanse.json").read_text()) == record
    rows = table_of(out)
    assert [int(row["id"]) for row in rows] == list(range(len(samples)))
    gone = [row["kept"] == "0" for row in rows]
    assert sum(gone) == record["removed"] > 0
    truth = dirty.poisoned.mask.tolist()
    assert sum(one and true for one, true in zip(gone, truth, strict=True)) >= 0.9 * sum(truth)
    kept = goodnet.load_data(out / "kept.npz")
    assert len(kept) == len(samples) - record["removed"]
    assert kept.labels.tolist() == [int(row["label"]) for row in rows if row["kept"] == "1"]
    told = call(*words, "--out", out)  # our own results may be replaced
    assert "images taken out" in told.stdout
    assert "label    3" in told.stdout


def test_a_network_is_trained_where_none_is_given(tmp_path):
    words = ["--limit", 150, "--epochs", 1, "--method", "spectral-signatures", "--out", tmp_path / "out", "--json"]
    made = call("cleanse", "digits", *words)
    assert made.exit_code in (0, 1), made.output
    record = json.loads(made.stdout)
    assert record["model"]["trained_here"] is True
    assert record["images"] == 150
    assert made.exit_code == (1 if record["removed"] else 0)


def test_files_are_named_where_images_are_files(photos, model, tmp_path):
    out = tmp_path / "out"
    call("cleanse", photos, "--model", model, "--method", "spectral-signatures", "--limit", 30, "--out", out)
    for row in table_of(out):
        assert (photos / row["file"]).is_file()
        assert row["file"].startswith(f"digit{row['label']}/")


def test_sources_come_from_a_table_by_file_or_by_id(photos, model, tmp_path):
    files = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    table = tmp_path / "sources.csv"
    table.write_text("file,source\n" + "".join(f"{name},camera {place % 3}\n" for place, name in enumerate(files)))
    result = cleanse_data(photos, SpectralSignatures(), model=model, sources=table)
    assert result.samples.sources.tolist() == [place % 3 for place in range(len(files))]
    table.write_text("id,source\n0,a\n")
    with pytest.raises(UnreadableData, match="no source for the id '1'"):
        cleanse_data(photos, SpectralSignatures(), model=model, sources=table)
    table.write_text("a,b\n0,1\n")
    with pytest.raises(UnreadableData, match="columns 'source'"):
        cleanse_data(photos, SpectralSignatures(), model=model, sources=table)
    table.write_text("file,source\nx,1\n")
    with pytest.raises(UsageError, match="no files of their own"):
        cleanse_data("digits", SpectralSignatures(), model=model, sources=table, limit=50)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "--method", "scan"], "--clean PATH"),
        (["digits", "--method", "scam"], "Did you mean 'scan'"),
        (["digits", "--set", "dimensions=0"], "dimensions must be in"),
        (["nowhere/"], "does not exist"),
    ],
)
def test_wrong_usage_says_what_to_do_and_writes_nothing(words, message, tmp_path):
    wrong = call("cleanse", *words, "--out", tmp_path / "out")
    assert wrong.exit_code == 2
    assert message in wrong.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    wrong = call("cleanse", "digits", "--out", tmp_path)
    assert wrong.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_python_in_the_page_on_cleansing_runs(capsys):
    page = (Path(__file__).parents[1] / "docs" / "cleanse.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "docs/cleanse.md", "exec"), names)
    assert len(names["kept"]) <= len(names["samples"])
    assert capsys.readouterr().out.startswith("labels with an anomaly index")
