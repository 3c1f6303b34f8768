"""Malformed, oversized and hostile requests for a running service, drawn from its OpenAPI schema with a seed.

    python benchmarks/fuzzing.py ADDRESS N [--seed 0]

Prints the answers by status; exits with 1 if one is a 5xx other than a 503 that the schema documents, or if the
service no longer answers. The key comes from GOODNET_API_KEY.
"""

import argparse
import http.client
import json
import os
import random
import re
import struct
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

WORDS = (
    "", "\x00", "\ud800", "../../etc/passwd", "/etc", "..", "a" * 5000, "'; DROP TABLE pictures; --", "%00", "%s%n",
    "\u202e", "clean", "poisoned", "unmarked", "0" * 64, "-1", "1e999", "NaN", "9" * 30, "99," + "f" * 64,
    "9" * 12 + "." + "9" * 9 + "," + "0" * 64,
)  # fmt: skip
VALUES = (None, True, 0, -1, 256, 10**30, 1e308, 0.5, [], {}, [[]], [[[[]]]], float("nan"))
TYPES = (
    "application/json", "multipart/form-data; boundary=x", "multipart/form-data", "multipart/form-data; boundary=",
    "multipart/form-data; boundary=" + "x" * 300, "multipart/form-data; charset=nonsense; boundary=x", "text/plain", "",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=\xff",
)  # fmt: skip
HEADERS = (
    ("Host", "elsewhere.example"), ("Host", ""), ("Host", "[::1"), ("Origin", "http://elsewhere.example"),
    ("Origin", "http://[::"), ("X-API-Key", "wrong"), ("X-API-Key", "\xff"), ("Authorization", "Basic !!!"),
    ("Authorization", "Basic /////w=="), ("Authorization", "Bearer"),
    ("Content-Encoding", "gzip"), ("Range", "bytes=9-1"),
    ("Accept", "\xff"), ("X-Long", "a" * 20_000), ("Expect", "100-continue"), ("Content-Length", "-1"),
    ("Content-Length", "99999999999"), ("Content-Length", "1_0"), ("Transfer-Encoding", "chunked"),
)  # fmt: skip


