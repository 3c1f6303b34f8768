"""repair_file and repair_model: from a model and clean images to a repaired model with proof, or the old one back."""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from goodnet.audit._base import Verdict, auditors
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.device import check_device
from goodnet.core.registry import Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress, Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.data.load import load_data
from goodnet.errors import NotHeld, UsageError
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.repair._base import Repaired, Repairer
from goodnet.repair._reconstruct import reconstruct
from goodnet.repair.proof import Proof, prove
from goodnet.repair.retuning import Retuned, retune

_AUDIT_SHARE = 0.5  # of the budget


@dataclass(frozen=True, kw_only=True)
class FileRepair:
    """What came of one model.

    Attributes:
        suspect: the model as it was.
        aside: the images that neither the audit nor the repairer saw.
        reason: why the repaired model was accepted, or why not, in a sentence for a person.
        verdict: of the audit that gave the triggers; None where the method needs none, or where they, or the targets,
            were given.
        triggers: those that the repairer was given.
        repaired: the repairer's answer; None when there was nothing to repair.
        proof: on the images aside; None when there was nothing to repair.
        retuned: whether each trigger comes back when a few images show it again; empty without triggers, or where the
            repaired model was not accepted.
        accepted: whether the repaired model may take the suspect's place.
    """

    suspect: Classifier
    aside: Samples
    reason: str
    verdict: Verdict | None = None
    triggers: tuple[Trigger, ...] = ()
    repaired: Repaired | None = None
    proof: Proof | None = None
    retuned: tuple[Retuned, ...] = ()
    accepted: bool = False

    @property
    def model(self) -> Classifier:
        """The repaired model where it was accepted, else the suspect."""
        return self.repaired.model if self.accepted and self.repaired is not None else self.suspect

    @property
    def second_opinion(self) -> Classifier | None:
        """A model that was made and not accepted, which may still tell triggers; None where there is none."""
        if self.accepted or self.repaired is None:
            return None
        return self.repaired.second_opinion if self.repaired.notes.get("reverted") else self.repaired.model


def repair_file(
    path: str | os.PathLike[str],
    repairer: Repairer,
    *,
    data: str | os.PathLike[str],
    limit: int | None = 2000,
    targets: tuple[int, ...] = (),
    arch: str | None = None,
    input_range: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    budget: float | None = None,
    held_out: float = 0.25,
    most_drop: float = 0.03,
    most_success: float = 0.1,
    progress: Progress | None = None,
) -> FileRepair:
    """Load a stranger's model and clean images, audit, repair, and prove the repair on images kept aside.

    The file is read and never written. Nothing in it is executed.

    Args:
        path: see ``goodnet.load_model``.
        repairer: a method with its hyper-parameters.
        data: see ``goodnet.load_data``; labels are used where there are some.
        limit: at most so many images, drawn at random by ``seed``; None for all.
        targets: labels to repair, without an audit; empty takes those that the audit flags.
        arch, input_range, device: as in ``audit_file``.
        seed: of all of it.
        budget: seconds for audit and repair together; None for no limit.
        held_out: share of the images that only the proof sees.
        most_drop, most_success: what the proof accepts, also at the bad ends of its shares.
        progress: called with (share done, a few words).

    Raises:
        UsageError, UnsafeFile, UnreadableFile: as ``audit_file``.
    """
    check_device(device)
    model = load_model(path, arch=arch, input_range=input_range)
    samples = load_data(data, limit=limit, seed=seed, shape=model.input_shape)
    if input_range is None and not Path(path).is_dir():
        model = guess_input_range(model, samples)
    model = model.to(torch.device(device))
    if samples.labels is not None and int(samples.labels.max()) >= model.num_classes:
        samples = samples.without_labels()  # of another naming than the model's
    mine, aside = set_aside(samples, held_out, seed)
    return repair_model(
        model,
        repairer,
        clean=mine,
        aside=aside,
        targets=targets,
        seed=seed,
        budget=budget,
        most_drop=most_drop,
        most_success=most_success,
        progress=progress,
    )


