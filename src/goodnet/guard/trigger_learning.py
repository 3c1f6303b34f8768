"""learn_trigger: from a model in service and what its quarantine caught to a repaired GoodNet for the hot swap."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.device import check_device
from goodnet.core.rates import Rate
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress, Run
from goodnet.core.samples import Samples
from goodnet.data.load import load_data
from goodnet.errors import NotHeld
from goodnet.guard.calibration import goodnet_of
from goodnet.guard.files import judging_folder, load_judging
from goodnet.guard.goodnet import GoodNet
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.repair._base import Repairer
from goodnet.repair.files import FileRepair, repair_model, set_aside
from goodnet.repair.translation import TranslatedTrigger, Translation

_MARKS = {"clean", "poisoned", "unsure", "unmarked"}  # the folders of an exported quarantine
_UNSEEN = 0.2  # of the caught images: only counted on
_LEARNING = 0.6  # of time and progress; the rest goes to the repair


@dataclass(frozen=True, kw_only=True)
class Caught:
    """What became of the quarantined images.

    Attributes:
        given: how many there are, without those marked as clean.
        answer: what the suspect answers to most of them.
        learned_from: those answered so from which the trigger was learned.
        unseen: others answered so, which no step has seen.
    """

    given: int
    answer: int
    learned_from: Samples
    unseen: Samples


@dataclass(frozen=True, kw_only=True)
class TriggerLearned:
    """What came of a quarantine.

    Attributes:
        caught: the quarantined images.
        trigger: what was learned from them.
        repair: of the suspect, against that trigger.
        goodnet: the suspect and what was made of it in one model, for the hot swap; None where nothing good came of it.
        still: caught images that no step has seen and that the new model still answers as the suspect does; of the
            GoodNet, or where there is none of the repair's model.
    """

    caught: Caught
    trigger: TranslatedTrigger
    repair: FileRepair
    goodnet: GoodNet | None
    still: Rate


def learn_trigger(
    path: str | os.PathLike[str],
    *,
    quarantine: str | os.PathLike[str],
    data: str | os.PathLike[str],
    translation: Translation,
    repairer: Repairer,
    limit: int | None = 2000,
    rate: float = 0.02,
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    held_out: float = 0.25,
    most_drop: float = 0.03,
    most_success: float = 0.1,
    progress: Progress | None = None,
) -> TriggerLearned:
    """Learn the trigger of quarantined images, and repair the model that was attacked with it.

    Args:
        path: what is in service: a folder of goodnet repair or goodnet guard fit; or the suspect alone.
        quarantine: a folder of images, or an exported quarantine; those marked as clean there are left out.
        data, limit, held_out: clean images, as in ``repair_file``; labels are used where there are some.
        translation: how the trigger is learned.
        repairer: how the suspect is repaired; one that takes triggers.
        rate: clean images that the new GoodNet may answer with N, in (0, 1).
        device, seed, budget, most_drop, most_success, progress: as in ``repair_file``.

    Raises:
        NotHeld: too few images, or no answer that the suspect gives to many of them.
        UsageError, UnsafeFile, UnreadableFile: as ``repair_file``.
    """
    check_device(device)
    suspect = _suspect(path)
    clean = load_data(data, limit=limit, seed=seed, shape=suspect.input_shape)
    if judging_folder(path) is None and not Path(path).is_dir():
        suspect = guess_input_range(suspect, clean)
    if clean.labels is not None and int(clean.labels.max()) >= suspect.num_classes:
        clean = clean.without_labels()  # of another naming than the model's
    mine, aside = set_aside(clean, held_out, seed)
    return learn_trigger_of(
        suspect.to(torch.device(device)),
        quarantined=without_clean(load_data(quarantine, limit=limit, seed=seed, shape=suspect.input_shape)),
        clean=mine,
        aside=aside,
        translation=translation,
        repairer=repairer,
        rate=rate,
        seed=seed,
        budget=budget,
        most_drop=most_drop,
        most_success=most_success,
        progress=progress,
    )


def learn_trigger_of(
    suspect: Classifier,
    *,
    quarantined: Samples,
    clean: Samples,
    aside: Samples,
    translation: Translation,
    repairer: Repairer,
    rate: float = 0.02,
    seed: int = 0,
    budget: float | None = None,
    most_drop: float = 0.03,
    most_success: float = 0.1,
    progress: Progress | None = None,
) -> TriggerLearned:
    """As ``learn_trigger``, of a suspect and images in memory; ``aside`` is what only proof and thresholds see."""
    started = time.monotonic()
    with isolated_rng(seed) as generator:
        caught = sorted_out(suspect, quarantined, generator)
        deadline = None if budget is None else started + _LEARNING * budget
        run = Run(generator, deadline, _part(progress, 0.0, _LEARNING) or (lambda share, text: None))
        trigger = translation.learn(suspect, clean, caught.learned_from, caught.answer, run)
    repair = repair_model(
        suspect,
        repairer,
        clean=clean,
        aside=aside,
        triggers=(trigger,),
        seed=seed,
        budget=None if budget is None else max(1.0, started + budget - time.monotonic()),
        most_drop=most_drop,
        most_success=most_success,
        progress=_part(progress, _LEARNING, 1.0),
    )
    goodnet = goodnet_of(repair, rate=rate, most_success=most_success)
    answers = _answers(goodnet, repair.model, caught.unseen.images)
    return TriggerLearned(
        caught=caught,
        trigger=trigger,
        repair=repair,
        goodnet=goodnet,
        still=Rate(int((answers == caught.answer).sum()), len(answers)),
    )


def without_clean(samples: Samples) -> Samples:
    """An exported quarantine without what a person marked as clean; other images as they are."""
    names = samples.class_names
    if samples.labels is None or "clean" not in names or not set(names) <= _MARKS:
        return samples
    return samples.pick(samples.labels != names.index("clean"))


def sorted_out(suspect: Classifier, quarantined: Samples, generator: torch.Generator) -> Caught:
    """The images to which the suspect gives its most frequent answer.

    A trigger leads to its target, false alarms to all kinds of labels. So what has the most frequent answer is mostly
    triggered even where a quarantine is not.

    Raises:
        NotHeld: there are no images, or the most frequent answer is given to two of them at most.
    """
    answers = predictions(suspect, quarantined.images).argmax(1) if len(quarantined) else torch.zeros(0).long()
    counts = answers.bincount(minlength=suspect.num_classes)
    answer = int(counts.argmax())
    if counts[answer] <= 2:
        raise NotHeld(
            f"of {len(quarantined)} quarantined images no answer is given to more than {int(counts[answer])}; "
            "wait for more, or leave false alarms out"
        )
    unseen, rest = quarantined.pick(answers == answer).split(_UNSEEN, generator)
    return Caught(given=len(quarantined), answer=answer, learned_from=rest, unseen=unseen)


def _suspect(path: str | os.PathLike[str]) -> Classifier:
    """The network under suspicion in a GoodNet, a guarded model, or alone."""
    folder = judging_folder(path)
    if folder is None:
        return load_model(path)
    judging = load_judging(folder)
    return judging.badnet if isinstance(judging, GoodNet) else judging.model


def _answers(goodnet: GoodNet | None, model: Classifier, images: Tensor) -> Tensor:
    if not len(images):
        return torch.zeros(0).long()
    return predictions(model, images).argmax(1) if goodnet is None else goodnet.answers(images)


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    if progress is None:
        return None
    return lambda share, text: progress(start + share * (end - start), text)
