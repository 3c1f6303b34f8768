"""goodnet guard: watch the inputs of a model at run time."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import progress_bar
from goodnet.cli._values import duration, settings

if TYPE_CHECKING:
    from goodnet.core.rates import Rate
    from goodnet.evaluation import GuardOutcome
    from goodnet.guard.fitted import FittedGuard
    from goodnet.guard.goodnet import GoodNet

app = typer.Typer(
    help="Guards: judge every input of a model, and answer N where it carries a trigger.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A model file, or a folder of goodnet.")]
Clean = Annotated[
    str,
    typer.Option("--data", metavar="PATH", help="Clean images: a folder, .npz, .h5, a data set, or digits."),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the guarded model.")]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to guard; see goodnet list guards.")]
Rate_ = Annotated[float, typer.Option("--rate", metavar="SHARE", help="Share of clean images that may be answered N.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter; may be repeated. Ranges: goodnet list guards NAME."),
]
Budget = Annotated[str | None, typer.Option(metavar="TIME", help="Time for the method itself: 90, 90s, 2m, 1h.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files: PNG, JPEG, PPM, BMP, WEBP, GIF.")]
Guarded = Annotated[Path, typer.Option("--model", metavar="DIR", help="The folder of goodnet guard fit, or a GoodNet.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of goodnet guard fit, or a GoodNet.")]
CleanTest = Annotated[str, typer.Option(metavar="PATH", help="Clean images that the guard was not fitted on.")]
Stamped = Annotated[
    str, typer.Option(metavar="PATH", help="Images that carry the trigger, of other classes than its target.")
]


@app.callback()
def guard() -> None:
    """Guards: judge every input of a model, and answer N where it carries a trigger."""


@app.command()
def fit(
    file: File,
    data: Clean,
    out: Out,
    method: Method = "strip",
    rate: Rate_ = 0.01,
    set_: Settings = None,
    split: _options.Split = None,
    limit: _options.Limit = 2000,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    budget: Budget = None,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Fit a guard to clean images, and write the guarded model.

    A part of the images sets the threshold and is seen by nothing else, so that clean images are answered N at most at
    the rate asked for; that takes 1 / rate - 1 of them. Use the folder with goodnet classify or goodnet guard score.

    \b
    Examples:
      goodnet guard fit model.h5 --data clean/ --out guarded/
      goodnet guard fit model.pth --data clean.npz --method ted --rate 0.05 --out guarded/
      goodnet guard fit model.pth --data clean.npz --set overlays=50 --set blend=average --out guarded/

    \b
    Exit codes:
      0  the guard is fitted, which says nothing about a backdoor
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  a file cannot be read or written, too few images, or wrong usage
    """
    from goodnet.core.whole_folder import require_own
    from goodnet.guard._base import guards
    from goodnet.guard.files import GUARD_CONTENTS, save_guard
    from goodnet.guard.fitting import fit_guard

    seconds = None if budget is None else duration(budget)
    chosen = guards[method]
    guard_ = chosen(**settings(chosen, set_ or ()))
    require_own(out, GUARD_CONTENTS, GUARD_CONTENTS[:1])
    with progress_bar(method, silent=as_json) as progress:
        fitted = fit_guard(
            file,
            guard_,
            data=data,
            split=split,
            limit=limit,
            rate=rate,
            arch=arch,
            input_range=input_range,
            device=device,
            seed=seed,
            budget=seconds,
            progress=progress,
        )
    save_guard(fitted, out)
    record = _fitted_record(fitted, file, out)
    typer.echo(
        json.dumps(record, indent=1, allow_nan=False) if as_json else _outcome.shown(_fitted_words(fitted, record))
    )
    return _outcome.NOTHING_FOUND


@app.command()
def score(images: Images, model: Guarded, as_json: _options.Json = False) -> int:
    """Print for every image how suspicious it is; larger is more suspicious.

    One line for each image: file, suspicion, and whether it is above the threshold.

    \b
    Examples:
      goodnet guard score photos/*.png --model guarded/
      goodnet guard score face.png --model guarded/ --json

    \b
    Exit codes:
      0  every image has a score, whatever it is
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  an image or the guard cannot be read, or wrong usage
    """
    from goodnet.data.load import load_images
    from goodnet.guard.files import load_judging

    judging = load_judging(model)
    samples, failures = load_images(images, judging.input_shape)
    assert samples.ids is not None
    rows: list[dict[str, Any]] = [
        {"file": str(path), "suspicion": None, "triggered": None, "error": failures.get(position)}
        for position, path in enumerate(images)
    ]
    if len(samples):
        scores, answers = _judged(judging, samples.images)
        for position, suspicion, answer in zip(samples.ids.tolist(), scores, answers, strict=True):
            triggered = answer == judging.num_classes
            rows[position] = {"file": str(images[position]), "suspicion": suspicion, "triggered": triggered}
    for position in sorted(failures):
        _outcome.complain(f"{images[position]}: {failures[position]}")
    if as_json:
        threshold = getattr(judging, "threshold", None)
        record = {"schema": 1, "model": str(model), "threshold": threshold, "images": rows}
        typer.echo(json.dumps(record, indent=1, allow_nan=False))
    else:
        for row in rows:
            if row["suspicion"] is not None:
                told = "carries a trigger" if row["triggered"] else "nothing found"
                typer.echo(_outcome.shown(f"{row['file']}  {row['suspicion']:.6g}  {told}"))
    return _outcome.NO_ANSWER if failures else _outcome.NOTHING_FOUND