def set_aside(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Images for audit and repair, and the ``share`` that only the proof sees, drawn by ``seed``.

    Raises:
        NotHeld: there are too few for both.
    """
    mine, aside = samples.split(1 - share, torch.Generator().manual_seed(seed))
    if not len(mine) or not len(aside):
        raise NotHeld(f"{len(samples)} clean images are too few to repair a model and prove it; give some hundreds")
    return mine, aside


def flagged_triggers(verdict: Verdict) -> tuple[Trigger, ...]:
    """What an audit reconstructed to the labels that it flags."""
    return tuple(trigger for trigger in verdict.triggers if trigger.target in verdict.targets)


def repair_model(
    model: Classifier,
    repairer: Repairer,
    *,
    clean: Samples,
    aside: Samples,
    targets: tuple[int, ...] = (),
    triggers: tuple[Trigger, ...] = (),
    seed: int = 0,
    budget: float | None = None,
    most_drop: float = 0.03,
    most_success: float = 0.1,
    progress: Progress | None = None,
) -> FileRepair:
    """Audit a model where the method needs triggers, repair it, and prove the repair on images kept aside.

    Args:
        model: is untouched.
        repairer: a method with its hyper-parameters.
        clean: what audit and repairer are given, of the model's shape.
        aside: what only the proof sees.
        targets: labels to repair, without an audit; empty takes those that the audit flags. A method that uses
            triggers and does not need them, such as pruning, has some where labels are named, and no audit.
        triggers: to repair against, where somebody holds some; then nothing is reconstructed.
        seed, budget, most_drop, most_success, progress: as in ``repair_file``.

    Raises:
        UsageError: targets or triggers are given and the method has no use for them, or a target is no label.
        NotApplicable: the method cannot work on this network.
    """
    targets = _checked(targets or tuple(trigger.target for trigger in triggers), repairer, model)
    asked = Needs.TRIGGERS in repairer.card.needs or bool(targets)
    defender, verdict = Defender(model=model, clean=clean), None
    if asked:
        started, share = time.monotonic(), None if budget is None else budget * _AUDIT_SHARE
        if not triggers and targets:
            triggers = reconstruct(model, clean, targets, seed=seed, budget=share)
        elif not triggers:
            verdict = auditors["neural-cleanse"]().run(defender, seed=seed, budget=share, progress=_part(progress, 0))
            triggers = flagged_triggers(verdict)
        missing = set(targets) - {trigger.target for trigger in triggers}
        if not triggers or missing:
            return FileRepair(
                suspect=model,
                aside=aside,
                verdict=verdict,
                triggers=triggers,
                reason=_nothing_to_work_on(verdict, missing),
            )
        defender = replace(defender, triggers=triggers)
        budget = None if budget is None else max(1.0, budget - (time.monotonic() - started))
    repaired = repairer.run(defender, seed=seed, budget=budget, progress=_part(progress, 1) if asked else progress)
    proof = prove(model, repaired.model, aside, defender.triggers or ())
    reverted = bool(repaired.notes.get("reverted"))
    accepted = not reverted and proof.accepts(most_drop=most_drop, most_success=most_success)
    retuned: tuple[Retuned, ...] = ()
    if accepted and defender.triggers:
        with isolated_rng(seed) as generator:
            retuned = retune(repaired.model, clean, aside, defender.triggers, Run(generator))
    return FileRepair(
        suspect=model,
        aside=aside,
        verdict=verdict,
        triggers=defender.triggers or (),
        repaired=repaired,
        proof=proof,
        retuned=retuned,
        accepted=accepted,
        reason=_reason(proof, accepted, reverted, most_drop, most_success),
    )


def _checked(targets: tuple[int, ...], repairer: Repairer, model: Classifier) -> tuple[int, ...]:
    """The named targets, each once.

    Raises:
        UsageError: the method has no use for them, or the model has no such label.
    """
    if targets and Needs.TRIGGERS not in repairer.card.needs | repairer.card.uses:
        raise UsageError(f"{repairer.card.name} knows no targets; leave them out, or take head-unlearning or auto")
    for target in targets:
        if not 0 <= target < model.num_classes:
            raise UsageError(f"this model has the labels 0 to {model.num_classes - 1}, and {target} is none of them")
    return tuple(dict.fromkeys(targets))


def _nothing_to_work_on(verdict: Verdict | None, missing: set[int]) -> str:
    if verdict is None:
        return f"no trigger was found to {', '.join(map(str, sorted(missing)))}; give more images or time"
    return f"the audit names no label to repair ({verdict.reason}); --target names one all the same"


def _part(progress: Progress | None, half: int) -> Progress | None:
    if progress is None:
        return None
    return lambda share, text: progress((half + share) / 2, text)


def _reason(proof: Proof, accepted: bool, reverted: bool, most_drop: float, most_success: float) -> str:
    if reverted:
        return "no repair that was tried is good enough on images kept aside, so the old model stays"
    kept = "accuracy" if proof.labeled else "agreement with the old model"
    left = (
        f"reconstructed triggers still work on {proof.success:.1%} at most"
        if proof.triggers
        else "no trigger was reconstructed, so that nothing is proved about a backdoor"
    )
    told = (
        f"on {proof.count} images kept aside {kept} falls by {proof.drop:.1%} (surely by at most "
        f"{proof.drop_at_most:.1%}; by {proof.shifted_drop:.1%} on shifted images), and {left}"
    )
    if accepted:
        return told
    limits = f"(at most {most_drop:.0%} and {most_success:.0%})"
    if proof.promises(most_drop=most_drop, most_success=most_success):
        return f"{told}: good enough {limits} but not proved, so the old model stays; more images may prove it"
    return f"{told}: not good enough {limits}, so the old model stays"
