"""goodnet learn: a network from a training set that may be poisoned."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import progress_bar
from goodnet.cli._values import duration, settings
from goodnet.cli.cleanse import Clean, Data, Sources
from goodnet.errors import UsageError

if TYPE_CHECKING:
    from goodnet.learn.files import FileLearned

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for model/, samples.csv, learned.json and report.html.")]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to learn; see goodnet list learners.")]
Recipe = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A choice of the recipe, as --set of goodnet train; may be repeated."),
]
Arch = Annotated[str, typer.Option(metavar="NAME", help="See goodnet list architectures.")]
Budget = Annotated[str | None, typer.Option(metavar="TIME", help="Time for all of it: 90, 90s, 2m, 1h.")]

_CONTENTS = ("model", "samples.csv", "learned.json", "report.html")


def learn(
    data: Data,
    out: Out,
    method: Method = "abl",
    set_: _options.Parameters = None,
    recipe: Recipe = None,
    arch: Arch = "small_cnn_bn",
    clean: Clean = None,
    sources: Sources = None,
    split: _options.Split = None,
    limit: _options.AtMost = None,
    budget: Budget = None,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Train a network on a set that may be poisoned, so that it does not learn the backdoor.

    The set is only read, and nothing clean is needed by most methods. DIR appears complete or not at all, with: model/,
    for all other commands; samples.csv, every image and whether it was distrusted, where the method makes such a
    choice; learned.json; report.html, with the losses of both groups. No method stops every attack: audit the model
    afterwards.

    \b
    Examples:
      goodnet learn photos/ --out learned/
      goodnet learn photos/ --method abl --set share=0.02 --recipe epochs=40 --recipe shift=2 --out learned/
      goodnet learn train.npz --method retrain --set cleanser=scan --clean trusted/ --out learned/
      goodnet audit learned/model --data trusted/

    \b
    Exit codes:
      0  a network was learned, which is no proof that it has no backdoor
      1  the data would execute something when loaded the usual way; nothing was executed
      2  something cannot be read or written, or wrong usage
    """
    from goodnet import training
    from goodnet.core.params import make
    from goodnet.core.whole_folder import require_own
    from goodnet.learn._base import learners
    from goodnet.learn.files import learn_data

    seconds = None if budget is None else duration(budget)
    chosen = learners[method]
    choices = make(training.Recipe, settings(training.Recipe, recipe or (), option="--recipe", of="the recipe"))
    learner = chosen(recipe=choices, **settings(chosen, set_ or ()))
    require_own(out, _CONTENTS, _CONTENTS[2:3])
    if Path(data).exists() and Path(data).resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{out} holds the data that shall be learned from; give another folder")
    with progress_bar(method, silent=as_json) as progress:
        result = learn_data(
            data,
            learner,
            split=split,
            limit=limit,
            clean=clean,
            sources=sources,
            arch=arch,
            device=device,
            seed=seed,
            budget=seconds,
            progress=progress,
        )
    record = _record(result, data, arch)
    _write(result, record, out)
    typer.echo(json.dumps(record, indent=1, allow_nan=False) if as_json else _outcome.shown(_words(record, out)))
    return _outcome.NOTHING_FOUND


def _record(result: "FileLearned", data: str, arch: str) -> dict[str, Any]:
    """All of it as JSON values."""
    learned, samples = result.learned, result.samples
    made = learned.provenance
    assert samples.labels is not None
    gone = learned.distrusted
    counts = samples.labels.bincount(minlength=learned.model.num_classes).tolist()
    gone_counts = [] if gone is None else samples.labels[gone].bincount(minlength=len(counts)).tolist()
    return {
        "schema": 1,
        "data": data,
        "images": len(samples),
        "architecture": arch,
        "method": made.method,
        "version": made.version,
        "parameters": dict(made.parameters),
        "seed": made.seed,
        "seconds": made.seconds,
        "distrusted": None if gone is None else int(gone.sum()),
        "labels": [
            {
                "label": label,
                "name": samples.class_names[label] if label < len(samples.class_names) else "",
                "images": count,
                "distrusted": gone_counts[label] if gone_counts else None,
            }
            for label, count in enumerate(counts)
        ],
        "notes": dict(learned.notes),
        "counts": dict(made.counts),
        "evidence": dict(learned.evidence),
        "remarks": list(samples.notes),
    }


def _write(result: "FileLearned", record: dict[str, Any], out: Path) -> None:
    """The folder appears complete or not at all."""
    from goodnet.core.whole_folder import whole_folder
    from goodnet.learn.files import write_samples
    from goodnet.models.save import save_model
    from goodnet.report.learned import render_learned

    page = render_learned(record)
    with whole_folder(out) as made:
        save_model(result.learned.model, made / "model")
        write_samples(result, made / "samples.csv")
        (made / "learned.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        (made / "report.html").write_bytes(page.encode("utf-8", "backslashreplace"))


def _words(record: dict[str, Any], out: Path) -> str:
    """All of it for a person."""
    lines = [record["data"], f"  learned  {record['architecture']} from {record['images']:,} images"]
    if record["distrusted"] is not None:
        lines.append(f"  set off  {record['distrusted']:,} images that {record['method']} does not trust")
        most = sorted((one for one in record["labels"] if one["distrusted"]), key=lambda one: -one["distrusted"])[:3]
        lines += [f"  label    {one['label']}: {one['distrusted']:,} of {one['images']:,}" for one in most]
    lines += [f"  {name:<24} {value:.4g}" for name, value in record["notes"].items()]
    lines.append(f"  method   {record['method']}, {record['seconds']:.1f} s")
    lines += [f"  note     {note}" for note in record["remarks"]]
    lines.append(f"  {out / 'model'}  the network; goodnet audit asks whether a backdoor is left")
    lines.append(f"  {out / 'report.html'}  what was distrusted, and the losses of both groups")
    return "\n".join(lines)
