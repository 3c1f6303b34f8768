"""Measure `goodnet serve` from outside: rate, latency, memory, overload, hot swap, kill -9, and hostile requests.

    python benchmarks/serve.py DIR --data PATH [--triggered PATH] [--seconds 60] [--fuzz 1000]

DIR is what `goodnet serve` takes. The service and the load generator (benchmarks/load.py) are processes of their own
on this machine, so they share its cores. PATH holds pictures of the model's kind; those of ``--triggered``, which DIR
should answer N for, are needed for the kill: without them noise is sent. Needs Linux, for the memory.

Exits with 1 if a request failed, an answer to overload was neither 200 nor 429, an acknowledged picture was lost, or a
hostile request got a 5xx other than a documented 503.
"""

import argparse
import collections
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import fuzzing
import torch

import goodnet
from goodnet.serve._pictures import from_png, key_of, to_png
from goodnet.serve.judging import load_served

LOAD = Path(__file__).with_name("load.py")


class Served:
    """`goodnet serve` on one folder, on a free port, with a key."""

    def __init__(self, folder: Path, *options: str):
        command = [sys.executable, "-m", "goodnet.cli", "serve", str(folder), "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.log: collections.deque[str] = collections.deque(maxlen=1000)
        self.address = ""
        for line in self.process.stderr:
            if "running on http://" in line:
                self.address = line.split("http://")[1].split()[0]
                break
            self.log.append(line)
        if not self.address:
            raise SystemExit("".join(self.log))
        threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()

    def ask(self, path: str, content: dict[str, Any] | None = None) -> bytes:
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            None if content is None else json.dumps(content).encode(),
            {"X-API-Key": os.environ["GOODNET_API_KEY"], "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return bytes(response.read())

    def resident(self) -> float:
        """MiB of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def load(self, pictures: Path, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(LOAD), self.address, str(pictures), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(120)


def result(load: "subprocess.Popen[str]") -> dict[str, Any]:
    return dict(json.loads(load.communicate()[0]))


def write(images: torch.Tensor, folder: Path) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(images):
        (folder / f"{number:04}.png").write_bytes(to_png(pixels))
    return folder


def measure_rate(served: Served, pictures: Path, seconds: float) -> bool:
    warm = result(served.load(pictures, "--seconds", "10", "--threads", "32"))
    rate = 0.8 * warm["per_second"]
    print(f"maximum: {warm['per_second']:.0f} pictures a second, each a request; {warm['statuses']}", flush=True)
    before = served.resident()
    held = result(served.load(pictures, "--seconds", str(seconds), "--threads", "64", "--rate", str(rate)))
    statuses = held["statuses"]
    print(
        f"{rate:.0f} a second for {seconds:g} s: {statuses}, p50 {held['p50'] * 1e3:.1f} ms, "
        f"p99 {held['p99'] * 1e3:.1f} ms, ratio {held['p99'] / held['p50']:.1f}; "
        f"memory {before:.0f} MiB, then {served.resident():.0f} MiB",
        flush=True,
    )
    return set(statuses) == {"200"}


def measure_swap(served: Served, pictures: Path, names: tuple[str, str]) -> bool:
    load, swaps = served.load(pictures, "--seconds", "10", "--threads", "8"), 0
    while load.poll() is None:
        served.ask("/model", {"folder": names[swaps % 2]})
        swaps += 1
        time.sleep(0.5)
    statuses = result(load)["statuses"]
    failed = sum(count for status, count in statuses.items() if status != "200")
    print(f"hot swap: {swaps} swaps under load, {failed} of {sum(statuses.values())} requests failed", flush=True)
    return failed == 0


def measure_overload(folder: Path, pictures: Path) -> bool:
    served = Served(folder, "--max-waiting", "8")
    statuses = result(served.load(pictures, "--seconds", "10", "--threads", "64"))["statuses"]
    print(f"overload, 64 at once where 8 may wait: {statuses}", flush=True)
    return served.stop() == 0 and set(statuses) == {"200", "429"}


def measure_kill(folder: Path, pictures: Path) -> bool:
    """Kill the service while it writes; then ask a new one for every picture that an answer had named."""
    served = Served(folder)
    load = served.load(pictures, "--seconds", "20", "--threads", "16", "--unique")
    time.sleep(6)
    served.process.kill()
    served.process.wait()
    promised = set(result(load)["kept"])
    again = Served(folder)
    found = sum(key_of(from_png(again.ask(f"/quarantine/{key}.png"))) == key for key in promised)
    print(f"kill -9: {len(promised)} pictures acknowledged, {found} found whole after the restart", flush=True)
    return again.stop() == 0 and found == len(promised) > 0


def measure_fuzz(served: Served, number: int) -> bool:
    counts, bad = fuzzing.fuzz(served.address, number, seed=0)
    print(
        f"hostile: {number} requests, seed 0: {dict(sorted(counts.items()))}, {len(bad)} undocumented 5xx", flush=True
    )
    served.ask("/health")
    return not bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--triggered")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fuzz", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ["GOODNET_API_KEY"] = secrets.token_hex(16)
    torch.set_num_threads(1)
    shape = load_served(arguments.folder).model.input_shape
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        one, other = (Path(shutil.copytree(arguments.folder, work / name)) for name in ("one", "other"))
        clean = goodnet.load_data(arguments.data, shape=shape).shuffled(torch.Generator().manual_seed(0)).images[:500]
        images = torch.randint(256, (100, *shape), dtype=torch.uint8)
        if arguments.triggered:
            images = goodnet.load_data(arguments.triggered, shape=shape).images[:500]
        pictures, triggered = write(clean, work / "clean"), write(images, work / "triggered")
        served = Served(one)
        good = [
            measure_rate(served, pictures, arguments.seconds),
            measure_swap(served, pictures, (other.name, one.name)),
            measure_fuzz(served, arguments.fuzz),
            served.stop() == 0,
            measure_overload(one, pictures),
            measure_kill(one, triggered),
        ]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
