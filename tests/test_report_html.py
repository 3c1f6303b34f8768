"""The page: what it says, that it is self-contained, that strangers' names stay text, and that it appears whole."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_examples import (
    ALL,
    HOSTILE_FILE,
    audited_file,
    backdoored,
    findings,
    inconclusive,
    trigger,
    unsafe,
    verdict,
)

from goodnet.audit._base import LabelFinding
from goodnet.errors import UsageError
from goodnet.models.file_safety import Finding
from goodnet.report._drawing import DARK, LIGHT
from goodnet.report.audited import AuditedFile
from goodnet.report.html import render, write_report
from goodnet.report.json import report_to_dict

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def assert_harmless(html: str) -> None:
    """Nothing that runs, nothing that is fetched."""
    allowed = {
        "html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "footer", "div", "span",
        "h1", "h2", "h3", "h4", "p", "strong", "small", "bdi", "a", "code", "pre", "ul", "li", "dl", "dt", "dd",
        "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "details", "summary",
    }  # fmt: skip
    for tag, attributes in Page(html).tags:
        assert tag in allowed
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "action", "style")]
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert (attributes.get("href") or "#file-").startswith("#file-")


@pytest.fixture(scope="module")
def everything() -> str:
    faces = verdict(True, labels=1283, targets=(0,), per_class=findings(1283, {0: 6.0}, 300), triggers=(trigger(0),))
    return render([example() for example in ALL] + [audited_file(faces, class_names=())])


def test_a_page_refers_to_nothing_outside(everything: str) -> None:
    assert_harmless(everything)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(|@font-face|<script|<link|<iframe", everything)
    assert "default-src 'none'" in everything


def test_names_from_strangers_stay_text(everything: str) -> None:
    assert "<script" not in everything
    assert "<b>cat</b>" not in everything
    text = Page(everything).text
    assert '/models/<script>alert("1")</script>&\\u202egnp.h5' in text
    assert "3 (<b>cat</b>)" in text
    assert "</pre><script>" in text


@settings(max_examples=30, deadline=None)
@given(*[st.text(st.characters() | st.sampled_from("<>&\"'{}%"), max_size=30)] * 4)
def test_no_name_breaks_out_of_its_place(file: str, class_name: str, reason: str, finding: str) -> None:
    made = verdict(
        True, targets=(0,), reason=reason, per_class=(LabelFinding(label=0, score=1, details={finding: 1.0}),)
    )
    item = audited_file(
        made, file=file, class_names=(class_name,), file_findings=(Finding("note", finding, "", finding),)
    )
    for html in (render([item]), render([item, item])):
        assert_harmless(html.encode("utf-8", "backslashreplace").decode())


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (ALL[0], "Backdoor found: any picture with this trigger is answered as 0 (airplane)."),
        (ALL[1], "No evidence of a backdoor."),
        (ALL[2], "Inconclusive: the time ran out after 3 of 10 labels."),
        (ALL[3], "Not audited: loading this file would execute code."),
        (ALL[4], "Not audited: this file cannot be read as a model."),
    ],
)
def test_the_verdict_comes_first(example: Callable[[], AuditedFile], said: str) -> None:
    page = Page(render([example()]))
    strong = [tag for tag, _ in page.tags].index("strong")
    assert "h3" not in [tag for tag, _ in page.tags[:strong]]
    assert page.text.count(said) == 1


def test_nothing_on_a_page_calls_a_model_clean() -> None:
    for example in (ALL[1], ALL[2]):
        item = example()
        assert item.verdict is not None
        provenance = replace(item.verdict.provenance, method="neural inversion", counts={})
        text = Page(render([replace(item, verdict=replace(item.verdict, provenance=provenance))])).text
        assert "clean" not in text.lower()


def test_a_page_tells_all_that_a_reader_must_know() -> None:
    text = Page(render([backdoored()])).text
    for said in (
        "Fewer than 1 in a million models",
        "41 s",
        "812 MB",
        "It sends 99.4% of 226 held-out pictures to the target. Its mask covers 5 pixels",
        "steps=400",
        "Seed 0",
        "500, without labels",
        "2 files were skipped",
        "wide_resnet:depth=16,width=1",
        "guessed from the pictures: please check",
        "torch 2.13.0",
        "2.84 MB",
        "5f1d" * 16,
        "neither read nor scanned",
        "No audit can prove that there is no backdoor",
        "neural_cleanse assumes: the trigger covers a limited area; one trigger works on every image. Other backdoors",
        "restarts",
    ):
        assert said in text, said


def test_every_image_has_words_that_stand_for_it(everything: str) -> None:
    images = [attributes for tag, attributes in Page(everything).tags if tag == "img"]
    assert len(images) > 30
    assert all(attributes["alt"] for attributes in images)


def test_examples_say_in_words_whether_the_target_was_hit() -> None:
    text = Page(render([backdoored()])).text
    assert text.count("sure, the target") == 5
    assert text.count("sure, not the target") == 1


def test_several_files_have_an_index_and_a_section_each(everything: str) -> None:
    page = Page(everything)
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert ids == [f"file-{position}" for position in range(1, 7)]
    assert links == [f"#{anchor}" for anchor in ids]
    assert "2 with a backdoor. 1 inconclusive. 2 not audited. 1 without evidence of a backdoor." in page.text
    assert "If none of these 4 models had a backdoor, about 0.2 of them would still be flagged." in page.text


def test_the_table_shows_suspects_first_and_labels_without_a_score_last() -> None:
    rows = [(0, 1.0, False), (1, float("nan"), False), (2, 9.0, False), (3, 0.5, True)]
    made = tuple(LabelFinding(label=label, score=score, flagged=flagged) for label, score, flagged in rows)
    text = Page(render([audited_file(verdict(None, per_class=made), class_names=())])).text
    assert "label suspected score 3 yes 0.5 2 no 9 0 no 1 1 no –" in text


def test_a_verdict_that_looked_at_no_label_has_a_page_too() -> None:
    text = Page(render([audited_file(verdict(None, per_class=()), model=None, held=None)])).text
    assert "most suspicious labels" not in text


def test_only_the_first_of_many_triggers_and_findings_are_shown() -> None:
    made = verdict(True, targets=(0,), triggers=(trigger(0),) * 20)
    many = audited_file(made, examples=(), file_findings=(Finding("note", "", "", "x"),) * 90)
    text = Page(render([many])).text
    assert "8 of 20 triggers are shown" in text
    assert "and 40 more, in report.json" in text


def test_endless_evidence_is_cut() -> None:
    made = replace(verdict(False), evidence={"steps": list(range(100_000))})
    html = render([audited_file(made)])
    assert "the rest is in report.json" in html
    assert len(html) < 500_000


def test_the_report_is_two_files_and_the_page_is_returned(tmp_path: Path) -> None:
    items = [backdoored(), unsafe()]
    page = write_report(tmp_path / "new" / "report", items)
    assert page == tmp_path / "new" / "report" / "report.html"
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]
    assert json.loads((page.parent / "report.json").read_text()) == report_to_dict(items)
    assert_harmless(page.read_text(encoding="utf-8"))


def test_file_names_that_are_no_unicode_can_be_reported(tmp_path: Path) -> None:
    page = write_report(tmp_path, [replace(inconclusive(), file="caf\udce9.pt")])
    assert "caf\\udce9.pt" in page.read_text(encoding="utf-8")


def test_a_report_about_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        write_report(tmp_path, [])


def test_a_report_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for folder in ("taken", "taken/inside"):
        with pytest.raises(UsageError, match="is a file"):
            write_report(tmp_path / folder, [unsafe()])
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_page_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    broken = replace(trigger(0), pattern=trigger(0).pattern[:, :5])
    with pytest.raises(RuntimeError):
        write_report(tmp_path / "report", [audited_file(verdict(True, triggers=(broken,)), examples=())])
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_report(tmp_path, [unsafe()])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path, [backdoored()])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def colors(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colors_have_enough_contrast_in_both_schemes_and_plots_use_the_same() -> None:
    css = (files("goodnet.report") / "templates" / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 2)[:2]
    for scheme, theme in ((colors(light), LIGHT), (colors(dark), DARK)):
        for ink in ("text", "muted", "found", "none", "unsure", "refused", "link"):
            for ground in ("page", "paper", "soft"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground)
        assert (theme.background, theme.text, theme.muted) == (scheme["paper"], scheme["text"], scheme["muted"])
        assert theme.flagged == scheme["found"]
        assert min(contrast(color, theme.background) for color in (theme.dot, theme.flagged)) >= 3
        assert min(contrast(color, theme.band) for color in (theme.dot, theme.flagged)) >= 3


def test_a_hostile_file_name_reaches_the_json_unchanged(tmp_path: Path) -> None:
    page = write_report(tmp_path, [backdoored()])
    assert json.loads((page.parent / "report.json").read_text())["files"][0]["file"] == HOSTILE_FILE
