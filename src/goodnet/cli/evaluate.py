"""goodnet evaluate: how well a model does, and how well a backdoor in it works."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._attacks import attack_table

if TYPE_CHECKING:
    from goodnet.attacks import Attack
    from goodnet.evaluation import FileEvaluation

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or the folder model of goodnet train.")]
Before = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="The model before a defense: also say what the defense changed.")
]


def evaluate(
    model: Model,
    data: _options.Labeled,
    attack: _options.Attack = None,
    attack_set: _options.AttackSettings = None,
    before: Before = None,
    split: _options.Split = None,
    limit: _options.AtMost = None,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    seed: _options.Seed = 0,
    device: _options.Device = "cpu",
    as_json: _options.Json = False,
) -> int:
    """Measure a model on labeled images, and on the same images with a trigger.

    Prints clean accuracy; with --attack the attack success rate, on images that the attack is meant for, and recovered
    accuracy, the share of these that still get their true label; with --before what a defense changed. Every share
    comes with its counts and 95% interval. Measured is the split test, or all of a set without splits, unless --split
    names another one. To look for an attack that you do not know, use goodnet audit.

    \b
    Examples:
      goodnet evaluate net/model --data digits
      goodnet evaluate net/model --data digits --attack net/attack
      goodnet evaluate net.h5 --data photos/ --attack badnets --attack-set target=3 --attack-set size=4
      goodnet evaluate repaired/model --before net/model --data digits --attack net/attack --json

    \b
    Exit codes:
      0  done, whatever the numbers are
      1  a file would execute something when loaded the usual way; nothing was executed
      2  a file cannot be read, or wrong usage
    """
    from goodnet.attacks import attack_called
    from goodnet.evaluation import evaluate_file

    table = attack_table(attack, attack_set or ())
    chosen = None if table is None else attack_called(table.pop("name"), table)
    measured = evaluate_file(
        model,
        data,
        chosen,
        before=before,
        split=split,
        limit=limit,
        arch=arch,
        input_range=input_range,
        device=device,
        seed=seed,
    )
    if as_json:
        typer.echo(json.dumps(_record(measured, model, before, data), indent=1, allow_nan=False))
    else:
        typer.echo(_outcome.shown("\n".join(_lines(measured, model, before, data, chosen))))
    return _outcome.NOTHING_FOUND


def _record(measured: "FileEvaluation", model: Path, before: Path | None, data: str) -> dict[str, Any]:
    """All of it as JSON values."""
    record: dict[str, Any] = {
        "schema": 1,
        "model": str(model),
        "data": data,
        "images": len(measured.test),
        "notes": [*measured.model.origin.notes, *measured.test.notes],
        **measured.outcome.as_json(),
    }
    if measured.compared is not None:
        harm = measured.compared.harm.items()
        record["compared_with"] = {
            "model": str(before),
            **measured.compared.as_json(),
            "per_class": [
                {"label": label, "before": change.before.as_json(), "after": change.after.as_json()}
                for label, change in harm
            ],
        }
    return record


def _lines(
    measured: "FileEvaluation", model: Path, before: Path | None, data: str, attack: "Attack | None"
) -> list[str]:
    """All of it for a person."""
    from goodnet.cli._measured import comparison_lines, outcome_lines

    names = measured.model.class_names or measured.test.class_names
    lines = []
    if measured.compared is not None:
        lines = [f"{before}, before", *outcome_lines(measured.compared.before, attack, names)]
    lines.append(f"{model} on {len(measured.test):,} images of {data}")
    lines += outcome_lines(measured.outcome, attack, names)
    if measured.compared is not None:
        lines += ["what changed", *comparison_lines(measured.compared, names)]
    notes = (*measured.model.origin.notes, *measured.test.notes)
    return lines + [f"  note  {note}" for note in notes]
