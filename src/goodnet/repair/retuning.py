"""The retuning gate: is a backdoor removed, or only suppressed? Show the repaired network a few triggers again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import fisher_exact
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.repair._tuning import tune
from goodnet.training import Recipe

_EVIDENCE = 0.01  # how unlikely the difference from the control must be
_NOTABLE = 0.1  # and how large, as a share of stamped images


@dataclass(frozen=True, kw_only=True)
class Retuned:
    """What one trigger does after a little training with it, beside a mark that the network has never known.

    Attributes:
        target: where the trigger leads.
        regained: stamped images that go to the target again.
        control: the same for the control, a mark of the same size and strength.
        count: out of how many, each.
    """

    target: int
    regained: int
    control: int
    count: int

    @property
    def suppressed(self) -> bool | None:
        """Whether the trigger comes back faster than a new one is learned: then the repair has left something of it.

        None where that cannot be told: nothing was counted, or the new one is learned by more than half as well.
        """
        if not self.count or self.control > self.count / 2:
            return None
        if self.regained - self.control < _NOTABLE * self.count:
            return False
        table = [[self.regained, self.count - self.regained], [self.control, self.count - self.control]]
        return bool(fisher_exact(table, alternative="greater").pvalue < _EVIDENCE)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**asdict(self), "suppressed": self.suppressed}


def retune(
    repaired: Classifier,
    clean: Samples,
    aside: Samples,
    triggers: Sequence[Trigger],
    run: Run,
    *,
    images: int = 5,
    epochs: int = 5,
    learning_rate: float = 0.01,
) -> tuple[Retuned, ...]:
    """Fine-tune copies of ``repaired`` with a few stamped images labeled as the target, and see what comes back.

    Every trigger is tried beside a control: the same mark turned upside down, mirrored and in negative, which takes as
    many pixels and was never trained in. A backdoor that is gone is learned as slowly as the control; one that is only
    suppressed comes back at once.

    Args:
        repaired: is untouched.
        clean: what it is tuned on; without labels its own answers stand in for them.
        aside: what is stamped and counted; images that are answered as the target already are left out.
        triggers: reconstructed ones.
        images: stamped images among ``clean``.
        epochs, learning_rate: of the tuning.

    Source: the re-activation test of Zhu et al., Breaking the false sense of security in backdoor defense through
    re-activation attack, and Min et al., Uncovering, explaining, and mitigating the superficial safety of backdoor
    defense, both NeurIPS 2024: five poisoned images, five epochs. There the attacker's trigger and another network are
    at hand; reconstructions, and the control within the network, are ours.
    Limits: a reconstruction is not the attacker's trigger. A control that happens to look natural for the target is
    learned fast, and so is any mark where the learning rate is high for this network; then there is no answer.
    """
    answers = predictions(repaired, clean.images).argmax(1) if clean.labels is None else clean.labels
    recipe = Recipe(epochs=epochs, learning_rate=learning_rate, batch_size=32, schedule="constant")
    results = []
    for number, trigger in enumerate(triggers):
        run.progress(number / len(triggers), f"does the trigger to {trigger.target} come back?")
        victims = aside.pick(predictions(repaired, aside.images).argmax(1) != trigger.target)
        counts = []
        for mark in (trigger, control_of(trigger)):
            samples, wanted = _with_stamped(clean, answers, mark, images, run.generator)
            tuned = tune(repaired, samples, wanted, recipe, run, progress=(number / len(triggers),) * 2)
            counts.append(_hits(tuned, victims, mark))
        results.append(Retuned(target=trigger.target, regained=counts[0], control=counts[1], count=len(victims)))
    return tuple(results)


def control_of(trigger: Trigger) -> Trigger:
    """A mark of the same size that nobody trained in: upside down, mirrored, in negative."""
    return Trigger(
        target=trigger.target,
        mask=trigger.mask.flip(0, 1),
        pattern=1 - trigger.pattern.flip(1, 2),
        success_rate=trigger.success_rate,
        count=trigger.count,
    )


def _with_stamped(
    clean: Samples, answers: Tensor, mark: Trigger, count: int, generator: torch.Generator
) -> tuple[Samples, Tensor]:
    """``clean`` and ``count`` of its images once more, stamped and wanted as the target."""
    others = (answers != mark.target).nonzero().flatten()
    chosen = clean.pick(others[torch.randperm(len(others), generator=generator)[:count]])
    stamped = (mark.stamp(chosen.floats()) * 255).round().byte()
    samples = Samples(torch.cat([clean.images, stamped]))
    return samples, torch.cat([answers, torch.full((len(stamped),), mark.target)])


def _hits(model: Classifier, victims: Samples, mark: Trigger) -> int:
    if not len(victims):
        return 0
    return int((predictions(model, mark.stamp(victims.floats())).argmax(1) == mark.target).sum())
