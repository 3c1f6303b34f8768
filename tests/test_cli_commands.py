"""The command line as people and scripts meet it: exit codes, JSON, messages, silence."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import heed_interrupts
from typer.testing import CliRunner, Result

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import auditors
from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.cli.main import app
from goodnet.models import architectures
from goodnet.training import Recipe, fit

QUICK = ["--data", "digits", "--limit", "60", "--set", "steps=60", "--set", "images=8", "--set", "scales=1"]

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small net for digits and its backdoored twin; both train in seconds."""
    folder = tmp_path_factory.mktemp("models")
    samples = goodnet.load_data("digits")
    attack = BadNets(target=3, size=6, row=2, column=2, poisoning_rate=0.2)
    for name, data in (("clean", samples), ("backdoored", attack.poison(samples).samples)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = architectures.build("small_cnn", num_classes=10, input_shape=samples.shape)
        model = goodnet.Classifier(net, input_shape=samples.shape, num_classes=10, architecture="small_cnn")
        trained = fit(model, data, Recipe(epochs=4, batch_size=64, learning_rate=0.003, optimizer="adam"))
        goodnet.save_model(trained, folder / name)
    return folder


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``goodnet`` with these words; the user's bank is a file of this test."""
    monkeypatch.setenv("GOODNET_BANK", str(tmp_path / "bank.json"))

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def fill_bank(scores: float) -> None:
    """Nineteen clean nets that score ``scores``, enough for a verdict at 5 % whatever the shipped bank says."""
    entries = tuple(
        BankEntry(
            method="neural-cleanse",
            version=NeuralCleanse.card.version,
            score=scores,
            num_classes=10,
            architecture="small_cnn",
            data="digits",
            seed=seed,
        )
        for seed in range(1000)
    )
    CleanBank(entries).write(Path(os.environ["GOODNET_BANK"]))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A pickle that would call a function of the operating system."""

    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch was-executed",)

    path = tmp_path / "hostile.pt"
    path.write_bytes(pickle.dumps({"weights": Bad()}))
    return path


def test_a_score_below_that_of_all_clean_nets_gives_0_and_the_careful_words(call: Call, models: Path) -> None:
    fill_bank(1e9)
    result = call("audit", models / "clean", *QUICK)
    assert result.exit_code == 0
    assert "No evidence of a backdoor." in result.stdout
    assert "p-value  1 (alpha 0.05)" in result.stdout
    assert result.stderr == ""


def test_a_score_above_that_of_all_clean_nets_gives_1_and_the_target(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_bank(0.0)
    monkeypatch.setattr(CleanBank, "shipped", lambda: CleanBank.read(Path(os.environ["GOODNET_BANK"])))
    result = call("audit", models / "backdoored", "--data", "digits", "--limit", "200", "--set", "scales=1", "--json")
    record = json.loads(result.stdout)
    assert result.exit_code == 1
    assert record["flagged"] is True
    assert 3 in record["targets"]
    assert record["p_value"] == pytest.approx(1 / 1001)


def test_without_clean_nets_to_compare_with_it_is_inconclusive_and_3(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CleanBank, "shipped", lambda: CleanBank(()))
    result = call("audit", models / "clean", *QUICK)
    assert result.exit_code == 3
    assert "Inconclusive" in result.stdout
    assert "p-value  none" in result.stdout


def test_json_is_all_that_stdout_holds_one_object_for_one_file(call: Call, models: Path) -> None:
    fill_bank(1e9)
    result = call("audit", models / "clean", *QUICK, "--json")
    record = json.loads(result.stdout)
    assert record["schema"] == 1
    assert record["file"] == str(models / "clean")
    assert len(record["sha256"]) == 64
    assert record["flagged"] is False
    assert record["targets"] == []
    assert record["labels"] == len(record["per_label"]) == 10
    assert record["parameters"]["steps"] == 60
    assert result.stderr == ""


def test_several_files_give_a_list_and_a_bad_one_does_not_stop_the_others(
    call: Call, models: Path, hostile: Path, tmp_path: Path
) -> None:
    fill_bank(1e9)
    result = call(
        "audit", tmp_path / "missing.h5", hostile, models / "clean", *QUICK, "--json", "--out", tmp_path / "out"
    )
    records = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [record["error_type"] for record in records] == ["UnreadableModel", "UnsafeFile", None]
    assert "system" in " ".join(records[1]["file_findings"])
    assert "missing.h5" in result.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["files"] == records
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert not Path("was-executed").exists()


def test_a_missing_file_gives_2_and_a_message_without_traceback(call: Call, tmp_path: Path) -> None:
    result = call("audit", tmp_path / "missing.h5", *QUICK)
    assert result.exit_code == 2
    assert "missing.h5" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs clean images: say where they are"),
        (["--data", "digits", "--method", "neural-clense"], "Did you mean 'neural-cleanse'"),
        (["--data", "digits", "--budget", "soon"], "must be a time above 0"),
        (["--data", "digits", "--alpha", "1"], "--alpha must be between 0 and 1"),
        (["--data", "digits", "--set", "held_out=2"], "NeuralCleanse.held_out must be in"),
        (["--data", "digits", "--device", "abacus"], "no device 'abacus'"),
        (["--data", "digits", "--out", __file__], "give a folder for the report"),
        (["--data", "digits", "--limit", "0"], "--limit"),
        (["--nonsense"], "--nonsense"),
        (["--data", "no-such-folder"], "no-such-folder does not exist"),
        (["--data", "digits", "--input-range", "0..7"], "input_range must be one of"),
    ],
)
def test_wrong_usage_gives_2_and_says_what_to_do(call: Call, models: Path, words: list[str], message: str) -> None:
    result = call("audit", models / "clean", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_scan_says_what_an_unsafe_file_would_execute(call: Call, hostile: Path, models: Path) -> None:
    result = call("scan", hostile)
    assert result.exit_code == 1
    assert "must not be loaded" in result.stdout
    assert "system" in result.stdout
    both = call("scan", models / "clean", hostile, "--json")
    assert both.exit_code == 1
    assert [record["safe"] for record in json.loads(both.stdout)] == [True, False]
    alone = call("scan", models / "clean")
    assert alone.exit_code == 0
    assert "nothing in it would be executed" in alone.stdout


def test_scan_gives_2_for_what_cannot_be_read(call: Call, tmp_path: Path) -> None:
    (tmp_path / "noise.h5").write_bytes(b"no model at all")
    assert call("scan", tmp_path / "noise.h5").exit_code == 2
    assert call("scan", tmp_path / "missing.h5").exit_code == 2


def test_sarif_logs_of_scan_and_audit_name_the_finding(call: Call, models: Path, hostile: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.h5"
    assert call("scan", models / "clean", hostile, missing, "--sarif", tmp_path / "new" / "scan.sarif").exit_code == 1
    results = json.loads((tmp_path / "new" / "scan.sarif").read_text())["runs"][0]["results"]
    assert {result["ruleId"] for result in results} == {"unsafe-file", "unreadable-file"}
    fill_bank(1e9)
    result = call("audit", models / "clean", hostile, missing, *QUICK, "--sarif", tmp_path / "audit.sarif")
    assert result.exit_code == 1
    audited = json.loads((tmp_path / "audit.sarif").read_text())["runs"][0]["results"]
    assert audited == results
    folder = call("scan", models / "clean", "--sarif", tmp_path)
    assert folder.exit_code == 2
    assert "--sarif" in folder.stderr


def test_list_shows_every_role_and_its_parameters(call: Call) -> None:
    lists = json.loads(call("list", "--json").stdout)
    assert set(lists) == {
        "schema",
        "auditors",
        "cleansers",
        "learners",
        "repairers",
        "guards",
        "attacks",
        "architectures",
        "data",
        "suites",
    }
    cleanse = next(card for card in lists["auditors"] if card["name"] == "neural-cleanse")
    assert "clean" in cleanse["needs"]
    assert {"name": "steps", "default": 150, "low": 1, "high": None}.items() <= cleanse["parameters"][2].items()
    assert "small_cnn" in call("list", "architectures").stdout
    assert "badnets" not in call("list", "architectures").stdout
    wrong = call("list", "auditor")
    assert wrong.exit_code == 2
    assert "Did you mean 'auditors'" in wrong.stderr


def test_bank_add_appends_a_net_once_and_says_why_not_twice(
    call: Call, models: Path, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quick(NeuralCleanse):
        def __init__(self) -> None:
            super().__init__(steps=60, images=8, scales=(1,))

    monkeypatch.setitem(auditors._methods, "neural-cleanse", Quick)
    words = ["--data", "digits", "--limit", "60"]
    first = call("bank", "add", models / "clean", *words)
    assert first.exit_code == 0
    place = Path(os.environ["GOODNET_BANK"])
    (entry,) = CleanBank.read(place).entries
    assert (entry.method, entry.num_classes, entry.data) == ("neural-cleanse", 10, "digits")
    assert entry.clean_accuracy is not None
    assert entry.clean_accuracy > 0.5
    again = call("bank", "add", models / "clean", hostile, *words)
    assert again.exit_code == 1
    assert "counts twice" in again.stderr
    assert len(CleanBank.read(place).entries) == 1


def test_version_and_bare_call(call: Call) -> None:
    assert call("--version").stdout == f"goodnet {goodnet.__version__}\n"
    assert "goodnet audit model.h5" in call("--help").stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["audit", "-h"], ["scan", "-h"], ["list", "-h"], ["bank", "add", "-h"], ["--version"]]
)
def test_help_imports_neither_torch_nor_anything_that_is_slow(words: list[str]) -> None:
    code = (
        "import sys\nfrom goodnet.cli.main import main\nsys.argv = ['goodnet', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'numpy', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_a_pipe_gets_the_answer_and_no_progress_bar(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "goodnet.cli", "audit", str(models / "clean"), *QUICK]
    environment = os.environ | {"GOODNET_BANK": str(tmp_path / "bank.json")}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    assert "p-value" in result.stdout


def test_ctrl_c_gives_130_and_one_line(models: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "goodnet.cli",
        "audit",
        str(models / "clean"),
        "--data",
        "digits",
        "--set",
        "steps=100000",
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, preexec_fn=heed_interrupts
    ) as process:
        try:
            time.sleep(6)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.startswith("goodnet: interrupted")
    assert err.count("\n") == 1
    assert out == ""


def test_a_fault_of_goodnet_is_never_taken_for_a_backdoor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from goodnet.cli import main as cli

    def broken(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "a fault of goodnet" in capsys.readouterr().err
