"""The review page in a real browser: by click, by keys, on a phone; and the pictures of it that docs/serve.md shows.

With GOODNET_PICTURES=docs/pictures the screenshots are written there; else they go to a temporary folder.
"""

import os
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import PlantedWorld

import goodnet
from goodnet.core.classifier import predictions
from goodnet.guard.goodnet import GoodNet
from goodnet.serve.app import create_app
from goodnet.serve.judging import Served
from goodnet.serve.quarantine import Caught, Quarantine
from goodnet.serve.service import Service
from goodnet.serve.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NOVEMBER = 1_795_000_000.0  # when the pictures of the docs were sent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: none of chromium, chromium-browser and google-chrome is there")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def service(planted: PlantedWorld, tmp_path: Path) -> Service:
    """A service with 18 stamped digits in quarantine, and 6 that carry no trigger: false alarms."""
    seconds = iter(NOVEMBER + 61 * step for step in range(10_000))
    quarantine = Quarantine(tmp_path / "q.sqlite3", clock=lambda: next(seconds))
    model = GoodNet(planted.badnet, planted.twin)
    service = Service(Served(model, tmp_path / "repaired", "v1"), quarantine, Settings(wait=0.0))
    stamped = (planted.attack.stamp(planted.clean.pick(torch.arange(80)).floats()) * 255).round().byte()
    # of the stamped digits those that the planted net takes for the target, so that N is the answer
    stamped = stamped[model.answers(stamped) == model.num_classes][:18]
    said = service.submit(stamped).result(60)
    assert all(one.triggered for one in said)
    alarms = planted.clean.images[100:106]
    answers = predictions(planted.badnet, alarms).argmax(1).tolist()
    quarantine.add([Caught(one, answer, 0.3, 0.62, "v1") for one, answer in zip(alarms, answers, strict=True)])
    return service


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    """Where the service answers, over a real socket."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, ws="none"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, with everything that the browser complained of."""
    context = browser.new_context(viewport={"width": 1180, "height": 860}, accept_downloads=True)
    made = context.new_page()
    complaints: list[str] = []
    elsewhere: list[str] = []
    made.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else elsewhere.append(asked.url))
    made.goto(f"{address}/review")
    made.wait_for_selector("#grid li")
    yield made
    assert complaints == []
    assert elsewhere == []
    context.close()


def held(service: Service) -> dict[str, int]:
    return service.quarantine.contents().counts


def said(page: Any, words: str) -> None:
    page.wait_for_function("words => document.getElementById('status').textContent === words", arg=words)


def test_a_click_marks_a_second_one_takes_it_back_and_undo_undoes(page: Any, service: Service) -> None:
    assert page.locator("#grid li").count() == 24
    first = page.locator("#grid li").first
    first.get_by_text("Poisoned").click()
    said(page, "Marked poisoned")
    assert held(service)["poisoned"] == 1
    assert first.get_attribute("data-mark") == "poisoned"
    first.get_by_text("Poisoned").click()
    said(page, "Mark taken back")
    assert held(service)["poisoned"] == 0
    page.locator("#undo").click()
    said(page, "Undone")
    assert held(service)["poisoned"] == 1
    page.reload()
    page.wait_for_selector("#grid li")
    assert page.locator('#grid li[data-mark="poisoned"]').count() == 1, "it is kept"


def test_everything_can_be_done_by_keys(page: Any, service: Service) -> None:
    page.keyboard.press("ArrowRight")
    keys = [item.get_attribute("data-key") for item in page.locator("#grid li").all()]
    for key, mark in (("p", "poisoned"), ("c", "clean"), ("u", "unsure")):
        page.keyboard.press(key)
        said(page, f"Marked {mark}")
        page.keyboard.press("ArrowRight")
    marks = {entry.key: entry.mark for entry in service.quarantine.entries()}
    assert [marks[key] for key in keys[:4]] == ["poisoned", "clean", "unsure", None]
    page.keyboard.press("z")
    said(page, "Undone")
    assert held(service) == {"unmarked": 22, "clean": 1, "poisoned": 1, "unsure": 0}
    page.keyboard.press("ArrowDown")
    row = page.evaluate("[...document.querySelectorAll('#grid li')].indexOf(document.activeElement)")
    columns = page.evaluate("getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length")
    assert row == 2 + columns, "down is the picture below"


def test_filters_show_what_they_say_and_count_it(page: Any, service: Service) -> None:
    entry = service.quarantine.entries(limit=1)[0]
    page.locator("#grid li").nth(0).get_by_text("Clean").click()
    said(page, "Marked clean")
    page.locator('[data-show="clean"]').click()
    page.wait_for_function("() => document.querySelectorAll('#grid li').length === 1")
    assert page.locator('[data-show="clean"] b').text_content() == "1"
    assert page.locator("#grid li").get_attribute("data-key") == entry.key
    page.locator('[data-show="unsure"]').click()
    page.wait_for_selector("#empty:not([hidden])")
    page.locator('[data-show=""]').click()
    page.locator("#predicted").select_option("3")  # the target of the planted net
    expected = len(service.quarantine.entries(predicted=3))
    assert 0 < expected < 24
    page.wait_for_function("count => document.querySelectorAll('#grid li').length === count", arg=expected)


def test_what_was_marked_can_be_taken_away(page: Any, tmp_path: Path) -> None:
    for number in (0, 1):
        page.locator("#grid li").nth(number).get_by_text("Poisoned").click()
        page.wait_for_function(
            "count => document.querySelectorAll('#grid li[data-mark=poisoned]').length === count", arg=number + 1
        )
    with page.expect_download() as download:
        page.locator("#export").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path / "out")
    assert len(goodnet.load_data(tmp_path / "out" / "quarantine")) == 2


def test_what_goes_wrong_is_said(page: Any, service: Service) -> None:
    first = page.locator("#grid li").first
    answer = '{"error": {"message": "the disk is full"}}'
    page.evaluate("answer => { window.fetch = async () => new Response(answer, {status: 503}); }", answer)
    first.get_by_text("Clean").click()
    said(page, "the disk is full")
    assert first.get_attribute("data-mark") == ""
    assert held(service)["clean"] == 0


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("wide", 1180, "light"), ("dark", 1180, "dark"), ("phone", 390, "dark")]
)
def test_it_fits_every_screen_and_is_pictured_for_the_docs(
    browser: Any, address: str, service: Service, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    for entry, mark in zip(service.quarantine.entries(), ("clean", "clean", "unsure"), strict=False):
        service.quarantine.mark(entry.key, mark)
    for entry in service.quarantine.entries(limit=12)[6:]:
        service.quarantine.mark(entry.key, "poisoned")
    context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme, has_touch=width < 600)
    page = context.new_page()
    page.goto(f"{address}/review")
    page.wait_for_selector("#grid li")
    page.wait_for_function(
        "() => [...document.images].filter(one => one.getBoundingClientRect().top < innerHeight)"
        ".every(one => one.complete && one.naturalWidth)"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, a')]"
        ".filter(one => one.offsetHeight && one.offsetHeight < 40).length"
    )
    assert small == 0, "fingers need 40 pixels"
    folder = Path(os.environ.get("GOODNET_PICTURES", tmp_path))
    page.screenshot(path=folder / f"review-{name}.png")
    assert (folder / f"review-{name}.png").stat().st_size < 200_000
    context.close()
