"""goodnet export: a GoodNet or a model as one file that runs without goodnet."""

import json
from pathlib import Path
from typing import Annotated

import typer

from goodnet.cli import _options, _outcome
from goodnet.errors import UsageError

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder of goodnet repair or learn-trigger; or a model.")]
Data = Annotated[str, typer.Option(metavar="PATH", help="Images on which both must give the same answers.")]
Out = Annotated[Path, typer.Option(metavar="FILE", help="What to write: .onnx, or .pt2 for torch.export.load.")]


def export(
    folder: Folder,
    data: Data,
    out: Out,
    limit: _options.Limit = 200,
    arch: _options.Arch = None,
    input_range: _options.InputRange = None,
    seed: _options.Seed = 0,
    as_json: _options.Json = False,
) -> int:
    """Write a model as ONNX or torch.export, after checking that it answers as the original does.

    The input is named images: float32 (M, C, H, W) in [0, 1], for any M; preprocessing is inside. Of a GoodNet the
    outputs are answers (0..N-1, or N for a trigger) and suspicion; of a model, answers and logits. ONNX needs pip
    install 'goodnet[onnx]'. Guards of goodnet guard fit are more than one pass through a network, and stay with goodnet
    serve.

    \b
    Examples:
      goodnet export repaired/ --data clean/ --out repaired.onnx
      goodnet export repaired/ --data clean/ --out repaired.pt2
      goodnet export repaired/model --data clean/ --out model.onnx

    \b
    Exit codes:
      0  written, and the same answers on all images
      1  a model file would execute something when loaded the usual way; nothing was executed
      2  it cannot be exported, answers otherwise, or wrong usage; nothing is written
    """
    from goodnet.data.load import load_data
    from goodnet.guard.export import SUFFIXES
    from goodnet.guard.export import export as write
    from goodnet.guard.files import judging_folder, load_judging
    from goodnet.guard.goodnet import GoodNet
    from goodnet.models.input_range import guess_input_range
    from goodnet.models.load import load_model

    if out.suffix not in SUFFIXES:
        raise UsageError(f"{out.name} must end in {' or '.join(SUFFIXES)}; that is the format")
    if judging_folder(folder) is not None:
        answering = load_judging(folder)
        if not isinstance(answering, GoodNet):
            raise UsageError(f"{folder} is a guard, which is more than one pass; export a GoodNet or the model in it")
        samples = load_data(data, limit=limit, seed=seed, shape=answering.input_shape)
        written = write(answering, out, samples.floats())
    else:
        model = load_model(folder, arch=arch, input_range=input_range)
        samples = load_data(data, limit=limit, seed=seed, shape=model.input_shape)
        if input_range is None and not folder.is_dir():
            model = guess_input_range(model, samples)
        written = write(model, out, samples.floats())
    record = {
        "schema": 1,
        "model": str(folder),
        "out": str(out),
        "outputs": list(written.outputs),
        "images": written.images,
        "difference": written.difference,
    }
    words = (
        f"{out}\n  outputs  {' and '.join(written.outputs)}\n"
        f"  checked  the same answers on {written.images} images; {written.outputs[1]} within {written.difference:.2g}"
    )
    typer.echo(json.dumps(record, indent=1, allow_nan=False) if as_json else _outcome.shown(words))
    return _outcome.NOTHING_FOUND
