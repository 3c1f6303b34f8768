"""goodnet repair: make a model safe, with proof, or give the old one back with the reason."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import progress_bar
from goodnet.cli._repaired import goodnet_words, repair_words
from goodnet.cli._values import duration, settings
from goodnet.errors import UsageError

if TYPE_CHECKING:
    from goodnet.report.repair_json import RepairedFile

File = Annotated[Path, typer.Argument(metavar="FILE", help="A model file, or a folder of goodnet.")]
Data = Annotated[
    str, typer.Option(metavar="PATH", help="Clean images, as of goodnet audit; labels are used where there are some.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the repaired model, repair.json and report.html.")]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to repair; see goodnet list repairers.")]
Target = Annotated[
    list[int] | None,
    typer.Option(metavar="LABEL", help="Repair this label, without an audit; may be repeated. For pruning: watch it."),
]
Budget = Annotated[str | None, typer.Option(metavar="TIME", help="Time for audit and repair: 90, 90s, 2m, 1h.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many images, drawn at random.")]
FalseAlarms = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of clean images that the GoodNet may answer with N.")
]
MostDrop = Annotated[
    float, typer.Option(min=0, max=1, metavar="SHARE", help="Accuracy that may be lost, proved with 95 % confidence.")
]
At = Annotated[
    list[float] | None,
    typer.Option(
        min=0, max=1, metavar="SHARE", help="Pruning: save the last net within this loss too; may be repeated."
    ),
]
SecondOpinion = Annotated[
    bool,
    typer.Option(
        "--second-opinion",
        help="Of a model that was thrown away write the GoodNet also where no trigger shows what it is good for.",
    ),
]

_CONTENTS = ("model", "goodnet", "thresholds", "repair.json", "report.html")
_MARKS = ("repair.json", "report.html")  # names that nobody else would choose
_LOOK_SECONDS = 30.0


def repair(
    file: File,
    data: Data,
    out: Out,
    method: Method = "auto",
    set_: _options.Parameters = None,
    target: Target = None,
    limit: Limit = 2000,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    budget: Budget = None,
    most_drop: MostDrop = 0.03,
    at: At = None,
    false_alarms: FalseAlarms = 0.02,
    second_opinion: SecondOpinion = False,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Remove a backdoor from a model, and prove on images kept aside that the model is still good.

    Audits the model and repairs the labels that the audit flags, or repairs those of --target without an audit; then
    compares both models on images that no step before has seen. A repair that harms too much, or does not help, is
    thrown away: then the old model is what is written. The file itself is never changed.

    DIR/model is the repaired model, DIR/goodnet both models in one: it answers a class, or N for an image that carries
    a trigger; see goodnet classify. A repair that was thrown away may still tell triggers: then DIR/goodnet gives the
    old model's own answers, or N.

    \b
    Examples:
      goodnet repair model.h5 --data clean/ --out repaired/
      goodnet repair model.pth --data clean/ --out repaired/ --target 7 --budget 10m
      goodnet repair model.pth --data photos/ --out tuned/ --method fine-pruning --set accuracy_drop=0.02
      goodnet repair model.pth --data photos/ --out watched/ --method nnoculation --second-opinion
      goodnet repair model.pth --data photos/ --out pruned/ --method pruning --target 7 --at 0.02 --at 0.04 --at 0.1
      goodnet audit repaired/model --data clean/

    \b
    Exit codes:
      0  repaired, and the proof holds
      1  the file would execute something when loaded the usual way; nothing was executed
      2  a file cannot be read, or wrong usage
      3  the old model stays; the reason is told
    """
    from goodnet.core.whole_folder import require_own
    from goodnet.guard.calibration import goodnet_of
    from goodnet.repair._base import repairers
    from goodnet.repair.files import repair_file
    from goodnet.report.repair_json import RepairedFile, repaired_to_dict

    seconds = None if budget is None else duration(budget)
    chosen = repairers[method]
    repairer = chosen(**settings(chosen, set_ or ()))
    require_own(out, _CONTENTS, _MARKS)
    if out.exists() and file.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"{out} holds the model that shall be repaired; give another folder")
    with progress_bar(file.name, silent=as_json) as progress:
        result = repair_file(
            file,
            repairer,
            data=data,
            limit=limit,
            targets=tuple(target or ()),
            arch=arch,
            input_range=input_range,
            device=device,
            seed=seed,
            budget=seconds,
            most_drop=most_drop,
            progress=progress,
        )
    repaired = RepairedFile(
        file=str(file), result=result, goodnet=goodnet_of(result, rate=false_alarms, unproved=second_opinion)
    )
    told = json.dumps(repaired_to_dict(repaired), indent=1, allow_nan=False)
    _write(repaired, told, tuple(at or ()), out)
    words = [repair_words(result, file, out), *goodnet_words(repaired.goodnet, out)]
    typer.echo(told if as_json else _outcome.shown("\n".join(words)))
    return _outcome.NOTHING_FOUND if result.accepted else _outcome.INCONCLUSIVE


def _write(item: "RepairedFile", told: str, at: tuple[float, ...], out: Path) -> None:
    """The folder appears complete or not at all."""
    from goodnet.core.whole_folder import whole_folder
    from goodnet.guard.files import save_goodnet
    from goodnet.models.save import save_model
    from goodnet.repair._look import Look, look
    from goodnet.repair.pruning import pruned_until
    from goodnet.report.repaired import render_repair

    result, seen = item.result, Look()
    evidence = {} if result.repaired is None else result.repaired.evidence
    along = {drop: pruned_until(result.suspect, evidence, drop) for drop in at}
    if result.repaired is not None:
        seed, shown = result.repaired.provenance.seed, result.repaired.model
        seen = look(result.suspect, shown, result.aside, result.triggers, seed=seed, budget=_LOOK_SECONDS)
    page = render_repair(json.loads(told), result.proof, seen, result.suspect.class_names)
    with whole_folder(out) as made:
        save_model(result.model, made / "model")
        if item.goodnet is not None:
            save_goodnet(item.goodnet, made / "goodnet")
        for drop, model in along.items():
            save_model(model, made / "thresholds" / f"{drop:g}")
        (made / "repair.json").write_text(told + "\n")
        (made / "report.html").write_bytes(page.encode("utf-8", "backslashreplace"))
