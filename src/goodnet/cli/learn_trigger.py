"""goodnet learn-trigger: from what a quarantine caught to the trigger, and to a repaired model for the hot swap."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._progress import progress_bar
from goodnet.cli._repaired import goodnet_words, repair_words
from goodnet.cli._values import duration, settings
from goodnet.errors import UsageError

if TYPE_CHECKING:
    from goodnet.guard.trigger_learning import TriggerLearned

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="What is in service, of goodnet repair or goodnet guard fit; or a model.")
]
Quarantine = Annotated[
    str, typer.Option(metavar="PATH", help="Caught images: a folder, or what goodnet quarantine export wrote.")
]
Data = Annotated[
    str, typer.Option(metavar="PATH", help="Clean images, as of goodnet repair; labels are used where there are some.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the new model; beside DIR it can be swapped in.")]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to repair: one that takes triggers, such as auto.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A choice of the translation, such as steps=800; may be repeated."
    ),
]
Budget = Annotated[str | None, typer.Option(metavar="TIME", help="Time for all of it: 90, 90s, 2m, 1h.")]
FalseAlarms = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of clean images that the new GoodNet may answer with N.")
]
MostDrop = Annotated[
    float, typer.Option(min=0, max=1, metavar="SHARE", help="Accuracy that may be lost, proved with 95 % confidence.")
]

_CONTENTS = ("model", "goodnet", "trigger.json", "trigger.png", "report.html")
_MARKS = ("trigger.json", "trigger.png")
_SHOWN = 8  # images in the picture


def learn_trigger(
    folder: Folder,
    quarantine: Quarantine,
    data: Data,
    out: Out,
    method: Method = "auto",
    set_: Settings = None,
    limit: _options.Limit = 2000,
    budget: Budget = None,
    most_drop: MostDrop = 0.03,
    false_alarms: FalseAlarms = 0.02,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Learn the trigger from quarantined images, and repair the model that was attacked with it.

    A small CycleGAN learns what tells caught images from clean ones, and lays it over clean images, which keep their
    right answers: that is what the suspect is repaired with. Only images that get the suspect's most frequent answer
    are learned from, and none that are marked as clean. Both models are compared on images that no step has seen.

    DIR of --out has goodnet/, both models in one, for goodnet serve; model/; trigger.png, clean images with and without
    the learned trigger; trigger.json; report.html. Look at trigger.png before you put the model into service.

    \b
    Examples:
      goodnet quarantine export repaired.quarantine.sqlite3 --out caught/
      goodnet learn-trigger repaired/ --quarantine caught/ --data clean/ --out repaired-2/
      goodnet learn-trigger repaired/ --quarantine caught/ --data clean/ --set steps=800 --budget 20m --out repaired-2/
      curl -X POST -H "Authorization: Bearer $GOODNET_API_KEY" -H "Content-Type: application/json" \\
        -d '{"folder": "repaired-2"}' http://127.0.0.1:8000/model

    \b
    Exit codes:
      0  repaired, and the proof holds
      1  a file would execute something when loaded the usual way; nothing was executed
      2  a file cannot be read, too few images, or wrong usage
      3  the old model stays; the reason is told, and goodnet/ gives a second opinion where that helps
    """
    from goodnet.core.params import make
    from goodnet.core.registry import Needs
    from goodnet.core.whole_folder import require_own
    from goodnet.guard.trigger_learning import learn_trigger as learn
    from goodnet.repair._base import repairers
    from goodnet.repair.translation import Translation

    seconds = None if budget is None else duration(budget)
    repairer = repairers[method]
    if Needs.TRIGGERS not in repairer.card.needs:
        raise UsageError(f"{method} does not repair by triggers; take auto, unlearning or head-unlearning")
    translation = make(Translation, settings(Translation, set_ or (), of="the translation"))
    require_own(out, _CONTENTS, _MARKS)
    if out.exists() and any(Path(path).resolve().is_relative_to(out.resolve()) for path in (folder, quarantine, data)):
        raise UsageError(f"{out} holds what shall be read; give another folder")
    with progress_bar(folder.name, silent=as_json) as progress:
        result = learn(
            folder,
            quarantine=quarantine,
            data=data,
            translation=translation,
            repairer=repairer(),
            limit=limit,
            rate=false_alarms,
            device=device,
            seed=seed,
            budget=seconds,
            most_drop=most_drop,
            progress=progress,
        )
    record = _record(result, folder, quarantine)
    _write(result, record, out)
    told = json.dumps(record, indent=1, allow_nan=False)
    typer.echo(told if as_json else _outcome.shown(_words(result, folder, out)))
    return _outcome.NOTHING_FOUND if result.repair.accepted else _outcome.INCONCLUSIVE


def _record(result: "TriggerLearned", folder: Path, quarantine: str) -> dict[str, Any]:
    """All of it as JSON values; ``repair`` has the form of repair.json."""
    from goodnet.report.repair_json import RepairedFile, repaired_to_dict

    caught, trigger = result.caught, result.trigger
    return {
        "schema": 1,
        "model": str(folder),
        "quarantine": quarantine,
        "quarantined": caught.given,
        "suspects_answer": caught.answer,
        "learned_from": len(caught.learned_from),
        "trigger": {"target": trigger.target, "success_rate": trigger.success_rate, "count": trigger.count},
        "still_turned": result.still.as_json(),
        "repair": repaired_to_dict(RepairedFile(file=str(folder), result=result.repair, goodnet=result.goodnet)),
    }


def _write(result: "TriggerLearned", record: dict[str, Any], out: Path) -> None:
    """The folder appears complete or not at all."""
    from goodnet.core.whole_folder import whole_folder
    from goodnet.guard.files import save_goodnet
    from goodnet.models.save import save_model
    from goodnet.repair._look import Look, TriggerPair
    from goodnet.report._drawing import LIGHT
    from goodnet.report.repaired import render_repair
    from goodnet.report.translated import translation_plot

    repair, trigger = result.repair, result.trigger
    clean = repair.aside.images[:_SHOWN].float() / 255
    caught = result.caught.learned_from.images[:_SHOWN].float() / 255
    seen = Look(triggers=(TriggerPair(before=trigger, after=None),))
    page = render_repair(record["repair"], repair.proof, seen, repair.suspect.class_names)
    with whole_folder(out) as made:
        save_model(repair.model, made / "model")
        if result.goodnet is not None:
            save_goodnet(result.goodnet, made / "goodnet")
        (made / "trigger.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        (made / "trigger.png").write_bytes(translation_plot(clean, trigger.stamp(clean), caught, LIGHT))
        (made / "report.html").write_bytes(page.encode("utf-8", "backslashreplace"))


def _words(result: "TriggerLearned", folder: Path, out: Path) -> str:
    """All of it for a person."""
    caught, trigger, still = result.caught, result.trigger, result.still
    lines = [
        repair_words(result.repair, folder, out),
        *goodnet_words(result.goodnet, out),
        f"  learned  from {len(caught.learned_from)} of {caught.given} quarantined images, which the suspect answers "
        f"with {caught.answer}; on {trigger.success_rate:.0%} of {trigger.count} clean images the trigger works",
        f"  caught   {still.hits} of {still.count} others of them are still answered so",
        f"  look at  {out / 'trigger.png'}",
    ]
    if result.goodnet is not None:
        lines.append(f"  serve    goodnet serve {out}, or swap it in where its folder lies beside the one in service")
    return "\n".join(lines)
