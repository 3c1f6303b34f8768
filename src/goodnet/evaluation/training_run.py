"""train_run: a net trained as a plan says, clean or backdoored, measured, and kept with how it came about."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from goodnet.attacks import Attack, save_attack
from goodnet.core.classifier import Classifier
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.run import Progress, library_versions
from goodnet.core.samples import Samples
from goodnet.core.whole_folder import require_own, whole_folder
from goodnet.data.load import load_data
from goodnet.errors import NotHeld, UnreadableFile, UsageError
from goodnet.evaluation.evaluate import Outcome, measure
from goodnet.evaluation.files import load_test
from goodnet.evaluation.plan import Plan
from goodnet.models.save import save_model
from goodnet.models.untrained import untrained
from goodnet.training import fit

_RECORD, _UNFINISHED = "training.json", "unfinished"
_CONTENTS = ("model", "attack", _RECORD, _UNFINISHED)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A trained net and what is known about it.

    Attributes:
        model: in eval mode, on the device that the plan names.
        attack: with whatever trigger it has learned; None after clean training.
        outcome: accuracy and attack success on the test images; None where there were none.
        record: how it came about, JSON values, as in ``training.json``.
    """

    model: Classifier
    attack: Attack | None
    outcome: Outcome | None
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """A model, its attack, and how many images were stamped: None where others were in each epoch."""

    model: Classifier
    attack: Attack | None
    poisoned: int | None
    covers: int | None


def train_run(plan: Plan, *, resume: bool = False, progress: Progress | None = None) -> TrainingRun:
    """Train a net as ``plan`` says, measure it, and write ``model/``, ``attack/`` and ``training.json`` to its folder.

    The folder appears complete or not at all, except for ``unfinished/``, in which a checkpoint is kept while a net
    trains on a set that is clean or was poisoned beforehand. See ``runs_training`` for the others.

    Args:
        plan: see there.
        resume: go on where a run of the same plan was interrupted; its weights become those of a run that was not.
        progress: called with (share done, a few words).

    Raises:
        UsageError: the plan is wrong, its folder holds something else or an unfinished run, or there is nothing to
            resume.
        UnsafeFile, UnreadableFile: data or attack cannot be read.
    """
    out, attack, planned = Path(plan.out), plan.made_attack(), plan.written_out()
    require_own(out, _CONTENTS, marks=(_RECORD, _UNFINISHED))
    _check_resume(plan, attack, resume)
    check_device(plan.device)
    train = load_data(plan.data, limit=plan.limit, seed=plan.seed)
    if train.labels is None:
        raise NotHeld(f"{plan.data} has no labels, and a network is trained on labeled images")
    net = untrained(plan.arch, train, plan.seed).to(torch.device(plan.device))
    test = _test(plan, train)
    started = time.monotonic()
    trained = _train(plan, net, train, attack, progress)
    seconds = time.monotonic() - started
    outcome = None if test is None else measure(trained.model, test, trained.attack)
    record = {
        "schema": 1,
        "plan": planned,
        "images": len(train),
        "classes": net.num_classes,
        "poisoned_images": trained.poisoned,
        "cover_images": trained.covers,
        "test_images": 0 if test is None else len(test),
        "seconds": round(seconds, 3),
        "resumed": resume,
        "measured": None if outcome is None else outcome.as_json(),
        "versions": library_versions(),
    }
    with whole_folder(out) as folder:
        save_model(trained.model, folder / "model")
        if trained.attack is not None:
            save_attack(trained.attack, folder / "attack")
        (folder / _RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return TrainingRun(model=trained.model, attack=trained.attack, outcome=outcome, record=record)


def runs_training(attack: Attack) -> bool:
    """Whether the attacker runs the training himself, in which case no checkpoint is kept and nothing can be resumed.

    All others only poison the set, once, before the training begins.
    """
    return Needs.TRAINING in attack.card.needs


def checkpoint_of(plan: Plan) -> Path:
    """The file that an unfinished run of ``plan`` leaves after its first epoch."""
    return Path(plan.out) / _UNFINISHED / "checkpoint.pt"


def _train(plan: Plan, net: Classifier, train: Samples, attack: Attack | None, progress: Progress | None) -> _Trained:
    recipe = plan.made_recipe()
    if attack is not None and runs_training(attack):
        made = attack.train(net, train, recipe, seed=plan.seed, progress=progress)
        return _Trained(model=made.model, attack=made.attack, poisoned=None, covers=None)
    poisoned = covers = 0
    if attack is not None:  # what Attack.train does, with a checkpoint
        given = attack.poison(train, seed=plan.seed)
        attack, train = given.attack, given.samples
        poisoned, covers = int(given.mask.sum()), int(given.covers.sum())
    checkpoint = checkpoint_of(plan)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    _planned(checkpoint).write_text(json.dumps(plan.written_out(), indent=1) + "\n")
    model = fit(net, train, recipe, seed=plan.seed, checkpoint=checkpoint, progress=progress)
    return _Trained(model=model, attack=attack, poisoned=poisoned, covers=covers)


def _check_resume(plan: Plan, attack: Attack | None, resume: bool) -> None:
    """Raise UsageError unless what lies in the plan's folder and what is asked for go together."""
    checkpoint = checkpoint_of(plan)
    if resume and attack is not None and runs_training(attack):
        raise UsageError(
            f"{attack.card.name} runs the training itself and keeps no checkpoint to go on from; start without resume"
        )
    if resume and not checkpoint.exists():
        raise UsageError(f"there is no unfinished run in {plan.out} to go on with; start without resume")
    if checkpoint.exists() and not resume:
        raise UsageError(
            f"{plan.out} holds an unfinished run: go on with it (resume=True, --resume), or remove {checkpoint.parent}"
        )
    if resume:
        try:
            before = json.loads(_planned(checkpoint).read_text())
        except (OSError, ValueError) as error:
            raise UnreadableFile(f"{_planned(checkpoint)} is damaged ({error}); remove {checkpoint.parent}") from None
        changed = [name for name, value in plan.written_out().items() if before.get(name) != value]
        if changed:
            raise UsageError(
                f"the unfinished run in {plan.out} was planned with another {', '.join(changed)}: "
                "go on with the same, or give another folder"
            )


def _planned(checkpoint: Path) -> Path:
    """Where the plan of an unfinished run is."""
    return checkpoint.with_name("plan.json")


def _test(plan: Plan, train: Samples) -> Samples | None:
    """The images to measure on, if there are any."""
    if plan.test is not None:
        return load_test(plan.test, shape=train.shape)
    try:
        test = load_data(plan.data, split="test", shape=train.shape)
    except UsageError:  # the set has no such split
        return None
    return None if test.labels is None else test
