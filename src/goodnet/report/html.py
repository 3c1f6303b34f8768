"""write_report: the audit of one or several files as a page that opens anywhere, and the same as JSON beside it."""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import goodnet
from goodnet.errors import UsageError
from goodnet.report import words
from goodnet.report.audited import AuditedFile
from goodnet.report.json import report_to_dict
from goodnet.report.page import section


def write_report(folder: str | os.PathLike[str], items: Sequence[AuditedFile]) -> Path:
    """Write ``report.html`` (self-contained: no scripts, nothing is fetched) and ``report.json`` into ``folder``.

    Each of the two appears complete or not at all; reports that were there before are replaced.

    Returns:
        The path of ``report.html``.

    Raises:
        UsageError: there is nothing to report, or ``folder`` cannot be a folder.
    """
    folder = Path(folder)
    if not items:
        raise UsageError("a report needs at least one audited file")
    data = json.dumps(report_to_dict(items), indent=1, allow_nan=False)
    # file names may be any bytes; what is no Unicode in them is written as a backslash escape
    page = render(items).encode("utf-8", "backslashreplace")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{folder} is a file, or lies in one; give a folder for the report") from None
    write_files(folder, {"report.json": data.encode(), "report.html": page})
    return folder / "report.html"


def render(items: Sequence[AuditedFile]) -> str:
    """The page as HTML."""
    return (
        environment("goodnet.report")
        .get_template("report.html")
        .render(
            sections=[section(position, item) for position, item in enumerate(items, 1)],
            false_alarms=words.false_alarms_words(items),
            how_to_read=words.HOW_TO_READ,
            limits=words.limits(items),
            version=goodnet.__version__,
            written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )
    )


def environment(*packages: str) -> Environment:
    """Jinja that escapes everything: file names, class names and messages come from strangers.

    Args:
        packages: whose folders ``templates`` are looked in, in this order.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    made.globals["words"] = words
    return made


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write every file beside its final name first, so that a full disk leaves the old files as they were."""
    with ExitStack() as undo:
        waiting = {}
        for name, content in contents.items():
            waiting[name] = folder / f".{name}.{secrets.token_hex(8)}"
            undo.callback(waiting[name].unlink, missing_ok=True)
            with waiting[name].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for name, path in waiting.items():
            os.replace(path, folder / name)
