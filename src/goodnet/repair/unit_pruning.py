"""NC pruning: silence the penultimate units that a reconstructed trigger drives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import wanted_answers

ROUNDING = 1e-6  # 0.95 - 0.03 is a little more than 0.92 in binary


@repairers.register(
    Card(
        name="nc-pruning",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN | Needs.TRIGGERS,
        uses=Needs.CLEAN_LABELS,
        source="Wang et al., Neural Cleanse, IEEE S&P 2019, section VI.C",
        summary="prunes the units before the head that reconstructed triggers drive the most",
        assumes=("a linear head", "reconstructed triggers work like the attacker's"),
    )
)
@dataclass(frozen=True, kw_only=True)
class UnitPruning(Repairer):
    """Cut the units before the head off, those first that the reconstructed triggers drive the most.

    What it does: units are ranked by how much more active they are with a trigger than without it, on the same images;
    of several triggers the largest gap counts. Their columns of the head become 0, one after the other, until every
    trigger's success on the defender's images is at most ``success``. It ends before the share of images that are
    answered right has fallen by more than ``tolerance``, and when no unit is left that a trigger drives.
    Needs: the model, triggers from an audit, clean images; without labels the suspect's own answers take their place.
    Limits: only for networks with a linear head; where benign and backdoor units are the same, accuracy is the price
    (the paper: 5 points on GTSRB, 16 on YouTube faces).
    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, section VI.C.
    """

    success: float = param(0.01, low=0.0, high=1.0, doc="success of the triggers at which pruning ends")
    tolerance: float = param(0.03, low=0.0, high=1.0, doc="how much accuracy on the clean images it may cost")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        model, clean, triggers = defender.model, defender.clean, defender.triggers
        assert model is not None
        assert clean is not None
        assert triggers is not None
        head = model.head()
        if head is None:
            raise NotApplicable("nc-pruning cuts units before a linear head, and this network does not end in one")
        wanted = wanted_answers(defender)
        answers = wanted if wanted.ndim == 1 else wanted.argmax(1)
        features, stamped, gaps = _features(model, clean), list[Tensor](), list[Tensor]()
        for place, trigger in enumerate(triggers, start=1):
            victims = answers != trigger.target  # the target's own images are right with the trigger as well
            stamped.append(_features(model, clean, trigger)[victims])
            gaps.append((stamped[-1] - features[victims]).sum(0) / max(int(victims.sum()), 1))
            run.progress(0.9 * place / len(triggers), f"trigger {place} of {len(triggers)}")
        weight, bias = head.weight.detach().cpu(), None if head.bias is None else head.bias.detach().cpu()
        clean_logits = _Logits(features, weight, bias)
        stamped_logits = [_Logits(one, weight, bias) for one in stamped]
        targets = [torch.tensor(trigger.target) for trigger in triggers]

        def accuracy() -> float:
            return clean_logits.answered(answers)

        def success() -> float:
            return max(one.answered(target) for one, target in zip(stamped_logits, targets, strict=True))

        before = {"accuracy_before": accuracy(), "trigger_success_before": success()}
        pruned = self._prune([clean_logits, *stamped_logits], torch.stack(gaps).amax(0), accuracy, success, run)
        with torch.no_grad():
            head.weight[:, pruned] = 0
        after = {"accuracy_after": accuracy(), "trigger_success_after": success()}
        return Fixed(
            model=model,
            notes={"units_pruned": float(len(pruned)), **before, **after},
            counts={"images": len(clean), "triggers": len(triggers), "units": features.shape[1]},
            evidence={"pruned": pruned},
        )

    def _prune(
        self,
        logits: list["_Logits"],
        gaps: Tensor,
        accuracy: Callable[[], float],
        success: Callable[[], float],
        run: Run,
    ) -> list[int]:
        """The units that are cut, by falling gap; ``logits`` are left as they are without these."""
        lowest, pruned = accuracy() - self.tolerance - ROUNDING, list[int]()
        for unit in gaps.argsort(descending=True, stable=True).tolist():
            if success() <= self.success or gaps[unit] <= 0 or run.seconds_left() < 0:
                break
            for one in logits:
                one.add(unit, -1)
            if accuracy() < lowest:
                for one in logits:
                    one.add(unit, 1)
                break
            pruned.append(unit)
        run.progress(1.0, f"{len(pruned)} units cut, the triggers' success is {success():.3f}")
        return pruned


class _Logits:
    """Logits (N, K) of fixed features (N, D), of which units are taken away: one column of the head, not all of it."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor | None):
        self._features, self._weight = features, weight
        self._logits = F.linear(features, weight, bias)

    def add(self, unit: int, sign: int) -> None:
        """Put a unit back (1) or take it away (-1)."""
        self._logits += sign * self._features[:, unit, None] * self._weight[:, unit]

    def answered(self, labels: Tensor) -> float:
        """Share that is answered with these labels (N,), or with this one; 0 of nothing."""
        return float((self._logits.argmax(1) == labels).float().mean()) if len(self._logits) else 0.0


@torch.no_grad()
def _features(model: Classifier, samples: Samples, trigger: Trigger | None = None) -> Tensor:
    """What the head is given for the images, stamped with ``trigger``: float32 (N, D), on the CPU."""
    parts = list[Tensor]()
    for images, _ in samples.batches(256, model.device):
        features, _ = model.features_and_logits(images if trigger is None else trigger.stamp(images))
        if features.ndim != 2:
            raise NotApplicable(f"nc-pruning cuts units before a head that is given (N, D), not {features.ndim} axes")
        parts.append(features.float().cpu())
    return torch.cat(parts)
