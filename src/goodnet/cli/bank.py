"""goodnet bank: clean nets of one's own kind, so that p-values mean something for it."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._look import ready
from goodnet.cli._progress import progress_bar
from goodnet.errors import GoodnetError, UsageError

if TYPE_CHECKING:
    from functools import partial

    from goodnet.audit._bank import BankEntry
    from goodnet.audit.files import FileAudit

app = typer.Typer(
    help="Clean nets of your own kind, for suspects to be compared with.", rich_markup_mode=None, no_args_is_help=True
)


@app.callback()
def bank() -> None:
    """Clean nets of your own kind, for suspects to be compared with."""


@app.command()
def add(
    files: _options.Files,
    data: _options.Data = None,
    limit: _options.Limit = 1000,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    method: _options.Method = "neural-cleanse",
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
) -> int:
    """Audit nets that you know to be clean and add their scores to your bank.

    Add all of them, also those that score high: a bank without them raises false alarms. 19 nets are enough for a
    verdict at 5 %, 99 at 1 %. The bank is $GOODNET_BANK, else goodnet/bank.json in your data folder.

    \b
    Example:
      goodnet bank add trained-by-us/*.h5 --data clean/

    \b
    Exit codes:
      0  all were added
      1  a file would execute something
      2  a file cannot be read or was not added, or wrong usage
    """
    look = ready(method, data=data, limit=limit, arch=arch, input_range=input_range, device=device, seed=seed)
    codes = []
    for path in files:
        try:
            _add(path, look, data or "", seed)
            codes.append(_outcome.NOTHING_FOUND)
        except GoodnetError as error:
            _outcome.complain(str(error))
            codes.append(_outcome.code_of(error))
    return _outcome.worst(codes)


def _add(path: Path, look: "partial[FileAudit]", data: str, seed: int) -> None:
    """Audit one net and append its score to the user's bank."""
    from goodnet.audit._bank import CleanBank, user_bank

    with progress_bar(path.name, silent=False) as progress:
        result = look(path, progress=progress)
    entry = _entry(path, result, data, seed)
    place = user_bank()
    known = CleanBank.read(place).entries if place.exists() else ()
    if any(_same_net(entry, other) for other in known):
        raise UsageError(f"{path} is in {place} already; a net that counts twice would make p-values wrong")
    CleanBank((*known, entry)).write(place)
    typer.echo(_outcome.shown(f"{path}: score {entry.score:.3f} added to {place}, {len(known) + 1} nets"))
    if result.verdict.flagged:
        _outcome.complain(
            f"{path}: goodnet itself suspects this net ({result.verdict.reason}); added, because you vouch for it"
        )


def _entry(path: Path, result: "FileAudit", data: str, seed: int) -> "BankEntry":
    """The score to keep.

    Raises:
        UsageError: the audit itself could not decide, so that its score means nothing.
    """
    from goodnet.audit._bank import BankEntry
    from goodnet.training import accuracy

    verdict, model, samples = result.verdict, result.model, result.samples
    if verdict.flagged is None and verdict.reason != verdict.evidence["compared_with"]:
        raise UsageError(f"{path} was not added, its score means nothing: {verdict.reason}")
    labels = None if samples is None else samples.labels
    known = samples is not None and labels is not None and len(labels) and int(labels.max()) < model.num_classes
    return BankEntry(
        method=verdict.provenance.method,
        version=verdict.provenance.version,
        score=verdict.score,
        num_classes=model.num_classes,
        architecture=model.architecture,
        data=Path(data).name,
        seed=seed,
        clean_accuracy=accuracy(model, samples) if samples is not None and known else None,
    )


def _same_net(one: "BankEntry", other: "BankEntry") -> bool:
    """Equal in every digit of the score: the same net, audited in the same way."""
    same_method = (one.method, one.version, one.num_classes) == (other.method, other.version, other.num_classes)
    return same_method and one.score == other.score