@app.command()
def evaluate(
    folder: Folder,
    clean: CleanTest,
    stamped: Stamped,
    split: _options.Split = None,
    limit: _options.Limit = 2000,
    seed: _options.Seed = 0,
    as_json: _options.Json = False,
) -> int:
    """Measure a guard on clean images and on images that carry the trigger.

    Prints AUROC, the share of stamped images that is caught where 1 % and 5 % of the clean ones are, and what the
    fitted threshold does: clean images rejected (FRR) and stamped images accepted (FAR), all with 95% intervals.

    \b
    Examples:
      goodnet guard evaluate guarded/ --clean test/ --stamped stamped/
      goodnet guard evaluate guarded/ --clean test.npz --stamped stamped.npz --json

    \b
    Exit codes:
      0  done, whatever the numbers are
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  a file cannot be read, or wrong usage
    """
    from goodnet.data.load import load_data
    from goodnet.evaluation import measure_guard
    from goodnet.guard.files import load_judging

    judging = load_judging(folder)
    sets = [
        load_data(path, split=split, limit=limit, seed=seed, shape=judging.input_shape) for path in (clean, stamped)
    ]
    outcome = measure_guard(judging, *(samples.images for samples in sets))
    if as_json:
        record = {"schema": 1, "guard": str(folder), "clean": clean, "stamped": stamped, **outcome.as_json()}
        typer.echo(json.dumps(record, indent=1, allow_nan=False))
    else:
        typer.echo(_outcome.shown("\n".join([str(folder), *_outcome_lines(outcome)])))
    return _outcome.NOTHING_FOUND


def _judged(judging: "GoodNet | FittedGuard", images: Any) -> tuple[list[float], list[int]]:
    """Whole scores and answers."""
    from goodnet.guard.fitted import FittedGuard

    said = judging.judge(images)
    scores = judging.score(images) if isinstance(judging, FittedGuard) else said.suspicion
    return scores.tolist(), said.answers.tolist()


def _fitted_record(fitted: "FittedGuard", file: Path, out: Path) -> dict[str, Any]:
    """All of it as JSON values."""
    made, calibration = fitted.provenance, fitted.calibration
    return {
        "schema": 1,
        "model": str(file),
        "out": str(out),
        "method": made.method,
        "version": made.version,
        "parameters": dict(made.parameters),
        "threshold": fitted.threshold,
        "rate": calibration.rate,
        "alarms": calibration.alarms.as_json(),
        "seconds": made.seconds,
        "counts": dict(made.counts),
        "notes": [*fitted.notes, *fitted.model.origin.notes],
    }


def _fitted_words(fitted: "FittedGuard", record: dict[str, Any]) -> str:
    """All of it for a person."""
    calibration = fitted.calibration
    lines = [
        f"{record['model']}, guarded by {record['method']}",
        f"  threshold  {record['threshold']:.6g}, for at most {calibration.rate:.3g} of clean images",
        _line("alarms", calibration.alarms, "clean images that set it are above"),
        f"  cost       {record['seconds']:.1f} s",
        *(f"  note       {note}" for note in record["notes"]),
        f"  {record['out']}  for goodnet classify --model, goodnet guard score --model",
    ]
    return "\n".join(lines)


def _outcome_lines(outcome: "GuardOutcome") -> list[str]:
    ranked = outcome.ranking
    assert ranked.auroc is not None
    assert ranked.auroc_interval is not None
    low, high = ranked.auroc_interval
    lines = [f"  AUROC      {ranked.auroc:.4f} (95% interval {low:.4f} to {high:.4f})"]
    for wanted, point in zip(("1%", "5%"), outcome.points, strict=True):
        words = f"stamped images are caught where at most {wanted} of the clean ones are"
        lines.append(_line(f"TPR@{wanted}", point.true_positive_rate, words))
    lines.append(_line("FRR", outcome.false_rejections, "clean images are answered N at the fitted threshold"))
    lines.append(_line("FAR", outcome.false_acceptances, "stamped images are not"))
    return lines


def _line(name: str, rate: "Rate", meaning: str) -> str:
    from goodnet.report.words import percent

    interval = rate.interval()
    assert rate.value is not None
    assert interval is not None
    low, high = map(percent, interval)
    counted = f"{rate.hits:,} of {rate.count:,}; 95% interval {low} to {high}"
    return f"  {name:<10} {percent(rate.value)} of {meaning} ({counted})"
