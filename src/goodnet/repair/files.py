"""repair_file: from a model file and a folder of clean images to a repaired model with proof, or the old one back."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from goodnet.audit._base import Verdict, auditors
from goodnet.audit.files import check_device
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.data.load import load_data
from goodnet.errors import NotHeld
from goodnet.models.input_range import guess_input_range
from goodnet.models.load import load_model
from goodnet.repair._base import Repaired, Repairer
from goodnet.repair.proof import Proof, prove

_AUDIT_SHARE = 0.5  # of the budget


@dataclass(frozen=True, kw_only=True)
class FileRepair:
    """What came of one model file.

    Attributes:
        suspect: the model as it was.
        verdict: of the audit that gave the triggers; None where the method needs none.
        repaired: the repairer's answer; None when there was nothing to repair.
        proof: on images that neither the audit nor the repairer saw; None when there was nothing to repair.
        accepted: whether the repaired model may take the suspect's place.
        reason: why, or why not, in a sentence for a person.
    """

    suspect: Classifier
    verdict: Verdict | None
    repaired: Repaired | None
    proof: Proof | None
    accepted: bool
    reason: str

    @property
    def model(self) -> Classifier:
        """The repaired model where it was accepted, else the suspect."""
        return self.repaired.model if self.accepted and self.repaired is not None else self.suspect


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
        targets: labels to repair whatever the audit says of them; empty takes those that the audit flags.
        arch, input_range, device: as in ``audit_file``.
        seed: of all of it.
        budget: seconds for audit and repair together; None for no limit.
        held_out: share of the images that only the proof sees.
        most_drop, most_success: what the proof accepts.
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
    cut = round(len(samples) * (1 - held_out))
    mine, aside = _split(samples, cut, seed)
    defender, verdict = Defender(model=model, clean=mine), None
    if Needs.TRIGGERS in repairer.card.needs:
        verdict = auditors["neural-cleanse"]().run(
            defender, seed=seed, budget=None if budget is None else budget * _AUDIT_SHARE, progress=_part(progress, 0)
        )
        triggers = _triggers(verdict, targets)
        if not triggers:
            return FileRepair(
                suspect=model,
                verdict=verdict,
                repaired=None,
                proof=None,
                accepted=False,
                reason=f"the audit names no label to repair ({verdict.reason}); --target names one all the same",
            )
        defender = replace(defender, triggers=triggers)
        if budget is not None:
            budget = max(1.0, budget - verdict.provenance.seconds)
    repaired = repairer.run(defender, seed=seed, budget=budget, progress=_part(progress, 1))
    proof = prove(model, repaired.model, aside, defender.triggers or ())
    accepted = proof.accepts(most_drop=most_drop, most_success=most_success) and not repaired.notes.get("reverted")
    return FileRepair(
        suspect=model,
        verdict=verdict,
        repaired=repaired,
        proof=proof,
        accepted=accepted,
        reason=_reason(proof, accepted, most_drop, most_success),
    )


def _split(samples: Samples, cut: int, seed: int) -> tuple[Samples, Samples]:
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    if not 0 < cut < len(samples):
        raise NotHeld(f"{len(samples)} clean images are too few to repair a model and prove it; give some hundreds")
    return samples.pick(order[:cut]), samples.pick(order[cut:])


def _triggers(verdict: Verdict, targets: tuple[int, ...]) -> tuple[Trigger, ...]:
    """The triggers of the named labels where there are such, else of the flagged ones."""
    wanted = targets or verdict.targets
    return tuple(trigger for trigger in verdict.triggers if trigger.target in wanted)


def _part(progress: Progress | None, half: int) -> Progress | None:
    if progress is None:
        return None
    return lambda share, text: progress((half + share) / 2, text)


def _reason(proof: Proof, accepted: bool, most_drop: float, most_success: float) -> str:
    kept = "accuracy" if proof.labeled else "agreement with the old model"
    left = (
        f"reconstructed triggers still work on {proof.success:.1%} at most"
        if proof.triggers
        else "no trigger was reconstructed, so that nothing is proved about a backdoor"
    )
    told = f"on {proof.count} images kept aside {kept} falls by {proof.drop:.1%}, and {left}"
    if accepted:
        return told
    return f"{told}: not good enough (at most {most_drop:.0%} and {most_success:.0%}), so the old model stays"
