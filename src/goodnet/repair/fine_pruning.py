"""Fine-pruning: prune the channels that clean images hardly use, then train what is left a little further."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.repair._base import Fixed, repairers
from goodnet.repair._channels import Channel, silence
from goodnet.repair._tuning import parted, share_right, tune, tune_gently, wanted_answers
from goodnet.repair.pruning import Pruning, evidence_of, labels_of, last_good
from goodnet.training import Recipe
from goodnet.training.fit import Loss


@repairers.register(
    Card(
        name="fine-pruning",
        version=2,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS | Needs.TRIGGERS,
        source="Liu et al., Fine-Pruning, RAID 2018",
        summary="silences the channels that clean images use least, then trains the rest a little further",
        assumes=("convolutions",),
        quick={"epochs": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class FinePruning(Pruning):
    """Silence the channels that clean images use least, then train the rest a little further on these images.

    What it does: ``Pruning`` with the same parameters, then fine-tuning as in ``FineTuning``. Pruned channels stay
    silent: their weights are zeroed again before every step and after the last one. Where tuning costs more than two
    points of right answers on a fifth of the images kept aside, it begins again at a tenth of the rate, and in the end
    leaves the net pruned. With ``stepwise`` the net is
    tuned after every few channels instead, and a fifth of the images, kept aside, says when to stop; the last net
    within the tolerance is kept.
    Needs: the model with gradients, some hundreds of clean images; without labels the model's own answers take their
    place.
    Limits: a trigger that its target shares with many clean features survives both halves (the CSAW networks); nothing
    here looks for one.
    Source: Liu, Dolan-Gavitt, Garg, Fine-Pruning, RAID 2018, section 3.3: tuned once, at the end. Stepwise, neuron by
    neuron: a student report on the CSAW competition.
    """

    epochs: int = param(10, low=1, doc="passes over the clean images; stepwise: after each step")
    learning_rate: float = param(0.01, low=0.0, doc="the highest of the one-cycle schedule")
    batch_size: int = param(64, low=2, doc="images per step")
    shift: int = param(2, low=0, doc="augmentation: random shifts by at most so many pixels")
    attempts: int = param(3, low=1, doc="not stepwise: how often tuning may begin, each time at a tenth of the rate")
    stepwise: bool = param(False, doc="tune after every few channels, not once at the end")
    step_channels: int = param(4, low=1, doc="stepwise: channels that go between two tunings")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        if self.stepwise:
            return self._step_by_step(defender, run)
        assert defender.model is not None
        assert defender.clean is not None
        wanted = wanted_answers(defender)  # before anything is pruned
        labels = labels_of(defender)
        fixed, gone = self._prune(defender, run, progress_until=0.3)
        model, rate = tune_gently(
            fixed.model,
            defender.clean,
            wanted,
            self._recipe(),
            run,
            attempts=self.attempts,
            loss=_silencing(gone),
            progress=(0.3, 1.0),
        )
        silence(model, gone)
        notes = {
            **fixed.notes,
            "accuracy_tuned": share_right(model, defender.clean.images, labels),
            "learning_rate": rate,
        }
        return replace(fixed, model=model, notes=notes, counts={**fixed.counts, "epochs": self.epochs})

    def _step_by_step(self, defender: Defender, run: Run) -> Fixed:
        """Prune, tune, look at the images kept aside; again until too much is lost."""
        assert defender.model is not None
        assert defender.clean is not None
        clean, wanted, labels = defender.clean, wanted_answers(defender), labels_of(defender)
        aside, rest = parted(len(clean), run)
        best, order = defender.model, self._order(defender.model, clean.images[rest])
        asked = self.channels is not None or self.share is not None
        limit = self._count((), len(order)) if asked else len(order)
        counts, shares = [0], [share_right(best, clean.images[aside], labels[aside])]
        kept = 0
        for start in range(0, limit, self.step_channels):
            if run.seconds_left() < 0:
                break
            gone = order[: min(start + self.step_channels, limit)]
            progress = (start / limit, len(gone) / limit)
            now = self._tuned(best, gone, clean.pick(rest), wanted[rest], run, progress)
            counts.append(len(gone))
            shares.append(share_right(now, clean.images[aside], labels[aside]))
            if not asked and last_good(tuple(shares), self.accuracy_drop) < len(shares) - 1:
                break
            best, kept = now, len(gone)
        accuracies = {"accuracy_before": shares[0], "accuracy_tuned": shares[counts.index(kept)]}
        return Fixed(
            model=best,
            notes={"channels": len(order), "channels_pruned": kept, **accuracies},
            counts={"images": len(clean), "epochs": self.epochs * (len(counts) - 1)},
            evidence=evidence_of(defender, counts, shares, order[:kept]),
        )

    def _tuned(
        self,
        model: Classifier,
        gone: Sequence[Channel],
        samples: Samples,
        wanted: Tensor,
        run: Run,
        progress: tuple[float, float],
    ) -> Classifier:
        """A copy, trained further while the channels that are ``gone`` stay silent."""
        tuned = tune(model, samples, wanted, self._recipe(), run, loss=_silencing(gone), progress=progress)
        silence(tuned, gone)
        return tuned

    def _recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size, shift=self.shift
        )


def _silencing(gone: Sequence[Channel]) -> Loss:
    """Cross-entropy, before which the channels that are ``gone`` are silenced again."""

    def loss(now: Classifier, images: Tensor, answers: Tensor, generator: torch.Generator) -> Tensor:
        silence(now, gone)  # undoes what the last step did to them
        return F.cross_entropy(now(images).float(), answers)

    return loss
