"""Options that several commands share, with their help."""

from pathlib import Path
from typing import Annotated

import typer

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="Model files (.h5 .keras .pt .pth .safetensors .npz) or folders of goodnet."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Clean images: a folder, .npz, .h5, a data set in its official layout, or the word digits.",
    ),
]
Labeled = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Labeled images: a folder with one folder per class, .npz, .h5, a data set in its official layout, or "
        "the word digits.",
    ),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Part of the data, such as train or test.")]
AtMost = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many images, drawn at random; all if left out.")
]
Limit = Annotated[int, typer.Option(min=1, help="At most so many images, drawn at random.")]
Arch = Annotated[
    str | None, typer.Option(metavar="NAME", help="Architecture of files that hold only weights; found if left out.")
]
InputRange = Annotated[
    str | None,
    typer.Option(
        metavar="RANGE", help="What the model was trained on: 0..1, 0..255, -1..1, cifar10, imagenet; else guessed."
    ),
]
Method = Annotated[str, typer.Option(metavar="NAME", help="How to audit; see goodnet list auditors.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter of the method; may be repeated. P-values are made for the defaults.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A parameter; may be repeated. Ranges: goodnet list attacks NAME."
    ),
]
Attack = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="A method of goodnet list attacks, or a folder with attack.json."),
]
AttackSettings = Annotated[
    list[str] | None,
    typer.Option("--attack-set", metavar="NAME=VALUE", help="A parameter of the attack; may be repeated."),
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same machine, same answer.")]
Device = Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to compute.")]
Sarif = Annotated[
    Path | None,
    typer.Option(metavar="FILE", dir_okay=False, help="Write the findings there as SARIF, for code hosts."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
