"""Send pictures to a service at a set rate, or as fast as it answers, and print what came back as JSON.

    python benchmarks/load.py ADDRESS PICTURES --threads 16 --seconds 10 [--rate R] [--unique]

ADDRESS is HOST:PORT; PICTURES a folder of PNG files. At a set rate a request's time runs from when it was due, so one
that a slow answer held up counts in full. Without a rate each thread sends as soon as it has its answer. The key
comes from GOODNET_API_KEY.
"""

import argparse
import http.client
import io
import itertools
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

BOUNDARY = "goodnet-load"


def form(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def altered(picture: bytes, number: int) -> bytes:
    """The picture with ``number`` in three values of its first row, so that no two are equal."""
    pixels = np.array(Image.open(io.BytesIO(picture)))
    pixels.reshape(-1)[:3] = number % 256, number // 256 % 256, number // 65536
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


class Load:
    """What the threads share: the next request's number, and what came back."""

    def __init__(self, arguments: argparse.Namespace):
        self._arguments = arguments
        self._pictures = [path.read_bytes() for path in sorted(arguments.pictures.glob("*.png"))]
        self._numbers = itertools.count()
        self._began = time.perf_counter()
        self._headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        if "GOODNET_API_KEY" in os.environ:
            self._headers["X-API-Key"] = os.environ["GOODNET_API_KEY"]
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.kept: list[str] = []

    def work(self) -> None:
        connection = http.client.HTTPConnection(self._arguments.address, timeout=60)
        end = self._began + self._arguments.seconds
        while True:
            number = next(self._numbers)
            picture = self._pictures[number % len(self._pictures)]
            body = form(altered(picture, number) if self._arguments.unique else picture)
            due = time.perf_counter() if not self._arguments.rate else self._began + number / self._arguments.rate
            if due >= end:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                connection.request("POST", "/predict", body, self._headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
                if isinstance(error, ConnectionRefusedError):
                    return
                continue
            self.statuses[str(response.status)] += 1
            if response.status == 200:
                self.seconds.append(time.perf_counter() - due)
                self.kept += [p["quarantined"] for p in json.loads(content)["predictions"] if p["quarantined"]]

    def run(self) -> dict[str, object]:
        threads = [threading.Thread(target=self.work) for _ in range(self._arguments.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - self._began
        middle, slow = np.quantile(self.seconds, [0.5, 0.99]).tolist() if self.seconds else (None, None)
        return {
            "statuses": dict(self.statuses),
            "per_second": len(self.seconds) / took,
            "p50": middle,
            "p99": slow,
            "kept": self.kept,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--unique", action="store_true")
    print(json.dumps(Load(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
