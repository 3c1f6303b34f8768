"""From a quarantine to a repaired model: what is learned from, what is written, what is refused, the whole loop."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import TARGET, PlantedWorld
from torch import nn
from typer.testing import CliRunner, Result

import goodnet
from goodnet.cli.main import app
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.guard.trigger_learning import sorted_out, without_clean
from goodnet.serve._pictures import to_png
from goodnet.serve.quarantine import Caught, Quarantine

EXAMPLE = Path(__file__).parents[1] / "examples" / "nnoculation.py"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


class FirstPixel(nn.Module):
    """Answers the value of the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), 10).float()


def answering(*answers: int) -> tuple[Classifier, Samples]:
    images = torch.zeros(len(answers), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(answers, dtype=torch.uint8)
    return Classifier(FirstPixel(), input_shape=(1, 4, 4), num_classes=10).eval(), Samples(images)


# --- what is learned from ---


def test_only_images_with_the_most_frequent_answer_are_learned_from_and_a_fifth_of_them_is_kept_unseen() -> None:
    model, samples = answering(*[7] * 20, *range(7), *range(7))
    caught = sorted_out(model, samples, torch.Generator().manual_seed(0))
    assert (caught.given, caught.answer, len(caught.learned_from), len(caught.unseen)) == (34, 7, 16, 4)
    assert set(caught.learned_from.images[:, 0, 0, 0].tolist()) == {7}
    assert not set(caught.learned_from.ids.tolist()) & set(caught.unseen.ids.tolist())


def test_a_quarantine_in_which_every_image_has_another_answer_is_refused() -> None:
    for answers in ((1, 2, 3, 4), (1, 1, 2)):
        with pytest.raises(NotHeld, match=f"of {len(answers)} quarantined images no answer"):
            sorted_out(*answering(*answers), torch.Generator())
    model, samples = answering(1)
    with pytest.raises(NotHeld, match="of 0 quarantined"):
        sorted_out(model, samples.pick(torch.zeros(0).long()), torch.Generator())


def test_what_is_marked_as_clean_is_left_out_and_other_data_stay_whole() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 2])
    exported = Samples(images, labels=labels, class_names=("clean", "poisoned", "unmarked"))
    assert without_clean(exported).ids.tolist() == [1, 2, 3]
    for names in (("clean", "dirty", "unmarked"), ("poisoned", "unmarked", "unsure"), ()):
        assert len(without_clean(Samples(images, labels=labels, class_names=names))) == 4


# --- the command ---


@pytest.fixture(scope="module")
def served(planted: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is in service, its exported quarantine, and the defender's clean images."""
    folder = tmp_path_factory.mktemp("learned")
    goodnet.save_goodnet(goodnet.GoodNet(planted.badnet, planted.twin), folder / "watched")
    goodnet.save_model(planted.badnet, folder / "badnet")
    digits = planted.clean
    assert digits.labels is not None
    np.savez(folder / "clean.npz", images=digits.images.numpy(), labels=digits.labels.numpy())
    train = goodnet.load_data("digits", limit=160, seed=0)
    victims = train.pick(train.labels != TARGET)
    stamped = (planted.attack.stamp(victims.floats()) * 255).round().byte()
    for mark, images in (("poisoned", stamped[:80]), ("clean", train.images[:30])):
        (folder / "caught" / mark).mkdir(parents=True)
        for place, image in enumerate(images):
            (folder / "caught" / mark / f"{place}.png").write_bytes(to_png(image))
    return folder


COMMON = ["--set", "width=8", "--most-drop", "0.1", "--false-alarms", "0.03"]


@pytest.fixture(scope="module")
def made(served: Path) -> tuple[dict[str, object], Path]:
    """What the command says, and the folder that it writes."""
    words = [served / "watched", "--quarantine", served / "caught", "--data", served / "clean.npz"]
    result = call("learn-trigger", *words, *COMMON, "--set", "steps=150", "--out", served / "new", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout), served / "new"


def test_the_new_model_is_ready_for_the_swap_and_the_true_trigger_works_no_longer(made, planted, served) -> None:
    record, out = made
    old, new = goodnet.load_judging(served / "watched"), goodnet.load_judging(out)
    assert (new.input_shape, new.num_classes) == (old.input_shape, old.num_classes)
    victims = planted.clean.pick(planted.clean.labels != TARGET)
    stamped = planted.attack.stamp(victims.floats())
    assert (predictions(planted.badnet, stamped).argmax(1) == TARGET).float().mean() > 0.9
    assert (new.judge(stamped).answers == TARGET).float().mean() < 0.02
    right = (new.judge(planted.clean.images).answers == planted.clean.labels).float().mean()
    assert (
        right
        > (predictions(planted.badnet, planted.clean.images).argmax(1) == planted.clean.labels).float().mean() - 0.05
    )
    assert record["still_turned"]["hits"] == 0


def test_the_json_and_the_folder_tell_the_same(made, served) -> None:
    record, out = made
    assert json.loads((out / "trigger.json").read_text()) == record
    assert sorted(path.name for path in out.iterdir()) == [
        "goodnet",
        "model",
        "report.html",
        "trigger.json",
        "trigger.png",
    ]
    assert (record["quarantined"], record["suspects_answer"], record["trigger"]["target"]) == (80, TARGET, TARGET)
    assert record["learned_from"] + record["still_turned"]["count"] <= 80, "what is marked clean is not used"
    assert record["learned_from"] > 60
    assert record["repair"]["proof"]["triggers"][0]["after"] <= 2
    assert (out / "trigger.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" not in (out / "report.html").read_text()


def test_a_person_is_told_what_to_look_at_and_how_to_serve_it(served: Path) -> None:
    words = [
        served / "badnet",
        "--quarantine",
        served / "caught",
        "--data",
        served / "clean.npz",
        "--method",
        "unlearning",
    ]
    told = call("learn-trigger", *words, *COMMON, "--set", "steps=10", "--out", served / "told")
    assert told.exit_code in (0, 3), told.output
    for word in ("learned  from", "of 80 quarantined images", "trigger.png", "others of them are still answered so"):
        assert word in told.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "fine-tuning"], "does not repair by triggers; take auto"),
        (["--method", "autto"], "Did you mean 'auto'"),
        (["--set", "steps=0"], "steps must be in"),
        (["--set", "stps=3"], "Did you mean 'steps'"),
        (["--quarantine", "nowhere"], "nowhere does not exist"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--limit", "5"], "some dozens"),
        (["--device", "cuda:77"], "no device"),
    ],
)
def test_wrong_usage_says_what_to_do_and_writes_nothing(words, message, served: Path) -> None:
    given = ["--quarantine", served / "caught", "--data", served / "clean.npz", "--out", served / "wrong"]
    wrong = call("learn-trigger", served / "badnet", *given, *words)
    assert wrong.exit_code == 2, wrong.output
    assert message in wrong.stderr
    assert not (served / "wrong").exists()


