"""The SARIF log: its structure as SARIF 2.1.0 wants it, and what becomes of texts and file names of strangers."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_report_examples import ALL, audited_file, backdoored, inconclusive, unreadable, unremarkable, unsafe, verdict

from goodnet.errors import UnknownArchitecture
from goodnet.models.file_safety import Finding
from goodnet.report.audited import refused
from goodnet.report.sarif import Result, audit_results, sarif_log, scan_results, write_sarif

FINDINGS = (
    Finding("executes", "data.pkl, byte 2", "os.system", "would call os.system"),
    Finding("unreadable", "data.pkl, byte 9", "", "the pickle breaks off"),
    Finding("note", "", "", "2 other files are not read"),
)


def results_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results of a log, once everything that SARIF 2.1.0 requires of it is there."""
    log = json.loads(json.dumps(sarif_log(results), allow_nan=False))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "goodnet"
    rules = driver["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        assert (result["ruleId"], result["level"]) == (rule["id"], rule["defaultConfiguration"]["level"])
        assert result["message"]["text"]
        (location,) = result["locations"]
        uri = location["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"([a-z]+://)?([A-Za-z0-9._~/-]|%[0-9A-F]{2})+", uri), uri
    return run["results"]


def uri_of(file: str) -> str:
    (result,) = results_of([Result(rule="scan-note", file=file, message="x")])
    return result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


def test_every_example_makes_a_log_that_is_in_order() -> None:
    assert results_of([result for example in ALL for result in audit_results(example())])


def test_names_and_levels_of_rules_never_change() -> None:
    rules = sarif_log([])["runs"][0]["tool"]["driver"]["rules"]
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in rules}
    assert levels == {
        "unsafe-file": "error",
        "unreadable-file": "warning",
        "scan-note": "note",
        "backdoor": "error",
        "inconclusive": "warning",
        "not-audited": "warning",
    }


def test_each_finding_of_a_scan_is_a_result() -> None:
    made = results_of(scan_results("models/a.pt", FINDINGS))
    assert [result["ruleId"] for result in made] == ["unsafe-file", "unreadable-file", "scan-note"]
    assert made[0]["message"]["text"] == "data.pkl, byte 2: would call os.system"


def test_a_backdoored_model_is_told_with_its_targets() -> None:
    _, made = results_of(audit_results(backdoored()))
    assert (made["ruleId"], made["level"]) == ("backdoor", "error")
    assert made["message"]["text"].startswith(
        "Backdoor found: any picture with this trigger is answered as 0 (airplane)"
    )
    assert made["properties"] == {"targets": [0], "pValue": 3.1e-7, "method": "neural_cleanse"}


def test_no_evidence_is_no_finding_and_inconclusive_is_one() -> None:
    assert [result.rule for result in audit_results(unremarkable())] == ["scan-note"]
    assert [result.rule for result in audit_results(inconclusive())] == ["scan-note", "inconclusive"]
    assert results_of(audit_results(audited_file(verdict(False), file_findings=()))) == []


def test_a_refusal_is_told_once() -> None:
    assert [result.rule for result in audit_results(unsafe())] == ["unsafe-file"]
    (torn,) = audit_results(unreadable())
    assert (torn.rule, torn.message) == ("unreadable-file", "torn.h5: ends after 12 bytes")
    (unknown,) = audit_results(refused(UnknownArchitecture("fits nothing"), file="a.pt"))
    assert (unknown.rule, unknown.message) == ("not-audited", "fits nothing")


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("models/a.pt", "models/a.pt"),
        ("../my models/50%.h5", "../my%20models/50%25.h5"),
        ("c:odd?#.pt", "c%3Aodd%3F%23.pt"),
        ("caf\udce9.pt", "caf%E9.pt"),
        ("/models/a b.pt", "file:///models/a%20b.pt"),
    ],
)
def test_relative_paths_stay_relative_and_every_name_is_a_uri(file: str, uri: str) -> None:
    assert uri_of(file) == uri


def test_texts_of_strangers_make_neither_links_nor_placeholders_nor_reorder_anything() -> None:
    (made,) = results_of([Result(rule="scan-note", file="a", message="see [here](http://x) {0} \\ \u202e\x1b\udc80")])
    assert made["message"]["text"] == r"see \[here\](http://x) {{0}} \\ \\u202e\\u001b\\udc80"


def test_the_log_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    write_sarif(tmp_path / "new" / "log.sarif", scan_results("a.pt", FINDINGS))
    assert json.loads((tmp_path / "new" / "log.sarif").read_text()) == sarif_log(scan_results("a.pt", FINDINGS))
