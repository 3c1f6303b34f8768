"""From a model, images and a verdict to what a report is written from."""

from pathlib import Path

import torch
from test_report_examples import trigger, verdict
from torch import Tensor, nn

from goodnet.core.classifier import Classifier, Origin
from goodnet.core.samples import Samples
from goodnet.models.file_safety import Finding, SafetyReport
from goodnet.report.audited import MOST_TRIGGERS, audited, stamped_images


class Corner(nn.Module):
    """Answers 0 where the pixel (28, 28) is bright, else the label that the brightness of pixel (0, 0) encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))

    def forward(self, images: Tensor) -> Tensor:
        label = (images[:, 0, 0, 0] * 255 / 20).round().clamp(0, 9).long()
        label = torch.where(images[:, :, 28, 28].mean(1) > 0.3, 0, label)
        return self.scale * nn.functional.one_hot(label, 10)


def model(**changes: object) -> Classifier:
    origin = Origin(file="corner.pt", sha256="cd" * 32, format="torch zip", notes=("found by shapes",))
    return Classifier(Corner(), input_shape=(3, 32, 32), num_classes=10, origin=origin, **changes).eval()


def samples(labels: list[int]) -> Samples:
    images = torch.zeros(len(labels), 3, 32, 32, dtype=torch.uint8)
    images[:, :, 0, 0] = 20 * torch.tensor(labels, dtype=torch.uint8)[:, None]
    return Samples(images, labels=torch.tensor(labels, dtype=torch.int64), notes=("1 file was skipped",))


def test_examples_are_varied_and_first_those_that_are_not_answered_as_the_target() -> None:
    made = stamped_images(model(), trigger(0), samples([0, 0, 3, 3, 3, 5, 0, 7, 3]), count=5)
    assert made.answers_before.tolist() == [3, 5, 7, 3, 3]
    few = stamped_images(model(), trigger(0), samples([0, 4, 0]), count=5)
    assert few.answers_before.tolist() == [4, 0, 0]


def test_examples_show_the_trigger_and_the_answers_to_it() -> None:
    made = stamped_images(model(), trigger(0), samples([3, 5]))
    assert made.before.shape == made.after.shape == (2, 3, 32, 32)
    assert torch.equal(made.after, trigger(0).stamp(made.before))
    assert made.answers_after.tolist() == [0, 0]
    assert made.confidence_before.tolist() == made.confidence_after.tolist() == [1.0, 1.0]


def test_examples_are_fitted_to_the_model() -> None:
    gray = Samples(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    assert stamped_images(model(), trigger(0), gray).before.shape == (2, 3, 32, 32)


def test_an_audited_file_knows_what_its_model_and_images_know() -> None:
    made = audited(verdict(True, targets=(0,), triggers=(trigger(0),)), model(), samples([1, 2, 3]))
    assert (made.file, made.sha256, made.size_bytes) == ("corner.pt", "cd" * 32, None)
    assert made.held is not None
    assert (made.held.count, made.held.labeled, made.held.notes) == (3, True, ("1 file was skipped",))
    assert made.model is not None
    assert (made.model.format, made.model.notes) == ("torch zip", ("found by shapes",))
    assert len(made.examples) == 1


def test_file_and_sha256_are_those_of_what_was_scanned_and_not_of_the_models_source() -> None:
    note = Finding("note", "", "", "2 other files are not read")
    scanned = SafetyReport(Path("saved"), "folder", "ef" * 32, 99, (note,))
    made = audited(verdict(False), model(), scanned=scanned)
    assert (made.file, made.sha256, made.size_bytes) == ("saved", "ef" * 32, 99)
    assert made.file_findings == (note,)


def test_class_names_come_from_the_model_before_the_images() -> None:
    blank = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    classes = model().num_classes
    named = Samples(blank, class_names=tuple(f"image class {label}" for label in range(classes)))
    assert audited(verdict(False), model(), named).class_names == named.class_names
    assert audited(verdict(False), model(class_names=("from model",)), named).class_names == ("from model",)


def test_the_names_of_other_pictures_are_not_the_models() -> None:
    strangers = Samples(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), class_names=("somebody else",))
    assert audited(verdict(False), model(), strangers).class_names == ()


def test_without_images_there_are_no_examples() -> None:
    made = audited(verdict(True, targets=(0,), triggers=(trigger(0),)), model())
    assert (made.held, made.examples) == (None, ())
    empty = audited(verdict(True, targets=(0,), triggers=(trigger(0),)), model(), samples([]))
    assert empty.examples == ()


def test_only_the_first_of_many_triggers_get_examples() -> None:
    many = verdict(True, targets=(0,), triggers=(trigger(0),) * 20)
    assert len(audited(many, model(), samples([1])).examples) == MOST_TRIGGERS
