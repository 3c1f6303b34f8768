"""What a person sees of a quarantine: the page, its pictures, marks, and what was marked as a zip file."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict

import goodnet
from goodnet.errors import UsageError
from goodnet.report.html import environment
from goodnet.serve.export import export_zip
from goodnet.serve.quarantine import Entry
from goodnet.serve.refusals import Refused
from goodnet.serve.service import Service

_KEY = re.compile(r"[0-9a-f]{64}")
_TYPES = {"review.css": "text/css", "review.js": "text/javascript"}
Mark = Literal["clean", "poisoned", "unsure"]
Shown = Literal["clean", "poisoned", "unsure", "unmarked"]


class Marking(BaseModel):
    """What a person thinks of a picture; null takes it back."""

    model_config = ConfigDict(extra="forbid")
    mark: Mark | None


class Page(BaseModel):
    """Part of the quarantine, the newest first; ``next`` goes on behind it."""

    entries: list[dict[str, Any]]
    next: str | None
    counts: dict[str, int]


def review_routes(service: Service) -> APIRouter:
    """The routes of the page; who may use them is decided before."""
    routes, quarantine = APIRouter(tags=["quarantine"]), service.quarantine

    @routes.get("/", include_in_schema=False)
    async def front() -> Response:
        return RedirectResponse("/review")

    @routes.get("/review", response_class=HTMLResponse)
    def review() -> str:
        """The page on which people look at the quarantine."""
        served = service.served
        names = {label: served.name_of(label) or str(label) for label in range(served.model.num_classes)}
        template = environment("goodnet.serve").get_template("review.html")
        return template.render(served=served, names=names, version=goodnet.__version__)

    @routes.get("/review/{file}", include_in_schema=False)
    def asset(file: str) -> Response:
        if file not in _TYPES:
            raise Refused(404, "http", "Not Found")
        content = resources.files("goodnet.serve").joinpath("templates", file).read_bytes()
        return Response(content, media_type=_TYPES[file])

    @routes.get("/quarantine")
    def entries(
        mark: Annotated[list[Shown] | None, Query(max_length=4)] = None,
        predicted: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
        after: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}(\.[0-9]{1,9})?,[0-9a-f]{64}$")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 60,
    ) -> Page:
        """What is in quarantine, the newest first."""
        behind = None
        if after is not None:
            seconds, _, key = after.partition(",")
            behind = float(seconds), key
        found = quarantine.entries(marks=mark or (), predicted=predicted, after=behind, limit=limit)
        more = f"{found[-1].first_seen:.9f},{found[-1].key}" if len(found) == limit else None
        return Page(entries=[_shown(entry, service) for entry in found], next=more, counts=quarantine.contents().counts)

    @routes.get("/quarantine/export.zip", response_class=StreamingResponse)
    def export(mark: Annotated[list[Shown] | None, Query(max_length=4)] = None) -> Response:
        """The pictures with these marks (poisoned if left out), as a zip file of a folder that goodnet reads."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when all of it is sent
        try:
            export_zip(quarantine, file, mark or ("poisoned",))
        except UsageError as error:
            file.close()
            raise Refused(404, "empty", str(error)) from None
        file.seek(0)

        def parts() -> Iterator[bytes]:
            with file:
                while part := file.read(1 << 16):
                    yield part

        headers = {"Content-Disposition": 'attachment; filename="quarantine.zip"'}
        return StreamingResponse(parts(), media_type="application/zip", headers=headers)

    @routes.get("/quarantine/{key}.png", response_class=Response)
    def picture(key: str) -> Response:
        """One picture as the network saw it."""
        png = quarantine.png(_checked(key))
        if png is None:
            raise Refused(404, "gone", "no such picture is in quarantine")
        return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @routes.post("/quarantine/{key}")
    def mark(key: str, marking: Marking) -> Marking:
        """Mark a picture as clean, poisoned or unsure, or take the mark back."""
        if not quarantine.mark(_checked(key), marking.mark):
            raise Refused(404, "gone", "no such picture is in quarantine")
        return marking

    return routes


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise Refused(404, "gone", "a picture is named by 64 hexadecimal digits")
    return key


def _shown(entry: Entry, service: Service) -> dict[str, Any]:
    name = None if entry.predicted is None else service.served.name_of(entry.predicted) or str(entry.predicted)
    return asdict(entry) | {"name": name}