@dataclass
class Sent:
    """One request as it goes out."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Fuzzer:
    """Draws requests from a schema; equal seeds draw equal requests."""

    def __init__(self, schema: dict[str, Any], seed: int):
        self._schema = schema
        self._random = random.Random(seed)
        self._operations = [(p, m, o) for p, ways in schema["paths"].items() for m, o in ways.items()]

    def draw(self) -> Sent:
        pick = self._random
        path, method, operation = pick.choice(self._operations)
        query = []
        for parameter in operation.get("parameters", ()):
            value = quote(pick.choice(WORDS).encode(errors="surrogatepass"), safe="")
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", value)
            elif pick.random() < 0.7:
                query += [f"{parameter['name']}={value}"] * pick.choice((1, 1, 2, 50))
        path = re.sub(r"\{\w+\}", "0" * 64, path) + ("?" + "&".join(query) if query else "")
        if pick.random() < 0.05:
            method = pick.choice(("put", "delete", "trace", "patch", "options", "head", "GOODNET"))
        sent = Sent(method.upper(), path)
        contents = operation.get("requestBody", {}).get("content", {})
        if contents or pick.random() < 0.05:
            kind = pick.choice([*contents, "application/json"])
            sent.body = self._form() if "form" in kind else self._json(contents.get(kind, {}).get("schema", {}))
            sent.headers["Content-Type"] = "multipart/form-data; boundary=x" if "form" in kind else kind
            if pick.random() < 0.15:
                sent.headers["Content-Type"] = pick.choice(TYPES)
        if pick.random() < 0.15:
            name, value = pick.choice(HEADERS)
            sent.headers[name] = value
        return sent

    def _json(self, schema: dict[str, Any]) -> bytes:
        pick = self._random
        if pick.random() < 0.05:
            return pick.choice(
                (b"[" * 100_000, b"{", b"\xff\xfe", b"9" * 10_000, b'{"images":' + b"[" * 60 + b"]" * 60 + b"}")
            )
        content = json.dumps(self._value(schema, 0.05)).encode()
        return self._damaged(content)

    def _value(self, schema: dict[str, Any], wrong: float) -> Any:
        """What the schema asks for, or with chance ``wrong`` at each place something else."""
        pick = self._random
        while "$ref" in schema:
            schema = self._schema["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        if pick.random() < wrong:
            return pick.choice((*WORDS, *VALUES))
        if "anyOf" in schema:
            return self._value(pick.choice(schema["anyOf"]), wrong)
        if "enum" in schema:
            return pick.choice(schema["enum"])
        if schema.get("type") == "object":
            made = {
                name: self._value(one, wrong)
                for name, one in schema.get("properties", {}).items()
                if pick.random() < 0.9
            }
            return made | ({pick.choice(WORDS): 1} if pick.random() < wrong else {})
        if schema.get("type") == "array":
            item = self._value(schema["items"], wrong / 20)
            most = min(schema.get("maxItems", 3), 100)
            count = (
                most
                if schema.get("minItems", 0) > 1
                else pick.choice((0, 1, 2, most + 1 if pick.random() < 0.05 else 1))
            )
            return [item] * (count + (pick.random() < wrong))
        return pick.randrange(256) if schema.get("type") == "number" else pick.choice(WORDS)

    def _form(self) -> bytes:
        pick, parts = self._random, b""
        for _ in range(pick.choice((0, 1, 1, 1, 2, 70 if pick.random() < 0.1 else 1))):
            name = "image" if pick.random() < 0.9 else pick.choice(WORDS)
            head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{pick.choice(WORDS[5:])}"\r\n\r\n'
            parts += head.encode(errors="surrogatepass") + self._picture() + b"\r\n"
        return self._damaged(parts + b"--x--\r\n")

    def _picture(self) -> bytes:
        """A PNG whose header says any size, a broken start of another kind, or bytes."""
        pick = self._random
        if pick.random() < 0.2:
            start = pick.choice(
                (b"GIF89a", b"\xff\xd8\xff\xe0", b"BM", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"P6 9 9 255\n", b"II*\x00")
            )
            return start + pick.randbytes(pick.randrange(400))
        side = pick.choice((0, 1, 5, 40, 3000, 2**31 - 1))
        depth, color = pick.choice(((8, 2), (8, 0), (16, 0), (1, 3), (8, 6), (7, 9)))
        pixels = zlib.compress(bytes(1 + side * 8) * side) if side < 100 else zlib.compress(bytes(10**6))
        png = b"\x89PNG\r\n\x1a\n"
        for name, data in (
            (b"IHDR", struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)),
            (b"IDAT", pixels),
            (b"IEND", b""),
        ):
            png += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        return self._damaged(png)

    def _damaged(self, content: bytes) -> bytes:
        pick = self._random
        if pick.random() < 0.8 or not content:
            return content
        place = pick.randrange(len(content))
        way = pick.randrange(20)
        if way == 0:
            return content + bytes(9 * 2**20)
        return content[:place] if way < 10 else content[:place] + pick.randbytes(3) + content[place + 3 :]


def send(address: str, sent: Sent) -> str:
    """The status of the answer, or why there is none."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.putrequest(sent.method, sent.path, skip_host="Host" in sent.headers, skip_accept_encoding=True)
        given = {"X-API-Key": os.environ.get("GOODNET_API_KEY", "")} | sent.headers
        if "Content-Length" not in given and "Transfer-Encoding" not in given:
            given["Content-Length"] = str(len(sent.body))
        for name, value in given.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(sent.body)
        if given.get("Content-Length") == "99999999999" and connection.sock is not None:
            connection.sock.settimeout(1)
        return str(connection.getresponse().status)
    except TimeoutError:
        return "no answer to an unfinished request"
    except (OSError, http.client.HTTPException):
        return "closed while sending"
    finally:
        connection.close()


def fuzz(address: str, number: int, seed: int) -> tuple[Counter[str], list[Sent]]:
    """Counts by status, and the requests that got a 5xx which is not documented."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/openapi.json", headers={"X-API-Key": os.environ.get("GOODNET_API_KEY", "")})
    schema = json.loads(connection.getresponse().read())
    connection.close()
    fuzzer, counts, bad = Fuzzer(schema, seed), Counter[str](), []
    for _ in range(number):
        sent = fuzzer.draw()
        status = send(address, sent)
        counts[status] += 1
        if status[0] == "5" and status != "503":
            bad.append(sent)
    return counts, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts, bad = fuzz(arguments.address, arguments.number, arguments.seed)
    print(f"{arguments.number} requests:", dict(sorted(counts.items())))
    for sent in bad[:10]:
        print(f"5xx: {sent.method} {sent.path[:200]!r} {sent.headers} {sent.body[:200]!r}")
    connection = http.client.HTTPConnection(arguments.address, timeout=60)
    connection.request("GET", "/health")
    sys.exit(bool(bad) or connection.getresponse().status != 200)


if __name__ == "__main__":
    main()
