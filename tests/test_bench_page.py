"""The page of a benchmark: what it says, that it is self-contained, and that it sorts and filters in a browser."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench_stores import SUITE, filled_table, suite_file

from goodnet.bench import Store, load_suite, open_suite
from goodnet.bench.page import render, write_page
from goodnet.bench.plots import bars, scatter
from goodnet.bench.table import table
from goodnet.errors import UsageError

VOID = {"meta", "line", "circle", "path", "rect"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
]
# drives the page in a frame, as a person would: the page itself stays as it was written, its policy included
DRIVER = """<!doctype html><pre id="out">nothing</pre><iframe src="page.html"></iframe><script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument, seen = {};
  const rows = () => [...page.getElementById("results").tBodies[0].rows];
  const places = () => rows().filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
  const heading = (name) => [...page.querySelectorAll("thead th")].find((one) => one.textContent === name);
  const click = (name) => {
    const button = heading(name).querySelector("button");
    button.focus();
    button.click();
    return [page.activeElement === button, heading(name).getAttribute("aria-sort"), places()];
  };
  const choose = (control, value) => {
    control.value = value;
    control.dispatchEvent(new Event("input"));
    return [places(), page.getElementById("shown").textContent];
  };
  seen.first = places();
  seen.down = click("clean accuracy");
  seen.up = click("clean accuracy");
  seen.words = click("attack");
  seen.sorted = page.querySelectorAll("th[aria-sort]").length;
  seen.back = click("#");
  const [search, ...lists] = page.querySelectorAll("#filters input, #filters select");
  seen.search = choose(search, "BADNETS target=3");
  seen.faded = page.querySelectorAll(".wide .faded").length;
  seen.cleared = choose(search, "");
  seen.lists = lists.map((list) => [...list.options].map((option) => option.value));
  seen.failed = choose(lists.at(-1), "1 failed, 1 not run yet");
  document.getElementById("out").textContent = JSON.stringify(seen);
};
</script>"""


class Page(HTMLParser):
    """Tags, attributes and texts of a page; fails on tags that do not close."""

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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def test_the_page_is_whole_html_and_fetches_nothing(tmp_path: Path) -> None:
    html = render(filled_table(tmp_path).gathered())
    page = Page(html)
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "data"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html


def test_only_our_own_script_may_run(tmp_path: Path) -> None:
    html = render(filled_table(tmp_path))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in html.replace("&#39;", "'").replace("&#34;", '"').replace("&#43;", "+")
    assert "default-src 'none'" in html


def test_names_from_a_suite_stay_text(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    text = (
        SUITE.replace("Three attacks & a clean net", nasty).replace("<from> a paper", nasty).replace("Table 1", nasty)
    )
    page = Page(render(table(load_suite(suite_file(tmp_path, text)), "full", Store(tmp_path / "store"))))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert nasty in page.words


def test_the_page_says_what_was_measured_and_what_is_missing(tmp_path: Path) -> None:
    words = " ".join(Page(render(filled_table(tmp_path).gathered())).words)
    for said in (
        "Three attacks & a clean net",
        "5 done, 1 failed, 1 not run yet",
        "97% ± 2.8",
        "84/100",
        "+4.0 points",
        "published 80%",
        "RuntimeError: out of memory",
        "1 × missed",
        "goodnet 0.",
    ):
        assert said in words


def test_every_row_has_its_number_and_dots_lead_to_it(tmp_path: Path) -> None:
    page = Page(render(filled_table(tmp_path).gathered()))
    anchors = {attributes["id"] for tag, attributes in page.tags if tag == "tr" and "id" in attributes}
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors == {"row-1", "row-2", "row-3", "row-4"}
    assert links == anchors


def test_a_suite_of_which_nothing_was_run_is_a_page_without_plots(tmp_path: Path) -> None:
    made = table(open_suite("quick"), "small", Store(tmp_path))
    html = render(made)
    assert "<figure>" not in html
    assert "not run yet" in html
    assert bars(made) == []


def test_the_page_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = filled_table(tmp_path)
    out = tmp_path / "page.html"
    assert write_page(made, out) == out
    before = out.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_page(replace(made, name="other"), out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.glob("*page*")] == ["page.html"]


def test_a_page_needs_a_file_in_a_folder_that_is_there(tmp_path: Path) -> None:
    made = filled_table(tmp_path)
    for wrong in (tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(UsageError, match="give a file"):
            write_page(made, wrong)


# --- plots ---


def test_dots_lie_where_their_numbers_say(tmp_path: Path) -> None:
    plot = scatter(filled_table(tmp_path).gathered(), 820, 400)
    assert plot is not None
    assert [dot.row for dot in plot.dots] == [2, 3, 4]
    area, badnets, paper = plot.area, plot.dots[0], plot.dots[2]
    assert area.low <= 0.9
    assert area.left + (badnets.x - area.left) == area.x(0.97)
    assert (area.y(1), area.y(0)) == (area.top, area.bottom)
    assert badnets.y == area.y(0.95)
    assert paper.published == (area.x(0.95), area.y(0.8))
    assert [number for _, number, _ in plot.bare] == [1]


def test_numbers_beside_dots_cover_no_other_dot(tmp_path: Path) -> None:
    made = filled_table(tmp_path)
    crowded = replace(made, rows=tuple(made.rows[2:4]) * 40)
    plot = scatter(crowded, 330, 330)
    assert plot is not None
    numbers = [dot.number for dot in plot.dots if dot.number is not None]
    assert 0 < len(numbers) < len(plot.dots) == 80
    assert len(set(numbers)) == len(numbers)


def test_bars_keep_apart_what_must_not_be_mixed(tmp_path: Path) -> None:
    found = {bar.nets: bar.parts for bar in bars(filled_table(tmp_path))}
    assert found == {
        "nets with a backdoor": (("found, right target", 1, 0, 50), ("missed", 1, 50, 50)),
        "nets without a backdoor": (("rightly not flagged", 1, 0, 50), ("inconclusive", 1, 50, 50)),
    }


def test_an_attack_that_did_not_take_is_no_miss_of_the_auditor(tmp_path: Path) -> None:
    made = filled_table(tmp_path)
    trial = made.rows[3].trials[0]
    assert trial.success is not None
    failed = replace(made.rows[3], trials=(replace(trial, success=replace(trial.success, hits=10)),))
    (bar,) = bars(replace(made, rows=(failed,)))
    assert "did not take" in bar.nets


# --- in a browser ---


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Chromium saw when it was led through the page."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: none of chromium, chromium-browser and google-chrome is there")
    folder = tmp_path_factory.mktemp("browser")
    write_page(filled_table(folder).gathered(), folder / "page.html")
    (folder / "driver.html").write_text(DRIVER, encoding="utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder}/driver.html"]
    made = subprocess.run(
        [*command, "--virtual-time-budget=5000"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Content Security Policy" not in made.stderr
    (out,) = re.findall(r'<pre id="out">(.*?)</pre>', made.stdout, re.DOTALL)
    seen: dict[str, Any] = json.loads(out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return seen


def test_a_click_on_a_heading_sorts_and_says_so(driven: dict[str, Any]) -> None:
    assert driven["first"] == ["1", "2", "3", "4"]
    assert driven["down"] == [True, "descending", ["1", "2", "4", "3"]]  # 97 (first comes first), 97, 94, 90 %
    assert driven["up"] == [True, "ascending", ["3", "4", "1", "2"]]
    assert driven["words"][1:] == ["ascending", ["4", "2", "3", "1"]]  # <from> a paper, badnets, blended, none
    assert driven["sorted"] == 1
    assert driven["back"][1:] == ["ascending", ["1", "2", "3", "4"]]


def test_words_and_lists_filter_the_rows_and_fade_their_dots(driven: dict[str, Any]) -> None:
    assert driven["search"] == [["2"], "1 of 4 rows shown"]
    assert driven["faded"] > 0
    assert driven["cleared"] == [["1", "2", "3", "4"], ""]
    assert ["", "badnets", "blended", "none"] in driven["lists"]
    assert driven["failed"] == [["3"], "1 of 4 rows shown"]
