"""goodnet cleanse: which images of a training set are poisoned, and the set without them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import progress_bar
from goodnet.cli._values import duration, settings

if TYPE_CHECKING:
    from goodnet.cleanse.files import FileCleansed

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="The training set: a folder with one folder per class, .npz, .h5, a data set in its official layout, or "
        "the word digits.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for samples.csv, kept.npz, cleanse.json, report.html.")]
Model = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A model trained on this set; without one it is trained first.")
]
Clean = Annotated[
    str | None, typer.Option(metavar="PATH", help="Images known to be clean, for methods that need them.")
]
Sources = Annotated[
    Path | None,
    typer.Option(metavar="CSV", help="Where images came from: columns source, and id or file; where a method asks."),
]
Marks = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="samples.csv of an earlier run, with clean or poisoned written into its column mark.",
    ),
]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to find poison; see goodnet list cleansers.")]
Arch = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Architecture of a file with only weights, or of the network to train."),
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the set, where a network is trained first.")]
Budget = Annotated[str | None, typer.Option(metavar="TIME", help="Time for the method itself: 90, 90s, 2m, 1h.")]

_CONTENTS = ("samples.csv", "kept.npz", "cleanse.json", "report.html")
_MOST_LABELS = 8  # that are told one by one


def cleanse(
    data: Data,
    out: Out,
    model: Model = None,
    method: Method = "activation-clustering",
    set_: _options.Parameters = None,
    clean: Clean = None,
    sources: Sources = None,
    marks: Marks = None,
    split: _options.Split = None,
    limit: _options.AtMost = None,
    arch: Arch = None,
    input_range: _options.InputRange = None,
    epochs: Epochs = 10,
    budget: Budget = None,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Find poisoned images in a training set, and write the set without them.

    Every image gets a score, larger is more suspicious; what is taken out is decided by a rule of the method, which is
    told. The set itself is never changed. DIR appears complete or not at all, with: samples.csv, every image with its
    score; kept.npz, what is left, for goodnet train --data; report.html, the most suspicious images and why;
    cleanse.json.

    Where the method was wrong, write clean or poisoned into the column mark of samples.csv and give it with --marks:
    those images stay, these go, and methods that use clean images are given the ones marked clean.

    \b
    Examples:
      goodnet cleanse photos/ --out cleansed/
      goodnet cleanse photos/ --model model.pth --method spectral-signatures --out cleansed/
      goodnet cleanse train.npz --clean trusted/ --method scan --out cleansed/
      goodnet cleanse photos/ --marks cleansed/samples.csv --out again/
      goodnet train --data cleansed/kept.npz --test trusted/ --out net/

    \b
    Exit codes:
      0  nothing to take out, which is no proof that nothing is poisoned
      1  poison found and taken out, or a file would execute something when loaded
      2  something cannot be read or written, or wrong usage
    """
    from goodnet.cleanse._base import cleansers
    from goodnet.cleanse._look import clouds
    from goodnet.cleanse.files import cleanse_data, write_kept
    from goodnet.core.device import check_device
    from goodnet.core.whole_folder import require_own, whole_folder
    from goodnet.report.cleansed import render_cleansing
    from goodnet.training import Recipe

    seconds = None if budget is None else duration(budget)
    chosen = cleansers[method]
    cleanser = chosen(**settings(chosen, set_ or ()))
    check_device(device)
    require_own(out, _CONTENTS, _CONTENTS[2:3])
    with progress_bar(method, silent=as_json) as progress:
        result = cleanse_data(
            data,
            cleanser,
            split=split,
            limit=limit,
            model=model,
            clean=clean,
            sources=sources,
            marks=marks,
            arch=arch,
            input_range=input_range,
            recipe=Recipe(epochs=epochs, learning_rate=1e-3, optimizer="adam"),
            device=device,
            seed=seed,
            budget=seconds,
            progress=progress,
        )
    record = _record(result, data)
    page = render_cleansing(record, result, clouds(result.model, result.samples, result.cleansed))
    with whole_folder(out) as made:
        write_kept(result, made)
        (made / "cleanse.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        (made / "report.html").write_bytes(page.encode("utf-8", "backslashreplace"))
    typer.echo(
        json.dumps(record, indent=1, allow_nan=False) if as_json else _outcome.shown(_words(result, record, out))
    )
    return _outcome.FOUND if record["removed"] else _outcome.NOTHING_FOUND


def _record(result: "FileCleansed", data: str) -> dict[str, Any]:
    """All of it as JSON values."""
    cleansed, model, names = result.cleansed, result.model, result.samples.class_names
    made = cleansed.provenance
    return {
        "schema": 1,
        "data": data,
        "images": len(result.samples),
        "removed": int((~cleansed.keep).sum()),
        "rule": cleansed.rule,
        "marks": {mark: result.marks.count(mark) for mark in ("clean", "poisoned")} if result.marks else None,
        "method": made.method,
        "version": made.version,
        "parameters": dict(made.parameters),
        "seed": made.seed,
        "seconds": made.seconds,
        "model": None
        if model is None
        else {"trained_here": result.trained, "file": model.origin.file, "sha256": model.origin.sha256},
        "labels": [
            {
                "label": one.label,
                "name": names[one.label] if one.label < len(names) else "",
                "images": one.count,
                "removed": one.removed,
                "score": one.score,
                "details": dict(one.details),
            }
            for one in cleansed.per_class
        ],
        "counts": dict(made.counts),
        "evidence": dict(cleansed.evidence),
        "notes": [*result.samples.notes, *(() if model is None else model.origin.notes)],
    }


def _words(result: "FileCleansed", record: dict[str, Any], out: Path) -> str:
    """All of it for a person."""
    removed, total = record["removed"], record["images"]
    found = f"{removed:,} of {total:,} images taken out" if removed else f"nothing taken out of {total:,} images"
    lines = [record["data"], f"  {found}", f"  rule     {record['rule']}"]
    hit = sorted((one for one in record["labels"] if one["removed"]), key=lambda one: -one["removed"])
    for one in hit[:_MOST_LABELS]:
        name = f" ({one['name']})" if one["name"] not in ("", str(one["label"])) else ""
        lines.append(f"  label    {one['label']}{name}: {one['removed']:,} of {one['images']:,}")
    if len(hit) > _MOST_LABELS:
        lines.append(f"  label    and {len(hit) - _MOST_LABELS} more")
    trained = "; the network was trained on this set first" if result.trained else ""
    lines.append(f"  method   {record['method']}, {record['seconds']:.1f} s{trained}")
    lines += [f"  note     {note}" for note in record["notes"]]
    lines.append(f"  {out / 'samples.csv'}  every image with its score")
    lines.append(f"  {out / 'report.html'}  the most suspicious images and why")
    lines.append(f"  {out / 'kept.npz'}  what is left, for goodnet train --data")
    return "\n".join(lines)
