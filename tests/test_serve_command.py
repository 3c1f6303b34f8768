"""goodnet serve as a process: it starts, answers, heeds signals, and stops with nothing lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from planted import heed_interrupts
from serving import png
from typer.testing import CliRunner

import goodnet
from goodnet.cli.main import app
from goodnet.guard.rules import LostConfidence
from goodnet.serve.quarantine import Quarantine


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoodNet that answers N almost always: two untrained networks that never agree, and any loss is too much."""
    folder = tmp_path_factory.mktemp("served") / "repaired"
    digits = goodnet.load_data("digits", split="test")
    first, second = (goodnet.untrained("small_cnn:width=8", digits, seed=seed) for seed in (0, 1))
    goodnet.save_goodnet(goodnet.GoodNet(first, second, LostConfidence(threshold=0.0)), folder)
    return folder


@pytest.fixture
def started(saved: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts the command, and gives the process with its address once it answers."""
    running: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []

    def start(*options: str, env: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "goodnet.cli", "serve", str(saved), "--port", "0", *options]
        process = subprocess.Popen(
            [*command, "--quarantine", str(tmp_path / "q.sqlite3")],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
            preexec_fn=heed_interrupts,
        )
        running.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if "running on http://" in line:
                address = line.split("running on ")[1].split()[0]
                readers.append(threading.Thread(target=process.stderr.read))  # or it would wait for a full pipe
                readers[-1].start()
                return process, address
        raise AssertionError("it did not start")

    yield start
    for process in running:
        process.kill()
        process.wait()
    for reader in readers:
        reader.join()
    for process in running:
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_well_with_every_request_answered(started: Callable[..., tuple], blow: int) -> None:
    process, address = started("--batch-wait", "1000")
    statuses: list[int] = []
    client = httpx.Client(base_url=address, timeout=60)

    def ask() -> None:
        statuses.append(client.post("/predict", files={"image": png(9)}).status_code)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    while "goodnet_requests_waiting 4.0" not in client.get("/metrics").text and not statuses:
        time.sleep(0.01)
    process.send_signal(blow)
    for thread in asking:
        thread.join()
    client.close()
    assert process.wait(60) == 0
    assert statuses == [200] * 4


def test_kill_9_loses_no_picture_whose_answer_came(started: Callable[..., tuple], tmp_path: Path) -> None:
    process, address = started()
    promised: set[str] = set()
    generator = torch.Generator().manual_seed(0)

    def ask() -> None:
        while True:
            images = torch.randint(256, (2, 1, 32, 32), generator=generator).tolist()
            try:
                answer = httpx.post(f"{address}/predict", json={"images": images}, timeout=60).json()
            except httpx.TransportError:
                return
            promised.update(one["quarantined"] for one in answer["predictions"] if one["quarantined"])

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    while len(promised) < 20:
        time.sleep(0.01)
    process.kill()
    for thread in asking:
        thread.join()
    quarantine = Quarantine(tmp_path / "q.sqlite3")
    assert promised <= {entry.key for entry in quarantine.entries(limit=10_000)}
    quarantine.close()


def test_sighup_reads_the_folder_again(started: Callable[..., tuple], saved: Path) -> None:
    process, address = started(env={"GOODNET_API_KEY": "0123456789abcdef"})
    headers = {"X-API-Key": "0123456789abcdef"}
    assert httpx.get(f"{address}/metrics").status_code == 401
    before = httpx.get(f"{address}/health").json()["model"]
    old = goodnet.load_goodnet(saved)
    goodnet.save_goodnet(goodnet.GoodNet(old.badnet, old.repaired, LostConfidence(threshold=0.9)), saved)
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while (now := httpx.get(f"{address}/health").json()["model"]) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    goodnet.save_goodnet(old, saved)
    assert now != before
    assert "goodnet_model_swaps_total 1.0" in httpx.get(f"{address}/metrics", headers=headers).text


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments], env=env)
    assert result.exit_code == 2
    return result.stderr


def test_what_cannot_be_served_is_refused_in_words(saved: Path, tmp_path: Path) -> None:
    assert "goodnet repair FILE" in refused(str(saved / "badnet"))
    assert "goodnet repair FILE" in refused(str(tmp_path / "nothing"))
    assert "others could read the quarantine" in refused(str(saved), "--host", "0.0.0.0")
    assert "at least 16 characters" in refused(str(saved), env={"GOODNET_API_KEY": "short"})
    (tmp_path / "key").write_text("short\n")
    assert "at least 16 characters" in refused(str(saved), "--key-file", str(tmp_path / "key"))
    assert "sqlite or postgresql" in refused(str(saved), "--quarantine", "mysql://x/y")


def test_without_the_extra_it_says_what_to_install(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'goodnet[serve]'" in refused(str(saved))
