"""The command ``goodnet``. Nothing here imports torch: the commands do, once they know that they need it."""

import sys
import traceback
from typing import Annotated

import typer

import goodnet
from goodnet.cli import _outcome, bank, bench, guard, quarantine
from goodnet.cli.attack import attack
from goodnet.cli.audit import audit
from goodnet.cli.classify import classify
from goodnet.cli.cleanse import cleanse
from goodnet.cli.evaluate import evaluate
from goodnet.cli.export import export
from goodnet.cli.learn import learn
from goodnet.cli.learn_trigger import learn_trigger
from goodnet.cli.listing import listing
from goodnet.cli.repair import repair
from goodnet.cli.scan import scan
from goodnet.cli.serve import serve
from goodnet.cli.train import train

app = typer.Typer(
    cls=_outcome.EndsInWords,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it comes at once, and reads well everywhere
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"goodnet {goodnet.__version__}")
        raise typer.Exit


@app.callback()
def goodnet_(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Is there a backdoor in this image classifier?

    \b
    Examples:
      goodnet audit model.h5 --data clean/ --out report/
      goodnet repair model.h5 --data clean/ --out repaired/
      goodnet guard fit model.h5 --data clean/ --out guarded/
      goodnet classify image.png --model repaired/
      goodnet serve repaired/ --port 8000
      goodnet export repaired/ --data clean/ --out repaired.onnx
      goodnet learn-trigger repaired/ --quarantine caught/ --data clean/ --out repaired-2/
      goodnet cleanse photos/ --out cleansed/
      goodnet learn photos/ --out learned/
      goodnet scan model.pt
      goodnet list auditors
      goodnet train --data digits --attack badnets --out net/
      goodnet evaluate net/model --data digits --attack net/attack
      goodnet bench run quick --size small
    """


app.command("audit")(audit)
app.command("scan")(scan)
app.command("repair")(repair)
app.command("classify")(classify)
app.command("serve")(serve)
app.command("export")(export)
app.command("learn-trigger")(learn_trigger)
app.command("cleanse")(cleanse)
app.command("learn")(learn)
app.command("list")(listing)
app.command("attack")(attack)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.add_typer(bank.app, name="bank")
app.add_typer(bench.app, name="bench")
app.add_typer(guard.app, name="guard")
app.add_typer(quarantine.app, name="quarantine")


def main() -> None:
    """Run the command line; the exit codes are in ``goodnet audit --help``."""
    try:
        app(prog_name="goodnet")
    except Exception:  # noqa: BLE001 - Python would exit with 1, which here means "backdoor found"
        traceback.print_exc()
        _outcome.complain("this is a fault of goodnet, not an answer; please report it with the lines above")
        sys.exit(_outcome.NO_ANSWER)
    except KeyboardInterrupt:
        _outcome.complain("interrupted")
        sys.exit(_outcome.INTERRUPTED)
