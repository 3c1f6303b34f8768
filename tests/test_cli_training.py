"""goodnet attack, train and evaluate as people and scripts meet them, and the page that shows them."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import goodnet
from goodnet.attacks import attack_called, attacks, load_attack
from goodnet.attacks.badnets import BadNets
from goodnet.cli._values import settings
from goodnet.cli.main import app
from goodnet.core.params import param
from goodnet.core.whole_folder import whole_folder
from goodnet.errors import GoodnetError, ParameterError, UsageError
from goodnet.evaluation import Plan, train_run
from goodnet.report.poisoned import poisoned_sheet
from goodnet.training import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
QUICK = {"epochs": 3, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.004}
NET = [
    "--arch",
    "small_cnn",
    "--limit",
    "300",
    *(word for pair in QUICK.items() for word in ("--set", "{}={}".format(*pair))),
]
TRIGGER = ["--attack", "badnets", "--attack-set", "target=3", "--attack-set", "size=6"]

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``goodnet`` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``goodnet train`` leaves of a backdoored net for digits."""
    folder = tmp_path_factory.mktemp("net") / "net"
    result = CliRunner().invoke(app, ["train", "--data", "digits", *NET, *TRIGGER, "--out", str(folder)])
    assert result.exit_code == 0, result.stderr
    return folder


def test_attack_writes_a_set_that_loads_and_the_truth_about_it(call: Call) -> None:
    result = call("attack", "badnets", "--data", "digits", "--set", "target=3", "--out", "poisoned/")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "144 of 1,442 images poisoned" in result.stdout
    assert sorted(path.name for path in Path("poisoned").iterdir()) == [
        "attack.json",
        "poisoned.npz",
        "samples.png",
        "truth.npz",
    ]
    clean, given = goodnet.load_data("digits"), goodnet.load_data("poisoned/poisoned.npz")
    assert torch.equal(goodnet.load_data("poisoned").images, given.images)
    assert torch.equal(
        goodnet.load_data("poisoned", limit=5).labels, goodnet.load_data(Path("poisoned/poisoned.npz"), limit=5).labels
    )
    with np.load("poisoned/truth.npz") as arrays:
        truth = dict(arrays)
    expected = BadNets(target=3).poison(clean, seed=0)
    assert torch.equal(given.images, expected.samples.images)
    assert torch.equal(given.labels, expected.samples.labels)
    assert np.array_equal(truth["mask"], expected.mask)
    assert not truth["covers"].any()
    assert np.array_equal(truth["original_labels"], clean.labels)
    assert np.array_equal(truth["ids"], clean.ids)
    assert load_attack("poisoned") == BadNets(target=3)
    with Image.open("poisoned/samples.png") as sheet:
        assert min(sheet.size) > 300


def test_attack_says_as_json_what_it_did_and_replaces_only_what_it_wrote(call: Call) -> None:
    words = ["attack", "wanet", "--data", "digits", "--limit", "100", "--out", "poisoned", "--json"]
    record = json.loads(call(*words).stdout)
    assert (record["images"], record["poisoned_images"], record["cover_images"]) == (100, 10, 20)
    assert record["attack"]["parameters"]["strength"] == 0.5
    assert call(*words, "--seed", "1").exit_code == 0
    Path("poisoned/diary.txt").write_text("mine")
    again = call(*words)
    assert again.exit_code == 2
    assert "holds 'diary.txt'" in again.stderr
    assert Path("poisoned/diary.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["badnet"], "Did you mean 'badnets'"),
        (["badnets", "--set", "poisoning_rate=2"], "poisoning_rate must be in [0, 1]"),
        (["badnets", "--set", "learned=1"], "no parameter of badnets named 'learned'"),
        (["badnets", "--set", "target=10"], "target 10 is none of the labels 0 to 9"),
        (["badnets", "--split", "tests"], "Did you mean 'test'"),
        (["./badnets", "--set", "size=3"], "has all of its parameters"),
        (["./badnets"], "no attack that can be read"),
    ],
)
def test_wrong_words_for_attack_end_in_a_sentence_and_2(call: Call, words: list[str], message: str) -> None:
    result = call("attack", *words, "--data", "digits", "--out", "poisoned")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(Path().iterdir())


@dataclasses.dataclass(frozen=True)
class Unset:
    share: float | None = param(None, doc="a share")
    name: str | None = param(None, doc="a name")


def test_parameters_that_are_unset_by_default_can_be_set() -> None:
    chosen = settings(BadNets, ["rule=source-to-target", "source=3"])
    assert BadNets(**chosen).source == 3
    assert settings(Unset, ["share=1", "name=a=b"], of="a test") == {"share": 1.0, "name": "a=b"}
    with pytest.raises(ParameterError, match="--set source must look like 0, got 'three'"):
        settings(BadNets, ["source=three"])


