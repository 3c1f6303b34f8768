"""goodnet attack: a data set that carries a backdoor, to test defenses with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._attacks import attack_table
from goodnet.cli._progress import progress_bar

if TYPE_CHECKING:
    from goodnet.attacks import Poisoned

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A method of goodnet list attacks, or a folder with attack.json.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or one that this command wrote before.")]


def attack(
    name: Name,
    data: _options.Labeled,
    out: Out,
    set_: _options.Parameters = None,
    split: _options.Split = None,
    limit: _options.AtMost = None,
    seed: _options.Seed = 0,
    as_json: _options.Json = False,
) -> int:
    """Poison a labeled data set, as a test of defenses.

    DIR appears complete or not at all, with: poisoned.npz, images and labels as a victim gets them; truth.npz, which of
    them were poisoned, for evaluation only and never for a defense; attack.json, with which goodnet evaluate fires the
    backdoor; samples.png, some images before and after.

    \b
    Examples:
      goodnet attack badnets --data digits --out poisoned/
      goodnet attack blended --data photos/ --set alpha=0.1 --set target=2 --out poisoned/
      goodnet attack badnets --data digits --set rule=source-to-target --set source=3 --out poisoned/
      goodnet train --data poisoned/poisoned.npz --test digits --out net/
      goodnet evaluate net/model --data digits --attack poisoned/

    \b
    Exit codes:
      0  done
      1  the data would execute something when loaded the usual way; nothing was executed
      2  something cannot be read or written, or wrong usage
    """
    from goodnet.attacks import attack_called
    from goodnet.data.load import load_data
    from goodnet.report.poisoned import require_poisoned_folder, write_poisoned

    table = attack_table(name, set_ or (), option="--set") or {}
    chosen = attack_called(table.pop("name"), table)
    require_poisoned_folder(out)
    with progress_bar(name, silent=as_json) as progress:
        tell = progress or (lambda share, text: None)
        tell(0.0, "reading images")
        clean = load_data(data, split=split, limit=limit, seed=seed)
        tell(0.2, "poisoning")
        poisoned = chosen.poison(clean, seed=seed)
        tell(0.8, "writing")
        write_poisoned(out, poisoned, clean)
    _tell(poisoned, clean.notes, out, as_json)
    return _outcome.NOTHING_FOUND


def _tell(poisoned: "Poisoned", notes: tuple[str, ...], out: Path, as_json: bool) -> None:
    """What was done and where it is, on stdout."""
    from goodnet.attacks._files import described
    from goodnet.cli._measured import goal
    from goodnet.evaluation.training_run import runs_training

    touched, covers, total = int(poisoned.mask.sum()), int(poisoned.covers.sum()), len(poisoned.samples)
    if as_json:
        record = {
            "schema": 1,
            "out": str(out),
            "images": total,
            "poisoned_images": touched,
            "cover_images": covers,
            "attack": described(poisoned.attack),
            "notes": list(notes),
        }
        typer.echo(json.dumps(record, indent=1, allow_nan=False))
        return
    name = poisoned.attack.card.name
    also = f", {covers:,} covers keep their label" if covers else ""
    lines = [f"{name}: {touched:,} of {total:,} images poisoned{also}"]
    lines += [f"  goal  {goal(part, poisoned.samples.class_names)}" for part in poisoned.attack.parts()]
    lines += [
        f"  {out / 'poisoned.npz'}  what a victim trains on",
        f"  {out / 'truth.npz'}  which images were poisoned: for evaluation only, never for a defense",
        f"  {out / 'attack.json'}  the attack, for goodnet evaluate --attack {out}",
        f"  {out / 'samples.png'}  some images before and after",
    ]
    if runs_training(poisoned.attack):
        lines.append(f"  note  in its paper {name} runs the training itself, as goodnet train --attack {name} does")
    lines += [f"  note  {note}" for note in notes]
    typer.echo(_outcome.shown("\n".join(lines)))
