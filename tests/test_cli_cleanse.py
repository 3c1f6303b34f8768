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
from goodnet.cleanse._look import clouds
from goodnet.cleanse.files import cleanse_data
from goodnet.cleanse.scan import Scan
from goodnet.cleanse.spectral_signatures import SpectralSignatures
from goodnet.cli.main import app
from goodnet.errors import NotHeld, UnreadableData, UsageError


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
    page = (out / "report.html").read_text()
    assert f"{record['removed']} of {len(samples):,} images taken out" in page
    first = max(rows, key=lambda row: float(row["score"]))
    assert f'alt="id {first["id"]}, score' in page
    assert page.count("class=gone") >= 8
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
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


def marked(rows: list[dict[str, str]], marks: dict[int, str], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:  # as spreadsheets write it
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "mark": marks.get(int(row["id"]), row["mark"])} for row in rows)
    return path


def test_what_a_person_marks_is_heeded_told_and_kept_for_the_next_time(model, tmp_path):
    words = ["cleanse", "digits", "--model", model, "--method", "spectral-signatures", "--limit", 200]
    call(*words, "--out", tmp_path / "first")
    rows = table_of(tmp_path / "first")
    stays = [int(row["id"]) for row in rows if row["kept"] == "1"][:2]
    marks = {stays[0]: "poisoned", stays[1]: "clean"}
    table = marked(rows, marks, tmp_path / "marked.csv")
    again = call(*words, "--marks", table, "--out", tmp_path / "again", "--json")
    assert again.exit_code == 1, again.output
    record, after = json.loads(again.stdout), {int(row["id"]): row for row in table_of(tmp_path / "again")}
    assert record["marks"] == {"clean": 1, "poisoned": 1}
    assert "1 marked clean stay, 1 marked poisoned go" in record["rule"]
    assert [after[one]["kept"] for one in stays] == ["0", "1"]
    assert [after[one]["mark"] for one in stays] == ["poisoned", "clean"]
    before = {int(row["id"]): row["kept"] for row in rows}
    assert all(row["kept"] == before[one] for one, row in after.items() if one not in marks)
    assert sum(one["removed"] for one in record["labels"]) == record["removed"]
    assert len(goodnet.load_data(tmp_path / "again" / "kept.npz")) == 200 - record["removed"]
    turned = marked(list(after.values()), {stays[0]: "clean"}, tmp_path / "turned.csv")
    call(*words, "--marks", turned, "--out", tmp_path / "third")
    assert {int(row["id"]): row["kept"] for row in table_of(tmp_path / "third")}[stays[0]] == "1"


def test_images_marked_clean_serve_as_clean_images(model, tmp_path):
    digits = goodnet.load_data("digits", limit=300)
    rows = [{"id": str(one), "mark": ""} for one in digits.ids.tolist()]
    table = marked(rows, dict.fromkeys(digits.ids.tolist()[:200], "clean"), tmp_path / "marks.csv")
    alone = cleanse_data("digits", Scan(), model=model, marks=table, limit=300)
    assert alone.cleansed.provenance.counts["clean_images"] == 200
    held = tmp_path / "held.npz"
    np.savez(held, images=digits.images[:50].numpy(), labels=digits.labels[:50].numpy())
    both = cleanse_data("digits", Scan(), model=model, marks=table, clean=held, limit=300)
    assert both.cleansed.provenance.counts["clean_images"] == 250
    none = marked(rows, {}, tmp_path / "none.csv")
    with pytest.raises(NotHeld, match="marks none as clean"):
        cleanse_data("digits", Scan(), model=model, marks=none, limit=300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,mark\n0,\n1,bad\n", "line 3: the mark is 'bad'; write clean or poisoned"),
        ("id,mark\n1,clean\n1,clean\n", "line 3: the id 1 is marked twice"),
        ("id,mark\n99999,clean\n", "line 2: the set that is cleansed has no image with the id '99999'"),
        ("id,label,mark\n0,77,clean\n", "line 2: the label is '77', in the set it is"),
        ("id;mark\n0;clean\n", "columns 'id' and 'mark'"),
        ("", "columns 'id' and 'mark'"),
    ],
)
def test_a_wrong_table_of_marks_is_refused_with_its_line(text, message, model, tmp_path):
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(UnreadableData, match=message):
        cleanse_data("digits", SpectralSignatures(), model=model, marks=tmp_path / "marks.csv")


def test_the_page_names_sources_and_escapes_what_strangers_named(photos, model, tmp_path):
    files = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    table = tmp_path / "sources.csv"
    table.write_text("file,source\n" + "".join(f"{name},<b>camera {place % 3}\n" for place, name in enumerate(files)))
    out = tmp_path / "out"
    call("cleanse", photos, "--model", model, "--method", "spectral-signatures", "--sources", table, "--out", out)
    page = (out / "report.html").read_text()
    assert "&lt;b&gt;camera 1" in page
    assert "<b>" not in page
    assert page.count('<img class="pixels"') == 60  # every image of small classes is shown once


def test_features_are_drawn_of_labels_that_lose_most(model):
    result = cleanse_data("digits", SpectralSignatures(), model=model, limit=200)
    drawn = clouds(result.model, result.samples, result.cleansed)
    assert [len(cloud.points) for cloud in drawn] == [cloud.of for cloud in drawn]
    assert [len(cloud.kept) for cloud in drawn] == [cloud.of for cloud in drawn]
    assert len(drawn) == 4
    assert clouds(None, result.samples, result.cleansed) == ()


def test_a_device_that_does_not_exist_is_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="no device"):
        cleanse_data("nowhere", SpectralSignatures(), device="cuda:77")


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