def test_the_sheet_shows_poisoned_images_of_several_classes_and_covers() -> None:
    clean = goodnet.load_data("digits", limit=200)
    for name in ("wanet", "sig"):
        sheet = poisoned_sheet(attacks[name]().poison(clean), clean)
        assert sheet.startswith(b"\x89PNG")
    nothing = BadNets(poisoning_rate=0.0).poison(clean)
    assert poisoned_sheet(nothing, clean).startswith(b"\x89PNG")
    named = dataclasses.replace(clean, class_names=tuple(f"$c_{label}^2" for label in range(10)))
    assert poisoned_sheet(BadNets().poison(named), named).startswith(b"\x89PNG")


def test_train_leaves_a_model_an_attack_and_a_record(net: Path) -> None:
    assert sorted(path.name for path in net.iterdir()) == ["attack", "model", "training.json"]
    record = json.loads((net / "training.json").read_text())
    assert (record["images"], record["poisoned_images"], record["test_images"]) == (300, 30, 355)
    assert record["plan"]["attack"] | {"name": "badnets", "target": 3, "size": 6} == record["plan"]["attack"]
    assert record["plan"]["recipe"]["epochs"] == 3
    assert record["versions"]["goodnet"] == goodnet.__version__
    model, test = goodnet.load_model(net / "model"), goodnet.load_data("digits", split="test")
    assert record["measured"] == goodnet.measure(model, test, goodnet.load_attack(net / "attack")).as_json()
    assert record["measured"]["clean_accuracy"]["count"] == 355


def test_a_poisoned_set_trains_the_net_that_the_attack_itself_trains(net: Path, tmp_path: Path) -> None:
    train = goodnet.load_data("digits", limit=300)
    made = BadNets(target=3, size=6).train(goodnet.untrained("small_cnn", train), train, Recipe(**QUICK))
    kept = goodnet.load_model(net / "model")
    assert all(torch.equal(*pair) for pair in zip(made.model.parameters(), kept.parameters(), strict=True))