def test_what_shall_be_read_is_not_written_over(served: Path) -> None:
    given = ["--quarantine", served / "caught", "--data", served / "clean.npz"]
    for out in (served / "watched", served):
        wrong = call("learn-trigger", served / "watched", *given, "--out", out)
        assert wrong.exit_code == 2
        assert "not ours to replace" in wrong.stderr
    assert goodnet.load_judging(served / "watched").num_classes == 10


def test_the_watching_goodnet_is_written_where_it_is_asked_for_though_nothing_shows_what_it_is_good_for(served) -> None:
    words = ["repair", served / "badnet", "--data", served / "clean.npz", "--method", "nnoculation"]
    harmful = ["--set", "levels=1.0", "--set", "epochs=1", "--set", "accuracy_drop=0"]
    for asked, written in (([], False), (["--second-opinion"], True)):
        done = call(*words, *harmful, *asked, "--out", served / "nnoculated")
        assert done.exit_code == 3, done.output
        assert (served / "nnoculated" / "goodnet").exists() is written
        assert ("gives the old model's own answers, or 10" in done.stdout) is written
    assert goodnet.load_goodnet(served / "nnoculated" / "goodnet").rule.name == "second-opinion"


# --- goodnet quarantine export ---


def test_a_quarantine_is_exported_from_the_command_line_and_stays_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "q.sqlite3"
    images = torch.randint(256, (3, 1, 6, 5), generator=torch.Generator().manual_seed(0)).byte()
    quarantine = Quarantine(place, clock=lambda: 0.0)  # so old that the usual limits would let them go
    quarantine.add([Caught(pixels, 3, 0.9, 0.4, "m1") for pixels in images])
    keys = [entry.key for entry in quarantine.entries()]
    quarantine.mark(keys[0], "poisoned")
    quarantine.close()
    done = call("quarantine", "export", place, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'out'}  1 images marked poisoned\n"), done.output
    assert [path.stem for path in (tmp_path / "out" / "poisoned").iterdir()] == [keys[0]]
    both = ["--mark", "poisoned", "--mark", "unmarked", "--json"]
    again = call("quarantine", "export", place, *both, "--out", tmp_path / "out")
    assert json.loads(again.stdout)["images"] == 3
    assert goodnet.load_data(tmp_path / "out").class_names == ("poisoned", "unmarked")
    for words, message in (
        ([tmp_path / "none.sqlite3"], "does not exist"),
        ([place, "--mark", "clean"], "marked clean"),
        ([place, "--mark", "dirty"], "a mark is one of"),
    ):
        wrong = call("quarantine", "export", *words, "--out", tmp_path / "wrong")
        assert wrong.exit_code == 2, wrong.output
        assert message in wrong.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "q.sqlite3"]


# --- the loop ---


def test_the_example_goes_from_a_backdoored_service_to_a_repaired_one(tmp_path: Path, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("nnoculation_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, example)  # dataclasses look their module up by name
    spec.loader.exec_module(example)
    at_first, watched, repaired = example.run(tmp_path)
    assert at_first.success > 0.7
    assert repaired.success < 0.02, "one round removes the attacker's own trigger"
    assert watched.success < at_first.success
    assert repaired.right > at_first.right - 0.05
    record = json.loads((tmp_path / "repaired" / "trigger.json").read_text())
    assert record["suspects_answer"] == example.TARGET
    assert record["trigger"]["success_rate"] > 0.5
