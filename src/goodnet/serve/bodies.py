"""From the bytes of a request to images, within bounds: whatever is wrong with them is a refusal, never a fault."""

import asyncio
import json
import math
from typing import Any

import numpy as np
import torch
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message
from torch import Tensor

from goodnet.data._images import decode_bytes
from goodnet.errors import UnreadableData
from goodnet.serve.refusals import Refused
from goodnet.serve.settings import Settings

FIELD = "image"
RANGES = {"0..255": 255, "0..1": 1}
MOST_SMALL = 65_536
_RETRY = {"Retry-After": "1"}


class Admission:
    """Counts the requests that are being read or answered, and the bytes that they hold; used by one event loop."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self.requests = 0
        self.bytes = 0

    def enter(self) -> None:
        """Let a request in, or refuse it before anything of it is read."""
        if self.requests >= self._settings.most_waiting:
            raise Refused(429, "busy", f"{self.requests} requests wait for an answer; try again later", _RETRY)
        self.requests += 1

    def hold(self, size: int) -> None:
        """Take in ``size`` more bytes."""
        if self.bytes + size > self._settings.most_held:
            raise Refused(429, "busy", "requests that wait for an answer fill the memory; try again later", _RETRY)
        self.bytes += size

    def leave(self, size: int) -> None:
        """A request that held ``size`` bytes has its answer."""
        self.requests -= 1
        self.bytes -= size


class Body:
    """What was read of a request's body, also when reading stopped, and how many bytes of it are counted."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.held = 0


async def read(request: Request, body: Body, admission: Admission, settings: Settings) -> None:
    """Read the whole body, within the bytes and seconds that are allowed."""
    most = settings.most_body
    too_large = Refused(413, "too-large", f"a request has at most {most:,} bytes", {"Connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > most:
        raise too_large
    try:
        async with asyncio.timeout(settings.timeout):
            async for part in request.stream():
                if len(body.content) + len(part) > most:
                    raise too_large
                admission.hold(len(part))
                body.held += len(part)
                body.content += part
    except TimeoutError:
        raise Refused(408, "slow", f"sending took more than {settings.timeout:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "gone", "the connection ended before the request did") from None


async def read_small(request: Request, settings: Settings) -> None:
    """Read the body of a request that carries no images, or refuse it before more than a little is held."""
    declared = request.headers.get("content-length", "0")
    unknown = "transfer-encoding" in request.headers or not (declared.isascii() and declared.isdecimal())
    if unknown or int(declared[:20]) > MOST_SMALL:
        message = f"this request has at most {MOST_SMALL:,} bytes, and says how many in Content-Length"
        raise Refused(413, "too-large", message, {"Connection": "close"})
    try:
        async with asyncio.timeout(settings.timeout):
            await request.body()
    except TimeoutError:
        raise Refused(408, "slow", f"sending took more than {settings.timeout:g} s", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "gone", "the connection ended before the request did") from None


async def images_of(request: Request, content: bytes, shape: tuple[int, int, int], settings: Settings) -> Tensor:
    """uint8 (M, C, H, W), with M at least 1, of a body in one of the two forms."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = await _files(request, content, settings)
        return await asyncio.to_thread(_decoded, files, shape, settings)
    if kind == "application/json":
        return await asyncio.to_thread(_array, content, shape, settings)
    message = f"send multipart/form-data with the field {FIELD!r}, or application/json"
    raise Refused(415, "media-type", message)


async def _files(request: Request, content: bytes, settings: Settings) -> list[bytes]:
    async def replay() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    try:
        whole = Request(request.scope, replay)
        async with whole.form(max_files=settings.most_images, max_fields=settings.most_images) as form:
            parts = form.multi_items()
            strange = sorted({name for name, part in parts if name != FIELD or not isinstance(part, UploadFile)})
            if strange or not parts:
                had = f"got {strange[0][:40]!r}" if strange else "got none"
                raise Refused(422, "field", f"every part must be a file in the field {FIELD!r}, {had}")
            return [await part.read() for _, part in parts if isinstance(part, UploadFile)]
    except HTTPException as error:
        raise Refused(400, "multipart", str(error.detail)) from None
    except (ValueError, KeyError, LookupError) as error:  # an unknown charset, a boundary of other letters
        raise Refused(400, "multipart", f"the form cannot be read: {error}") from None


def _decoded(files: list[bytes], shape: tuple[int, int, int], settings: Settings) -> Tensor:
    images = torch.empty(len(files), *shape, dtype=torch.uint8)
    for position, content in enumerate(files):
        try:
            pixels = decode_bytes(content, shape, settings.most_pixels)
        except UnreadableData as error:
            raise Refused(422, "image", f"image {position} cannot be read: {error}") from None
        images[position] = torch.from_numpy(pixels.copy())
    return images


def _array(content: bytes, shape: tuple[int, int, int], settings: Settings) -> Tensor:
    """Of ``{"images": [...], "range": "0..255"}``; numbers are rounded to the 8 bits that are judged and kept."""
    try:
        record: Any = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "json", f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(record, dict) or "images" not in record or not set(record) <= {"images", "range"}:
        raise Refused(422, "array", 'send {"images": [...], "range": "0..255"}, and nothing else')
    scale = record.get("range", "0..255")
    if not isinstance(scale, str) or scale not in RANGES:
        raise Refused(422, "array", f"range is one of {', '.join(RANGES)}")
    values = _numbers(record["images"])
    wanted = f"images must be numbers of shape (M, {', '.join(map(str, shape))})"
    if values is None:
        raise Refused(422, "array", wanted)
    if values.shape == shape:
        values = values[None]
    if values.shape[1:] != shape or not len(values):
        raise Refused(422, "array", f"{wanted}, got {values.shape}")
    if len(values) > settings.most_images:
        raise Refused(413, "too-many", f"a request has at most {settings.most_images} images")
    highest = RANGES[scale]
    if not (math.isfinite(values.min()) and values.min() >= 0 and values.max() <= highest):
        raise Refused(422, "array", f"images must lie in {scale}, got {values.min():g} to {values.max():g}")
    return torch.from_numpy(np.rint(values * (255 / highest)).astype(np.uint8))


def _numbers(nested: Any) -> "np.ndarray[Any, np.dtype[np.float64]] | None":
    """Nested lists of numbers as float64, None where they are something else."""
    try:
        values = np.asarray(nested)
    except (ValueError, OverflowError):
        return None
    return values.astype(np.float64) if values.dtype.kind in "iuf" and values.ndim else None


def _no_number(written: str) -> None:
    raise ValueError(f"{written} is no number")
