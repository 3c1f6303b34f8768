"""Export: a GoodNet or a model as one file that runs without goodnet, checked against the original before it counts."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goodnet.core.classifier import Classifier
from goodnet.core.whole_folder import flush
from goodnet.errors import NotApplicable, UsageError
from goodnet.guard.goodnet import GoodNet
from goodnet.guard.rules import lost_confidence

SUFFIXES = (".onnx", ".pt2")
_CLOSE = 1e-3  # of suspicion or logits: another runtime sums in another order
_OPSET = 18


class Portable(nn.Module):
    """What is exported: float32 images (M, C, H, W) in [0, 1] → what a service needs.

    Of a GoodNet: answers int64 (M,), 0..N-1 or N for a trigger, and suspicion float32 (M,). Of a model: answers, and
    logits float32 (M, N).
    """

    def __init__(self, answering: GoodNet | Classifier):
        super().__init__()
        goodnet = isinstance(answering, GoodNet)
        self.badnet = answering.badnet if isinstance(answering, GoodNet) else answering
        self.repaired = answering.repaired if isinstance(answering, GoodNet) else None
        self.rule = answering.rule if isinstance(answering, GoodNet) else None
        self.names = ("answers", "suspicion" if goodnet else "logits")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.badnet(images)
        if self.repaired is None or self.rule is None:
            return logits.argmax(1), logits
        bad, good = logits.double().softmax(1), self.repaired(images).double().softmax(1)
        return self.rule.answers(bad, good), lost_confidence(bad, good).float()


@dataclass(frozen=True)
class Exported:
    """What a check found: how many images were compared, and the largest difference of suspicion or logits."""

    images: int
    difference: float
    outputs: tuple[str, str]


def export(answering: GoodNet | Classifier, path: str | os.PathLike[str], images: Tensor) -> Exported:
    """Write ``path``, whose suffix is the format, if it answers as the original does.

    Args:
        answering: is untouched.
        path: ``.onnx`` (needs onnx, onnxscript, onnxruntime) or ``.pt2``, which ``torch.export.load`` reads.
        images: float32 (M, C, H, W) in [0, 1], at least two, on which both must give the same answers.

    Raises:
        UsageError: another suffix, or a package is missing.
        NotApplicable: the network cannot be exported, or what was exported answers otherwise; nothing is written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path.name} must end in {' or '.join(SUFFIXES)}; that is the format")
    module = Portable(answering).eval()
    with torch.no_grad():
        wanted = module(images)
    content, run = (_onnx if path.suffix == ".onnx" else _pt2)(module, images)
    found = run(images)
    if not torch.equal(wanted[0], found[0]):
        other = int((wanted[0] != found[0]).sum())
        raise NotApplicable(f"what was exported answers {other} of {len(images)} images otherwise; nothing is written")
    difference = float((wanted[1] - found[1]).abs().max() / wanted[1].abs().max().clamp(min=1))
    if not difference <= _CLOSE:
        raise NotApplicable(f"what was exported differs by {difference:.2g} from the original; nothing is written")
    _write(path, content)
    return Exported(len(images), difference, module.names)


Run = Callable[[Tensor], tuple[Tensor, Tensor]]


def _program(module: Portable, images: Tensor) -> Any:
    """The graph, for any number of images."""
    try:
        batch = torch.export.Dim("batch")
        return torch.export.export(module, (images[:2],), dynamic_shapes={"images": {0: batch}})
    except Exception as error:  # noqa: BLE001 - torch.export raises whatever a network leads it to
        reason = str(error).strip().splitlines()
        raise NotApplicable(
            f"torch cannot export this network: {reason[0] if reason else type(error).__name__}"
        ) from error


def _pt2(module: Portable, images: Tensor) -> tuple[bytes, Run]:
    buffer = io.BytesIO()
    torch.export.save(_program(module, images), buffer)
    content = buffer.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()  # our own bytes of a moment ago

    def run(given: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            answers, values = loaded(given)
        return answers, values

    return content, run


def _onnx(module: Portable, images: Tensor) -> tuple[bytes, Run]:
    try:
        import onnx  # noqa: F401 - torch.onnx imports both when it is called, and says less
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"an .onnx file needs {error.name}: pip install 'goodnet[onnx]'") from error
    program = _program(module, images)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        made = Path(folder) / "model.onnx"
        torch.onnx.export(
            program,
            (),
            made,
            input_names=["images"],
            output_names=list(module.names),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        content = made.read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(given: Tensor) -> tuple[Tensor, Tensor]:
        answers, values = session.run(None, {"images": given.numpy()})
        return torch.from_numpy(answers), torch.from_numpy(values)

    return content, run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx says of its own deprecations and of packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write(path: Path, content: bytes) -> None:
    """The file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
