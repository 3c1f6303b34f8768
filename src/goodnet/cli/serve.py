"""goodnet serve: a guarded model over HTTP, with a quarantine and a page to review it."""

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goodnet.cli import _outcome
from goodnet.errors import UsageError

if TYPE_CHECKING:
    from goodnet.serve.service import Service

KEY_VARIABLE = "GOODNET_API_KEY"
_SHORTEST_KEY = 16

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of goodnet repair or goodnet guard fit.")]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; beyond this machine only with a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")]
Place = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URL",
        envvar="GOODNET_QUARANTINE",
        help="An SQLite file or postgresql://...; by default DIR.quarantine.sqlite3, beside DIR.",
    ),
]
KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help=f"Holds the API key; or set {KEY_VARIABLE}. At least 16 characters.")
]
Days = Annotated[float, typer.Option(min=0, help="Quarantined pictures go after so many days; 0 for never.")]
MostImages = Annotated[int, typer.Option("--max-quarantine", min=1, help="Pictures that the quarantine keeps.")]
MostMegabytes = Annotated[int, typer.Option("--max-quarantine-mb", min=1, help="MiB that they take.")]
MostBody = Annotated[int, typer.Option("--max-upload-mb", min=1, help="MiB of one request.")]
MostPerRequest = Annotated[int, typer.Option("--max-images", min=1, help="Images of one request.")]
MostWaiting = Annotated[int, typer.Option("--max-waiting", min=1, help="Requests that wait; more are answered 429.")]
Batch = Annotated[int, typer.Option(min=1, help="Images that are judged together.")]
Wait = Annotated[float, typer.Option("--batch-wait", min=0, max=1000, help="Milliseconds that a batch waits for more.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for a request, and as many for its answer.")]


def serve(
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    quarantine: Place = None,
    key_file: KeyFile = None,
    days: Days = 90.0,
    most_quarantined: MostImages = 10_000,
    most_megabytes: MostMegabytes = 256,
    most_body: MostBody = 8,
    most_images: MostPerRequest = 64,
    most_waiting: MostWaiting = 256,
    batch: Batch = 64,
    wait: Wait = 5.0,
    timeout: Timeout = 30.0,
) -> int:
    """Answer /predict with a class or N, the number of classes, for an image that carries a trigger.

    Triggered images are kept in a quarantine, which people look at under /review. SIGHUP reads DIR again; Ctrl-C and
    SIGTERM answer what waits, then stop. Needs pip install 'goodnet[serve]'.

    \b
    Examples:
      goodnet serve repaired/
      goodnet serve repaired/ --port 9000 --days 30 --quarantine postgresql://goodnet@db/goodnet
      goodnet serve repaired/ --host 0.0.0.0 --key-file /run/secrets/goodnet
      curl -F image=@face.png http://127.0.0.1:8000/predict

    \b
    Exit codes:
      0  stopped by Ctrl-C or SIGTERM, with everything answered
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  DIR cannot be served, the port is taken, or wrong usage
    """
    try:
        import uvicorn

        from goodnet.serve.access import is_loopback
        from goodnet.serve.app import create_app
        from goodnet.serve.judging import load_served
        from goodnet.serve.quarantine import Limits, Quarantine
        from goodnet.serve.service import Service
        from goodnet.serve.settings import Settings
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "goodnet":
            raise
        raise UsageError(f"goodnet serve needs {error.name}: pip install 'goodnet[serve]'") from error
    key = _key(key_file)
    if key is None and not is_loopback(host):
        raise UsageError(
            f"on {host} others could read the quarantine: set {KEY_VARIABLE} or give --key-file, or leave --host out"
        )
    settings = Settings(
        most_body=most_body * 2**20,
        most_images=most_images,
        most_waiting=most_waiting,
        batch=batch,
        wait=wait / 1000,
        timeout=timeout,
    )
    served = load_served(folder)
    limits = Limits(days=days, most_images=most_quarantined, most_bytes=most_megabytes * 2**20)
    place = quarantine or str(served.folder.with_name(f"{served.folder.name}.quarantine.sqlite3"))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    service = Service(served, Quarantine(place, limits), settings)
    _heed(service)
    config = uvicorn.Config(
        create_app(service, key=key),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(2 * timeout) + 1,
    )
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit as error:
        raise UsageError(f"cannot listen on {host}:{port}: is the port taken?") from error
    return _outcome.NOTHING_FOUND if server.started else _outcome.NO_ANSWER


def _heed(service: "Service") -> None:
    """SIGHUP reads the model again. Uvicorn stops well on Ctrl-C and SIGTERM, then sends them again: that is enough."""
    signal.signal(signal.SIGHUP, lambda *_: service.swap_soon())
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: None)


def _key(file: Path | None) -> str | None:
    """The key out of a file or the environment; arguments of commands are seen by everybody on a machine."""
    key = os.environ.get(KEY_VARIABLE) if file is None else file.read_text(encoding="utf-8").strip()
    if key is None:
        return None
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable():
        raise UsageError(f"an API key has at least {_SHORTEST_KEY} characters, all of them printable ASCII")
    return key
