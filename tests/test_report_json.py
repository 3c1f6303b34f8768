"""The JSON form of an audit: its keys, its round trip, and what is no JSON number."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from test_report_examples import ALL, HOSTILE_FILE, backdoored, findings, trigger, unreadable, unsafe, verdict

from goodnet.audit._base import LabelFinding
from goodnet.report.audited import AuditedFile
from goodnet.report.json import audited_to_dict, plain, refusal_to_dict, report_to_dict, verdict_to_dict
from goodnet.report.repair_schema import (
    FlaggedRecord,
    GoodNetRecord,
    PriceRecord,
    ProofRecord,
    RepairRecord,
    RetunedRecord,
    TriggerProofRecord,
)
from goodnet.report.schema import AuditRecord, LabelRecord, NaturalRecord, ReportRecord, TriggerRecord

PROMISED = {
    "schema", "file", "sha256", "flagged", "targets", "p_value", "method", "labels", "seconds", "peak_memory_bytes",
    "per_label", "file_findings",
}  # fmt: skip


@pytest.mark.parametrize("example", ALL)
def test_a_record_survives_json_and_fits_its_schema(example: Callable[[], AuditedFile]) -> None:
    record = audited_to_dict(example())
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again == record
    assert AuditRecord.model_validate(again).model_dump(mode="json", by_alias=True) == record
    assert record.keys() >= PROMISED
    assert record["schema"] == 1


def test_every_record_has_the_same_keys() -> None:
    assert len({tuple(audited_to_dict(example())) for example in ALL}) == 1


def test_a_verdict_is_told_whole() -> None:
    record = verdict_to_dict(
        verdict(True, targets=(0,), triggers=(trigger(0),)), file="a.pt", sha256="ab", file_findings=("note: x",)
    )
    assert (record["file"], record["sha256"], record["file_findings"]) == ("a.pt", "ab", ["note: x"])
    assert (record["flagged"], record["targets"], record["p_value"]) == (True, [0], 3.1e-7)
    assert (record["method"], record["labels"], record["seconds"]) == ("neural_cleanse", 10, 41.27)
    assert (record["score"], record["alpha"], record["seed"], record["device"]) == (7.9, 0.05, 0, "cpu")
    assert record["parameters"]["sizes"] == [4, 8]
    assert record["assumes"] == ["the trigger covers a limited area", "one trigger works on every image"]
    assert record["error"] is record["error_type"] is None
    (found,) = record["triggers"]
    assert found == {"target": 0, "success_rate": 0.994, "count": 226, "mask_l1": pytest.approx(5.0)}


def test_labels_come_in_order_with_the_numbers_of_the_method() -> None:
    shuffled = tuple(reversed(findings(10, {3: 5.0})))
    record = verdict_to_dict(verdict(True, targets=(3,), per_class=shuffled), file="", sha256="")
    assert [row["label"] for row in record["per_label"]] == list(range(10))
    assert [row["label"] for row in record["per_label"] if row["flagged"]] == [3]
    assert record["per_label"][3]["mask_l1"] == 5.0
    assert record["per_label"][3].keys() == {"label", "score", "flagged", "mask_l1", "success_rate", "anomaly_index"}


def test_numbers_of_a_method_cannot_replace_the_keys_of_the_schema() -> None:
    finding = LabelFinding(label=4, score=2.0, details={"label": 9.0, "score": 0.0, "other": None})
    record = verdict_to_dict(verdict(False, per_class=(finding,)), file="", sha256="")
    assert record["per_label"] == [{"label": 4, "score": 2.0, "flagged": False, "other": None}]


def test_nan_and_infinities_become_null() -> None:
    finding = LabelFinding(label=0, score=math.nan, details={"mask_l1": math.inf, "success_rate": None})
    hopeless = replace(trigger(0), mask=torch.full((32, 32), math.nan), success_rate=math.nan)
    made = verdict(None, p_value=math.nan, score=-math.inf, per_class=(finding,), triggers=(hopeless,))
    record = verdict_to_dict(made, file="", sha256="")
    json.dumps(record, allow_nan=False)
    assert record["p_value"] is record["score"] is None
    assert record["per_label"] == [{"label": 0, "score": None, "flagged": False, "mask_l1": None, "success_rate": None}]
    assert record["triggers"][0]["mask_l1"] is record["triggers"][0]["success_rate"] is None
    assert record["evidence"]["dropped"] == [None, 3]


def test_a_refused_file_has_no_verdict_and_says_why() -> None:
    record = audited_to_dict(unsafe())
    assert record["flagged"] is record["p_value"] is record["method"] is record["labels"] is None
    assert record["targets"] == record["per_label"] == []
    assert record["error"].startswith("evil.pt would execute code")
    assert record["error_type"] == "UnsafeFile"
    assert record["file_findings"] == ["evil.pt: os.system"]
    assert refusal_to_dict(file="torn.h5", error="torn.h5: ends after 12 bytes", error_type="UnreadableModel") == (
        audited_to_dict(unreadable())
    )


def test_a_report_holds_one_record_for_each_file_in_the_order_given() -> None:
    report = report_to_dict([unsafe(), backdoored()])
    assert report["schema"] == 1
    assert [record["file"] for record in report["files"]] == ["evil.pt", HOSTILE_FILE]
    assert ReportRecord.model_validate(json.loads(json.dumps(report))).model_dump(mode="json", by_alias=True) == report


def test_file_names_that_are_no_unicode_are_written_as_escapes() -> None:
    record = refusal_to_dict(file="caf\udce9.pt", error="no", error_type="UnreadableModel")
    assert record["file"] == "caf\\udce9.pt"


def test_an_unknown_key_is_no_record() -> None:
    with pytest.raises(ValidationError):
        AuditRecord.model_validate({"schema": 1, "file": "", "sha256": "", "verdict": "clean"})
    with pytest.raises(ValidationError):
        AuditRecord.model_validate({"schema": 2, "file": "", "sha256": ""})


def test_arrays_and_other_objects_become_json_values() -> None:
    value = {
        1: torch.tensor([1.0, math.nan]),
        "b": np.float32(0.5),
        "c": np.arange(2),
        "d": Path("x"),
        "e": (True, None),
    }
    assert plain(value) == {"1": [1.0, None], "b": 0.5, "c": [0, 1], "d": "x", "e": [True, None]}


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()), st.lists))
def test_whatever_becomes_plain_is_json(value: object) -> None:
    made = plain(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    json.dumps(made, ensure_ascii=False).encode()


REPAIRS = [RepairRecord, FlaggedRecord, ProofRecord, TriggerProofRecord, RetunedRecord, GoodNetRecord, PriceRecord]


@pytest.mark.parametrize("record", [AuditRecord, LabelRecord, TriggerRecord, NaturalRecord, ReportRecord, *REPAIRS])
def test_the_page_about_the_format_describes_every_key_as_the_schema_does(record: type[BaseModel]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    for name, field in record.model_fields.items():
        assert f"| `{field.alias or name}` | {field.description} |" in page.splitlines(), name
