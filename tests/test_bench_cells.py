"""Rows of a suite become cells; cells train, measure and audit."""

from functools import partial

import pytest
import torch

from goodnet.bench import Store, run_cells
from goodnet.bench.cells import cell_of, perform
from goodnet.bench.datasets import DataSpec, open_data
from goodnet.errors import UnknownName, UnreadableData, UsageError

ROW = {
    "data": {"name": "digits", "train": 600, "test": 100},
    "architecture": "small_cnn",
    "attack": {"name": "badnets", "target": 2, "size": 6, "row": -6, "column": -6},
    "recipe": {"epochs": 6, "batch_size": 16, "learning_rate": 0.002, "optimizer": "adam"},
}


def test_a_row_names_everything_that_its_result_depends_on():
    cell = cell_of(ROW)
    assert cell.kind == "model"
    assert cell.parameters["attack"]["version"] >= 1
    assert cell.parameters["attack"]["parameters"]["place"] == "at"  # so that another default is another cell
    assert cell.parameters["recipe"]["schedule"] == "one-cycle"
    assert cell_of(ROW | {"seed": 1}).key != cell.key
    assert cell_of(ROW | {"attack": "none"}).parameters["attack"] is None


def test_an_audit_needs_the_net_that_it_judges():
    audit = cell_of(ROW | {"audit": {"name": "neural-cleanse", "steps": 10}})
    assert (audit.kind, [cell.key for cell in audit.needs]) == ("audit", [cell_of(ROW).key])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"colour": 1}, UsageError, "colour"),
        ({"attack": "badnet"}, UnknownName, "badnets"),
        ({"attack": {"name": "badnets", "sise": 3}}, UnknownName, "size"),
        ({"attack": {"size": 3}}, UsageError, "name"),
        ({"recipe": {"epoch": 3}}, UnknownName, "epochs"),
        ({"data": {"name": "digits", "trian": 3}}, UsageError, "trian"),
    ],
)
def test_what_a_row_gets_wrong_is_named(change, error, message):
    with pytest.raises(error, match=message):
        cell_of(ROW | change)


def test_a_net_is_trained_once_measured_and_audited(tmp_path):
    store = Store(tmp_path)
    audit = cell_of(ROW | {"audit": {"name": "neural-cleanse", "steps": 3, "images": 4}})
    summary = run_cells([audit, cell_of(ROW)], store, perform)
    assert (summary.done, summary.failed) == (2, 0)
    trained = store.result(cell_of(ROW))
    assert trained["train_images"] == 600
    assert trained["clean_accuracy"]["value"] > 0.5
    assert trained["clean_accuracy"]["count"] == 100
    assert trained["attack_success_rate"]["value"] > 0.5
    judged = store.result(audit)
    assert judged["true_targets"] == [2]
    assert judged["attack_success_rate"] == trained["attack_success_rate"]
    assert run_cells([audit], store, perform).skipped == 1


def test_the_same_cell_gives_the_same_numbers(tmp_path):
    results = []
    for name in ("one", "two"):
        torch.manual_seed(len(name))
        store = Store(tmp_path / name)
        run_cells([cell_of(ROW)], store, perform)
        results.append(store.result(cell_of(ROW)))
    assert results[0] == results[1]


def test_a_set_that_is_not_there_is_a_failed_row_that_says_so(tmp_path):
    cell = cell_of(ROW | {"data": "gtsrb"})
    assert run_cells([cell], Store(tmp_path), perform).failed == 1
    assert "--data" in Store(tmp_path).read(cell.key).error


# --- data sets ---


def test_large_classes_are_kept_and_split_by_class(tmp_path):
    spec = DataSpec(name="digits", fewest=100, most=50, seed=3)
    train, test = open_data(spec, None)
    assert set(train.labels.bincount().tolist()) == {40}
    assert set(test.labels.bincount().tolist()) == {10}
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    again, _ = open_data(spec, None)
    assert torch.equal(train.images, again.images)
    other, _ = open_data(spec.model_copy(update={"seed": 4}), None)
    assert not torch.equal(train.images, other.images)


def test_no_class_that_large_is_said():
    with pytest.raises(UnreadableData, match="fewest"):
        open_data(DataSpec(name="digits", fewest=10**6), None)


# --- published models ---


def test_a_published_model_is_measured_on_its_own_answers(tmp_path):
    trained = Store(tmp_path / "made")
    run_cells([cell_of(ROW)], trained, perform)
    (tmp_path / "data").mkdir()
    (trained.folder(cell_of(ROW).key) / "model").rename(tmp_path / "data" / "stranger")
    row = {
        "data": {"name": "digits", "fewest": 1, "test": 100},
        "model": {"file": "stranger"},
        "attack": ROW["attack"],
    }
    store = Store(tmp_path / "store")
    assert run_cells([cell_of(row)], store, partial(perform, data=tmp_path / "data")).done == 1
    result = store.result(cell_of(row))
    assert result["clean_accuracy"] is None
    assert result["attack_success_rate"]["value"] > 0.5


@pytest.mark.parametrize("file", ["../secret.npz", "/etc/passwd"])
def test_a_suite_reads_nothing_outside_its_data_folder(tmp_path, file):
    store = Store(tmp_path / "store")
    for cell in (cell_of({"data": "digits", "model": {"file": file}}), cell_of(ROW | {"data": file})):
        run_cells([cell], store, partial(perform, data=tmp_path))
        assert "leads out of the data folder" in store.read(cell.key).error


def test_a_row_trains_a_net_or_takes_a_published_one():
    for row in ({"data": "digits"}, ROW | {"model": {"file": "x"}}):
        with pytest.raises(UsageError, match="either an architecture"):
            cell_of(row)
