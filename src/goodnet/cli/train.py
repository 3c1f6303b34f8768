"""goodnet train: a network, clean or backdoored, to test defenses with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._attacks import attack_table
from goodnet.cli._progress import progress_bar
from goodnet.cli._values import settings
from goodnet.errors import UsageError

if TYPE_CHECKING:
    from goodnet.evaluation import Plan, TrainingRun

# no defaults here: what is left out may stand in the file of --config
Data = Annotated[str | None, typer.Option(metavar="PATH", help="Labeled images to train on; needed.")]
Out = Annotated[
    str | None, typer.Option(metavar="DIR", help="A new folder, or one that this command wrote before; needed.")
]
Test = Annotated[
    str | None, typer.Option(metavar="PATH", help="Labeled images to measure on; else the split test of the data.")
]
Arch = Annotated[
    str | None, typer.Option(metavar="NAME", help="See goodnet list architectures; small_cnn_bn if left out.")
]
Recipe = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A choice of the recipe, such as epochs=20; may be repeated."),
]
Attack = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="A method of goodnet list attacks, or a folder with attack.json; or none."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many training images, drawn at random.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same machine, same weights; 0 if left out.")]
Device = Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to compute; cpu if left out.")]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML with the same keys; what is typed stands over it.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where the same run was interrupted; not for attacks that train.")
]


def train(
    data: Data = None,
    out: Out = None,
    arch: Arch = None,
    set_: Recipe = None,
    attack: Attack = None,
    attack_set: _options.AttackSettings = None,
    limit: Limit = None,
    test: Test = None,
    seed: Seed = None,
    device: Device = None,
    config: Config = None,
    resume: Resume = False,
    as_json: _options.Json = False,
) -> int:
    """Train a network, with a backdoor if an attack is named, and measure it.

    DIR appears complete or not at all, with: model/, for all other commands; attack/, with which goodnet evaluate fires
    the backdoor; training.json, how the network came about and what was measured. While it trains, a checkpoint is in
    DIR/unfinished; attacks that run the training themselves (goodnet list attacks: needs training) keep none.

    \b
    Examples:
      goodnet train --data digits --out net/ --set epochs=5
      goodnet train --data digits --attack badnets --attack-set target=3 --out net/
      goodnet train --config net.toml --seed 1 --out net-1/
      goodnet train --data photos/ --arch preact_resnet18 --set epochs=100 --device cuda --out net/ --resume

    \b
    The same as a file for --config:
      data = "digits"
      out = "net"
      [recipe]
      epochs = 5
      [attack]
      name = "badnets"
      target = 3

    \b
    Recipe, with defaults:
      epochs=10 batch_size=128 learning_rate=0.01 optimizer=sgd|adam|adadelta weight_decay=0.0005
      schedule=one-cycle|cosine|step|constant shift=0 flip=false validation=0.0 patience=5 mixed_precision=false

    \b
    Exit codes:
      0  done
      1  the data would execute something when loaded the usual way; nothing was executed
      2  something cannot be read or written, or wrong usage
    """
    from goodnet.evaluation import read_plan, train_run

    file = {} if config is None else read_plan(config)
    typed = {"data": data, "out": out, "test": test, "arch": arch, "limit": limit, "seed": seed, "device": device}
    plan = _plan(file, typed, set_ or (), attack_table(attack, attack_set or (), table=_table(file, "attack")))
    try:
        with progress_bar(f"training {plan.arch}", silent=as_json) as progress:
            run = train_run(plan, resume=resume, progress=progress)
    except KeyboardInterrupt:
        _outcome.complain(_what_is_left(plan))
        return _outcome.INTERRUPTED
    _tell(plan, run, as_json)
    return _outcome.NOTHING_FOUND


def _plan(file: dict[str, Any], typed: dict[str, Any], recipe: Sequence[str], attack: dict[str, Any] | None) -> "Plan":
    """The plan of a file, with what was typed over it."""
    from goodnet.evaluation import plan_of
    from goodnet.training import Recipe

    values = {**file, **{name: value for name, value in typed.items() if value is not None}}
    for name, what in (("data", "what to train on: --data PATH"), ("out", "where the results go: --out DIR")):
        if name not in values:
            raise UsageError(f"say {what}")
    chosen = {**_table(file, "recipe"), **settings(Recipe, recipe, of="the recipe")}
    return plan_of({**values, "recipe": chosen, "attack": attack})


def _table(file: dict[str, Any], name: str) -> dict[str, Any]:
    table = file.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} in the file of --config must be a table: write [{name}], and its keys below it")
    return table


def _what_is_left(plan: "Plan") -> str:
    """What a person who has pressed Ctrl-C can do now."""
    from goodnet.evaluation.training_run import checkpoint_of

    kept = checkpoint_of(plan).exists()
    return f"interrupted; {'the same command with --resume goes on' if kept else 'there is nothing to go on from'}"


def _tell(plan: "Plan", run: "TrainingRun", as_json: bool) -> None:
    """What was done and where it is, on stdout."""
    from goodnet.cli._measured import outcome_lines

    if as_json:
        typer.echo(json.dumps(run.record, indent=1, allow_nan=False))
        return
    record, out = run.record, Path(plan.out)
    poisoned = ""
    if run.attack is not None:
        count = record["poisoned_images"]
        poisoned = ", poisoned anew in each epoch" if count is None else f", {count:,} of them poisoned"
    lines = [f"{plan.arch} trained on {record['images']:,} images of {plan.data}{poisoned}, {record['seconds']:.1f} s"]
    if run.outcome is None:
        lines.append("  not measured: the data has no split test with labels; name other images with --test PATH")
    else:
        lines += outcome_lines(run.outcome, run.attack, run.model.class_names)
    lines.append(f"  {out / 'model'}  the network, for goodnet evaluate and goodnet audit")
    if run.attack is not None:
        lines.append(f"  {out / 'attack'}  the attack, for goodnet evaluate --attack {out / 'attack'}")
    lines.append(f"  {out / 'training.json'}  how the network came about")
    typer.echo(_outcome.shown("\n".join(lines)))