def test_a_file_says_the_same_as_flags_and_flags_stand_over_it(call: Call, net: Path) -> None:
    Path("net.toml").write_text(
        'data = "digits"\nout = "net"\narch = "small_cnn"\nlimit = 300\n[recipe]\n'
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in QUICK.items())
        + '[attack]\nname = "badnets"\ntarget = 3\nsize = 4\n'
    )
    typed = call("train", "--config", "net.toml", "--attack-set", "size=6", "--json")
    record, other = json.loads(typed.stdout), json.loads((net / "training.json").read_text())
    assert typed.stderr == ""
    assert record["plan"] | {"out": ""} == other["plan"] | {"out": ""}
    assert record["measured"] == other["measured"]
    twin = call("train", "--config", "net.toml", "--attack", "none", "--set", "epochs=2", "--out", "twin", "--json")
    assert json.loads(twin.stdout)["plan"]["attack"] is None
    assert json.loads(twin.stdout)["plan"]["recipe"]["epochs"] == 2
    assert not Path("twin/attack").exists()
    blended = call("train", "--config", "net.toml", "--attack", "blended", "--set", "epochs=2", "--out", "b", "--json")
    assert json.loads(blended.stdout)["plan"]["attack"]["target"] == 0, "the table is of another attack"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('data = "digits"\nout = "x"\nlimit = "many"', "limit"),
        ('data = "digits"\nout = "x"\ncolour = 1', "colour"),
        ('data = "digits"\nout = "x"\nattack = "badnets"', "[attack]"),
        ('data = "digits"\nout = "x"\n[attack]\ntarget = 3', "needs a name"),
        ('data = "digits"\nout = "x"\n[recipe]\nepoch = 3', "Did you mean 'epochs'"),
        ('data = "digits"', "--out DIR"),
        ('out = "x"', "--data PATH"),
        ("data =", "no TOML"),
    ],
)
def test_what_a_file_gets_wrong_is_named(call: Call, text: str, message: str) -> None:
    Path("net.toml").write_text(text)
    result = call("train", "--config", "net.toml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("x").exists()


def interrupted(plan: Plan, after: int) -> None:
    """Train until the end of an epoch, as somebody who presses Ctrl-C then."""

    def stop(share: float, text: str) -> None:
        if text.startswith(f"epoch {after} "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(plan, progress=stop)


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(call: Call, net: Path) -> None:
    attack = {"name": "badnets", "target": 3, "size": 6}
    plan = Plan(data="digits", out="half", arch="small_cnn", limit=300, recipe=dict(QUICK), attack=attack)
    interrupted(plan, after=2)
    assert [path.name for path in Path("half").iterdir()] == ["unfinished"]
    words = ["train", "--data", "digits", *NET, *TRIGGER, "--out", "half"]
    anew = call(*words)
    assert anew.exit_code == 2
    assert "unfinished run" in anew.stderr
    other = call(*words, "--resume", "--seed", "1", "--attack-set", "size=4")
    assert other.exit_code == 2
    assert "another seed, attack" in other.stderr
    resumed = call(*words, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert not Path("half/unfinished").exists()
    weights = [goodnet.load_model(folder / "model").state_dict() for folder in (Path("half"), net)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    nothing = call(*words, "--resume")
    assert nothing.exit_code == 2
    assert "no unfinished run" in nothing.stderr


@pytest.mark.parametrize(("kept", "words"), [(True, "--resume goes on"), (False, "nothing to go on from")])
def test_ctrl_c_says_whether_the_run_can_go_on(
    call: Call, monkeypatch: pytest.MonkeyPatch, kept: bool, words: str
) -> None:
    def stopped(plan: Plan, **_: object) -> None:
        if kept:
            Path(plan.out, "unfinished").mkdir(parents=True)
            Path(plan.out, "unfinished", "checkpoint.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("goodnet.evaluation.train_run", stopped)
    result = call("train", "--data", "digits", "--out", "net")
    assert result.exit_code == 130
    assert words in result.stderr


def test_resume_says_that_an_attacker_who_trains_keeps_no_checkpoint(call: Call) -> None:
    result = call("train", "--data", "digits", *NET, "--attack", "wanet", "--out", "net", "--resume")
    assert result.exit_code == 2
    assert "wanet runs the training itself" in result.stderr


def test_attacks_that_train_are_those_whose_cards_say_so() -> None:
    from goodnet.attacks import Attack

    for attack in attacks:
        assert (attack._train is not Attack._train) == ("TRAINING" in {need.name for need in attack.card.needs})


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(name: str, error: type[BaseException] | None = None) -> None:
        with whole_folder(tmp_path / "out") as made:
            (made / name).touch()
            if error is not None:
                raise error

    def there() -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]

    with pytest.raises(KeyboardInterrupt):
        write("first", KeyboardInterrupt)
    assert there() == []
    write("second")
    with pytest.raises(ZeroDivisionError):
        write("third", ZeroDivisionError)
    assert there() == ["out", "out/second"]
    write("fourth")
    assert there() == ["out", "out/fourth"]


def test_train_leaves_foreign_folders_alone_before_it_trains(call: Call) -> None:
    Path("photos/model").mkdir(parents=True)
    result = call("train", "--data", "digits", *NET, "--out", "photos")
    assert result.exit_code == 2
    assert "not ours to replace" in result.stderr
    assert call("train", "--data", "digits", *NET, "--out", ".").exit_code == 2


def test_without_test_images_train_says_that_it_did_not_measure(call: Call) -> None:
    samples = goodnet.load_data("digits", limit=60)
    np.savez("all.npz", images=samples.images.numpy(), labels=samples.labels.numpy())
    words = ["train", "--data", "all.npz", *NET, "--set", "epochs=2", "--out", "net"]
    assert "not measured" in call(*words).stdout
    assert json.loads(Path("net/training.json").read_text())["measured"] is None
    assert "95% interval" in call(*words, "--test", "digits").stdout
    np.savez("unlabeled.npz", images=samples.images.numpy())
    wrong = call("train", "--data", "unlabeled.npz", "--out", "other")
    assert wrong.exit_code == 2
    assert "unlabeled.npz has no labels" in wrong.stderr


def test_evaluate_tells_counts_and_intervals_in_words(call: Call, net: Path) -> None:
    result = call("evaluate", net / "model", "--data", "digits", "--attack", net / "attack")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(
        r"clean accuracy +[\d.]+% of images are answered with their label \(\d+ of 355; 95%", result.stdout
    )
    assert re.search(r"attack success rate +[\d.]+% of stamped images are answered 3 \(\d+ of 319; 95%", result.stdout)
    assert re.search(r"recovered accuracy +[\d.]+% of stamped images are answered with their true", result.stdout)
    record = json.loads(call("evaluate", net / "model", "--data", "digits", *TRIGGER, "--json").stdout)
    measured = json.loads((net / "training.json").read_text())["measured"]
    assert measured.items() <= record.items()
    clean = json.loads(call("evaluate", net / "model", "--data", "digits", "--limit", "50", "--json").stdout)
    assert clean["clean_accuracy"]["count"] == 50
    assert clean["attack_success_rate"] is None


def test_evaluate_before_says_what_changed_class_by_class(call: Call, net: Path) -> None:
    words = ["evaluate", net / "model", "--before", net / "model", "--data", "digits", *TRIGGER]
    shown, record = call(*words).stdout, json.loads(call(*words, "--json").stdout)
    assert re.search(r"rating \(DER\) +0\.500", shown)
    assert "right answers by class" in shown
    assert record["compared_with"]["defense_effectiveness"] == 0.5
    assert [row["label"] for row in record["compared_with"]["per_class"]] == list(range(10))
    twin = call("evaluate", net / "model", "--before", net / "model", "--data", "digits", "--attack", "sig")
    assert "did not work before either" in twin.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "input-aware"], "learns its trigger from data"),
        (["--attack", "badnets", "--attack-set", "target=10"], "target 10 is none of the labels 0 to 9"),
        (["--attack-set", "target=3"], "goes with --attack NAME"),
        (["--split", "tests"], "Did you mean 'test'"),
        (["--arch", "small_cnn"], "knows its architecture"),
        (["--device", "nowhere"], "no device 'nowhere'"),
        (["--before", "missing.h5"], "missing.h5"),
    ],
)
def test_wrong_words_for_evaluate_end_in_a_sentence_and_2(
    call: Call, net: Path, words: list[str], message: str
) -> None:
    result = call("evaluate", net / "model", "--data", "digits", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_an_attack_is_called_by_name_or_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    goodnet.save_attack(BadNets(target=7), "badnets")
    assert attack_called("badnets", {"size": 4}) == BadNets(size=4)
    assert attack_called("./badnets", {}) == BadNets(target=7)
    assert attack_called("badnets/attack.json", {}) == BadNets(target=7)
    with pytest.raises(UsageError, match="all of its parameters"):
        attack_called("./badnets", {"size": 4})
    with pytest.raises(GoodnetError, match="Did you mean 'badnets'"):
        attack_called("badnet", {})


def test_a_net_knows_named_classes_that_no_image_shows() -> None:
    samples = goodnet.load_data("digits")
    few = samples.pick(samples.labels < 4)
    assert goodnet.untrained("small_cnn", few).num_classes == 10
    assert goodnet.untrained("small_cnn", dataclasses.replace(few, class_names=())).num_classes == 4


def test_list_shows_one_attack_with_ranges_and_nothing_that_cannot_be_set(call: Call) -> None:
    shown = call("list", "attacks", "badnets").stdout
    assert "poisoning_rate=0.1  share of images that are poisoned (0 to 1)" in shown
    assert "place=at  at row and column, in the middle, or anywhere in each image (at, center, random)" in shown
    assert "source (not set)" in shown
    assert "learned=" not in call("list", "attacks").stdout
    (card,) = json.loads(call("list", "attacks", "badnets", "--json").stdout)["attacks"]
    rate = next(parameter for parameter in card["parameters"] if parameter["name"] == "poisoning_rate")
    assert (rate["default"], rate["low"], rate["high"]) == (0.1, 0.0, 1.0)
    assert "Did you mean 'badnets'" in call("list", "attacks", "badnet").stderr


def test_help_of_train_tells_the_recipe_as_it_is(call: Call) -> None:
    words = " ".join(call("train", "--help").stdout.split())
    for field in dataclasses.fields(Recipe):
        default = str(field.default).lower()
        assert f"{field.name}={default}" in words, "the help of goodnet train tells another recipe"


@pytest.mark.parametrize("command", ["attack", "train", "evaluate"])
def test_help_comes_without_torch_and_has_examples(command: str) -> None:
    code = (
        "import sys\nfrom goodnet.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert f"goodnet {command} " in result.stdout.split("Examples:")[1]


def test_the_page_runs_as_it_stands(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for kind, block in blocks:
        if kind == "toml":
            Path("net.toml").write_text(block)
        elif kind == "python":
            exec(compile(block, str(PAGE), "exec"), names)
        else:
            for line in block.replace("\\\n", " ").splitlines():
                result = call(*line.removeprefix("goodnet ").split())
                assert result.exit_code == 0, f"{line}\n{result.stderr}"
    assert json.loads(Path("net/training.json").read_text())["measured"]["attack_success_rate"]["value"] > 0.8
    printed = capsys.readouterr().out
    assert "Rate(hits=" in printed
    missing = [target for target in re.findall(r"\]\((?!https?:)([^)#]+)", page) if not (PAGE.parent / target).exists()]
    assert not missing
