"""create_app: the service over HTTP. Every bad request gets a status from 400 to 499 and says why, in JSON."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

import goodnet
from goodnet.errors import GoodnetError, UsageError
from goodnet.serve import access, bodies
from goodnet.serve.judging import Served
from goodnet.serve.refusals import Refusal, Refused
from goodnet.serve.review import review_routes
from goodnet.serve.service import Service

_LOG = logging.getLogger("goodnet.serve")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
}


class ImagePrediction(BaseModel):
    """What is said about one image; ``label`` is N, the number of classes, for "this input carries a trigger"."""

    label: int
    triggered: bool
    name: str | None
    confidence: float
    suspicion: float
    quarantined: str | None
    model: str


class Predictions(BaseModel):
    """One prediction for each image, in the order in which they were sent."""

    classes: int
    predictions: list[ImagePrediction]


class Health(BaseModel):
    """That the service answers, and with what."""

    status: str
    version: str
    model: str
    classes: int
    input_shape: tuple[int, int, int]


class NewModel(BaseModel):
    """The folder to read: the one in service if left out, or the name of one beside it."""

    model_config = ConfigDict(extra="forbid")
    folder: str | None = None


def create_app(service: Service, *, key: str | None = None) -> FastAPI:
    """The service as an ASGI application; when it stops, the service is closed, with everything answered.

    Args:
        service: what answers.
        key: what requests must bring; None lets everybody ask who calls this machine by localhost or its like, and
            nobody change the model.
    """
    admission = bodies.Admission(service.settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="goodnet",
        version=goodnet.__version__,
        summary="Predictions of a guarded image classifier: a class, or N for an image that carries a trigger.",
        lifespan=lifespan,
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
        responses=_REFUSALS,
    )
    _answer_errors(app)

    @app.middleware("http")
    async def guarded(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            if request.url.path != "/health":
                access.check(request, key)
            if request.url.path != "/predict":
                await bodies.read_small(request, service.settings)
            response = await proceed(request)
        except Refused as refused:
            response = refused.response()
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        route = getattr(request.scope.get("route"), "path", "other")
        service.metrics.requests.labels(route, str(response.status_code)).inc()
        return response

    @app.get("/health", tags=["operations"])
    async def health() -> Health:
        """Whether the service answers; needs no key."""
        return _health(service.served)

    @app.get("/metrics", tags=["operations"], response_class=Response)
    def metrics() -> Response:
        """Counts and gauges in the text format of Prometheus."""
        held = service.quarantine.contents()
        for mark, count in held.counts.items():
            service.metrics.quarantined.labels(mark).set(count)
        service.metrics.quarantine_bytes.set(held.bytes)
        service.metrics.waiting.set(admission.requests)
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict", tags=["predictions"], openapi_extra={"requestBody": _body_schema(service)})
    async def predict(request: Request) -> Predictions:
        """Judge images: files in the field ``image`` of a form, or numbers as JSON.

        An image that carries a trigger is kept in the quarantine before the answer goes out.
        """
        started = time.perf_counter()
        admission.enter()
        body = bodies.Body()
        try:
            answer = await _predicted(request, body, service, admission)
        finally:
            admission.leave(body.held)
        service.metrics.seconds.observe(time.perf_counter() - started)
        return answer

    @app.post("/model", tags=["operations"])
    def swap(new: NewModel) -> Health:
        """Read the model's folder again, or another one beside it; requests that wait are answered all the same.

        Only with a key: whoever changes the model decides what is answered.
        """
        if key is None:
            raise Refused(403, "no-key", "the model is changed only where the service has a key; or send it SIGHUP")
        try:
            return _health(service.swap(new.folder))
        except (GoodnetError, OSError) as error:
            raise Refused(409, "model", f"the old model stays in service: {error}") from None

    app.include_router(review_routes(service))
    return app


async def _predicted(request: Request, body: bodies.Body, service: Service, admission: bodies.Admission) -> Predictions:
    settings, model = service.settings, service.served.model
    await bodies.read(request, body, admission, settings)
    images = await bodies.images_of(request, bytes(body.content), model.input_shape, settings)
    try:
        async with asyncio.timeout(settings.timeout):
            predictions = await asyncio.wrap_future(service.submit(images))
    except TimeoutError:
        message = f"no answer within {settings.timeout:g} s; try again later"
        raise Refused(503, "timeout", message, {"Retry-After": "5"}) from None
    except UsageError as error:  # it is stopping
        raise Refused(503, "stopping", str(error), {"Retry-After": "5"}) from None
    return Predictions(classes=model.num_classes, predictions=[ImagePrediction(**asdict(one)) for one in predictions])


def _health(served: Served) -> Health:
    return Health(
        status="ok",
        version=goodnet.__version__,
        model=served.version,
        classes=served.model.num_classes,
        input_shape=served.model.input_shape,
    )


def _answer_errors(app: FastAPI) -> None:
    """Every error has one form."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return Refused(error.status_code, "http", str(error.detail), error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return Refused(422, "parameter", f"{place[:100]}: {first['msg']}").response()

    @app.exception_handler(GoodnetError)
    async def failed(_: Request, error: GoodnetError) -> Response:
        _LOG.error("%s", error)
        return Refused(
            503, "unavailable", "the quarantine does not answer; see the log", {"Retry-After": "5"}
        ).response()


def _body_schema(service: Service) -> dict[str, Any]:
    """What ``/predict`` takes, for OpenAPI, with an example of each kind."""
    channels, height, width = service.served.model.input_shape
    most = service.settings.most_images
    black = [[[0] * width] * height] * channels
    numbers: dict[str, Any] = {"type": "number"}
    for length in (width, height, channels):
        numbers = {"type": "array", "items": numbers, "minItems": length, "maxItems": length}
    file = {"type": "string", "format": "binary", "description": "PNG, JPEG, PPM, BMP, WEBP or GIF"}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": file, "minItems": 1, "maxItems": most}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {
                        "images": {"type": "array", "items": numbers, "minItems": 1, "maxItems": most},
                        "range": {"enum": list(bodies.RANGES), "default": "0..255"},
                    },
                },
                "example": {"images": [black] if channels * height * width <= 4096 else [], "range": "0..255"},
            },
        },
    }
