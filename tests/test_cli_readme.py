"""What the README and the pages in docs show is run, so that it stays true."""

import re
from pathlib import Path

import pytest
import torch

import goodnet
from goodnet.audit._base import auditors
from goodnet.models import architectures

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def untrained() -> goodnet.Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = architectures.build("small_cnn", num_classes=10, input_shape=(1, 32, 32))
    return goodnet.Classifier(net, input_shape=(1, 32, 32), num_classes=10, architecture="small_cnn")


def test_the_python_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOODNET_BANK", str(tmp_path / "bank.json"))
    monkeypatch.chdir(tmp_path)
    goodnet.save_model(untrained(), "demo-out/backdoored")
    (block,) = python_blocks("README.md")
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[0].split()[0] in ("None", "False", "True")


def test_the_method_in_the_architecture_page_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    auditors.names()
    monkeypatch.setattr(auditors, "_methods", dict(auditors._methods))
    (block,) = python_blocks("docs/architecture.md")
    # dataclasses look their module up by name
    names: dict[str, object] = {"__name__": __name__}
    exec(compile(block, "docs/architecture.md", "exec"), names)
    held = goodnet.Defender(model=untrained(), clean=goodnet.load_data("digits", limit=50))
    verdict = auditors["my-method"](images=20).run(held)
    assert verdict.flagged is None
    assert len(verdict.per_class) == 10


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_lead_to_files_that_are_there(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert not missing


def test_the_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    source = Path(goodnet.__file__).parent
    rooms = [path.name for path in source.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert [room for room in rooms if f"`{room}" not in page] == []
