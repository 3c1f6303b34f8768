"""Exported models answer as the originals do, for any number of images, or nothing is written."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import goodnet
from goodnet.cli.main import app
from goodnet.core.classifier import Classifier, Preprocessing
from goodnet.errors import NotApplicable, UsageError
from goodnet.guard import export as export_module
from goodnet.guard.export import export
from goodnet.guard.rules import DecisionTree, Disagreement, LostConfidence, SecondOpinion

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

RULES = (
    LostConfidence(threshold=0.003),
    SecondOpinion(threshold=0.003),
    Disagreement(),
    DecisionTree(confident=0.1039, unsure=0.1035),
)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def two() -> tuple[Classifier, Classifier, torch.Tensor]:
    digits = goodnet.load_data("digits", split="test")
    models = (goodnet.untrained("small_cnn:width=4", digits, seed=seed) for seed in (0, 1))
    badnet, repaired = models
    repaired.preprocessing = Preprocessing(scale=255.0, mean=(30.0,), std=(60.0,))
    return badnet, repaired, digits.images[:60].float() / 255


def outputs(path: Path, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What another runtime answers, from the file alone."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            answers, values = torch.export.load(path).module()(images)
            return answers, values
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    answers, values = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(answers), torch.from_numpy(values)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_answers_in_the_file_as_in_goodnet(rule, suffix, tmp_path: Path) -> None:
    badnet, repaired, images = two()
    original = goodnet.GoodNet(badnet, repaired, rule)
    said = original.judge(images)
    assert 0 < (said.answers == 10).sum() < 60, "both kinds of answer are compared"
    written = export(original, tmp_path / f"g{suffix}", images[:7])
    assert (written.images, written.outputs) == (7, ("answers", "suspicion"))
    for count in (60, 1):  # of another number than it was exported with
        answers, suspicion = outputs(tmp_path / f"g{suffix}", images[:count])
        assert torch.equal(answers, said.answers[:count])
        assert torch.allclose(suspicion.double(), said.suspicion[:count], atol=1e-5)


def test_a_model_gives_answers_and_logits(tmp_path: Path) -> None:
    model, _, images = two()
    assert export(model, tmp_path / "m.onnx", images).outputs == ("answers", "logits")
    answers, logits = outputs(tmp_path / "m.onnx", images)
    with torch.no_grad():
        wanted = model(images)
    assert torch.allclose(logits, wanted, atol=1e-4)
    assert torch.equal(answers, wanted.argmax(1))


def test_what_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch) -> None:
    model, other, images = two()
    honest = export_module._pt2

    def lies(module, given):
        content, _ = honest(module, given)
        return content, export_module.Portable(other).eval()

    monkeypatch.setattr(export_module, "_pt2", lies)
    with torch.no_grad(), pytest.raises(NotApplicable, match="of 60 images otherwise"):
        export(model, tmp_path / "m.pt2", images)
    assert list(tmp_path.iterdir()) == []


class Branches(nn.Module):
    """Looks at the values to decide what to compute, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits if float(logits.sum()) > 0 else -logits


def test_a_network_that_is_no_graph_is_refused_in_words(tmp_path: Path) -> None:
    model = Classifier(Branches(), input_shape=(1, 4, 4), num_classes=3)
    with pytest.raises(NotApplicable, match="torch cannot export this network"):
        export(model, tmp_path / "m.pt2", torch.rand(4, 1, 4, 4))
    with pytest.raises(UsageError, match=r"\.onnx or \.pt2"):
        export(model, tmp_path / "m.tflite", torch.rand(4, 1, 4, 4))
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_checks_and_refuses(tmp_path: Path) -> None:
    badnet, repaired, _ = two()
    goodnet.save_goodnet(goodnet.GoodNet(badnet, repaired, RULES[0]), tmp_path / "repaired" / "goodnet")
    goodnet.save_model(badnet, tmp_path / "model")
    made = call("export", tmp_path / "repaired", "--data", "digits", "--out", tmp_path / "g.onnx", "--json")
    assert made.exit_code == 0, made.output
    record = json.loads(made.stdout)
    assert (record["images"], record["outputs"]) == (200, ["answers", "suspicion"])
    told = call("export", tmp_path / "model", "--data", "digits", "--limit", 20, "--out", tmp_path / "m.pt2")
    assert told.exit_code == 0, told.output
    assert "the same answers on 20 images; logits within" in told.stdout
    fitted = ["guard", "fit", tmp_path / "model", "--data", "digits", "--method", "confidence", "--rate", "0.1"]
    assert call(*fitted, "--out", tmp_path / "guarded").exit_code == 0
    for words, message in (
        ([tmp_path / "guarded", "--data", "digits", "--out", tmp_path / "w.onnx"], "is a guard"),
        ([tmp_path / "model", "--data", "digits", "--out", tmp_path / "w.h5"], "must end in .onnx or .pt2"),
        ([tmp_path / "none", "--data", "digits", "--out", tmp_path / "w.onnx"], "none"),
    ):
        wrong = call("export", *words)
        assert wrong.exit_code == 2, wrong.output
        assert message in wrong.stderr
    assert not list(tmp_path.glob("w.*"))
