"""goodnet quarantine: what a service caught, from the command line."""

import json
from pathlib import Path
from typing import Annotated

import typer

from goodnet.cli import _options, _outcome
from goodnet.errors import UsageError

app = typer.Typer(
    help="Quarantine: the images that goodnet serve answered with N.", rich_markup_mode=None, no_args_is_help=True
)

Place = Annotated[str, typer.Argument(metavar="PATH|URL", help="An SQLite file or postgresql://..., as of serve.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the images, with one folder for each mark.")]
Marks = Annotated[
    list[str] | None,
    typer.Option(metavar="MARK", help="clean, poisoned, unsure or unmarked; may be repeated. Poisoned if left out."),
]


@app.callback()
def quarantine() -> None:
    """Quarantine: the images that goodnet serve answered with N."""


@app.command()
def export(place: Place, out: Out, mark: Marks = None, as_json: _options.Json = False) -> int:
    """Write marked images into a folder that every command takes for data, with quarantine.json beside them.

    The quarantine stays as it is, and the service may go on. Needs pip install 'goodnet[serve]'.

    \b
    Examples:
      goodnet quarantine export repaired.quarantine.sqlite3 --out caught/
      goodnet quarantine export repaired.quarantine.sqlite3 --mark poisoned --mark unmarked --out caught/
      goodnet quarantine export postgresql://goodnet@db/goodnet --out caught/

    \b
    Exit codes:
      0  written
      2  there is no such quarantine, no image with such a mark, or wrong usage
    """
    try:
        from goodnet.serve.export import export_folder
        from goodnet.serve.quarantine import Limits, Quarantine
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "goodnet":
            raise
        raise UsageError(f"goodnet quarantine needs {error.name}: pip install 'goodnet[serve]'") from error
    if "://" not in place and not Path(place).is_file():
        raise UsageError(f"{place} does not exist; goodnet serve DIR keeps its quarantine in DIR.quarantine.sqlite3")
    marks = tuple(mark or ("poisoned",))
    opened = Quarantine(place, Limits(days=0, most_images=2**62, most_bytes=2**62))  # nothing goes because of us
    try:
        count = export_folder(opened, out, marks)
    finally:
        opened.close()
    record = {"schema": 1, "quarantine": opened.place, "out": str(out), "marks": marks, "images": count}
    words = f"{out}  {count:,} images marked {' or '.join(marks)}"
    typer.echo(json.dumps(record, indent=1) if as_json else _outcome.shown(words))
    return _outcome.NOTHING_FOUND
