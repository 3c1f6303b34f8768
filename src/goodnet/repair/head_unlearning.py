"""Head unlearning: only the target's row of the last layer learns that a trigger is no reason to answer it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goodnet.audit._inversion import Inverter, TriggerBatch, start
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import wanted_answers

_GRIDS = (1, 4)  # pixels per side of a mask's grid cell: small triggers and large smooth ones
_PENALTY = 3e-4  # on a pixel of mask: low, since large triggers are as welcome as small ones
_STAMPED = 200  # images under every trigger


@repairers.register(
    Card(
        name="head-unlearning",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN | Needs.TRIGGERS,
        uses=Needs.CLEAN_LABELS,
        source="goodnet; triggers found afresh as in Wang et al., Neural Cleanse, IEEE S&P 2019",
        summary="refits the target's row of the last layer against triggers that are found afresh on each new model",
        assumes=("the network ends in a linear layer", "triggered images differ from the target's own in its features"),
        quick={"rounds": 1, "steps": 2, "starts": 2},
    )
)
@dataclass(frozen=True, kw_only=True)
class HeadUnlearning(Repairer):
    """Refit the target labels' rows of the last layer; every other logit stays as it is, to the bit.

    What it does: inverts several triggers to each target on the present model, from grey masks and from random solid
    patches; the features of clean images under all triggers found so far, and of clean images without, are two classes
    of a logistic regression whose offset are the other labels' logits, and whose solution is the target's new row.
    Then triggers are inverted against the new model, and so on. Convex, a matter of seconds, and harmless by
    construction to all other labels: an answer can only change to or from a target.
    Needs: the model, its gradients to the input, clean images, and the targets of the triggers that an audit found.
    Limits: the backdoor's features stay in the network, so that it is suppressed and not removed, and triggered images
    seldom get their true label back; what the target's own images share with triggered ones is lost with them.
    Source: ours. It uses that poisoned and clean images of a target are apart in the penultimate features (Tran et al.,
    Spectral Signatures, NeurIPS 2018).
    """

    rounds: int = param(3, low=1, doc="times that triggers are found afresh and the row is refitted")
    starts: int = param(6, low=1, doc="triggers to each target and grid in a round")
    steps: int = param(40, low=1, doc="updates of a trigger")
    weight: float = param(0.3, low=0.0, doc="of all stamped images together, where all clean ones weigh 1")
    anchor: float = param(1e-3, low=0.0, doc="weight of the row's change, as a share of its length, squared")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        head = model.head()
        if head is None:
            raise NotApplicable("head-unlearning needs a network that ends in a linear layer; try unlearning")
        answers = wanted_answers(defender)
        labels = answers if answers.ndim == 1 else answers.argmax(1)
        images, targets = clean.floats(model.device), sorted({trigger.target for trigger in defender.triggers or ()})
        model.requires_grad_(False)
        bare = _features(model, images)
        stamped: dict[int, list[Tensor]] = {target: [] for target in targets}
        original = {target: head.weight[target].clone() for target in targets}
        for trigger in defender.triggers or ():
            chosen = images[torch.randperm(len(images), generator=run.generator)[:_STAMPED]]
            stamped[trigger.target].append(_features(model, trigger.stamp(chosen)))
        rounds = 0
        for rounds in range(1, self.rounds + 1):  # noqa: B007 - how many were made is told
            run.progress((rounds - 1) / self.rounds, f"round {rounds} of {self.rounds}")
            self._find_triggers(model, images, targets, stamped, run)
            for target in targets:
                own = labels.to(bare.device) == target
                _refit(head, target, bare, own, stamped[target], original[target], self.weight, self.anchor)
            if run.seconds_left() < 0:
                break
        return Fixed(
            model=model,
            notes={"targets": float(len(targets))},
            counts={"images": len(images), "rounds": rounds, "triggers": sum(map(len, stamped.values()))},
            evidence={"targets": targets},
        )

    def _find_triggers(
        self, model: Classifier, images: Tensor, targets: list[int], stamped: dict[int, list[Tensor]], run: Run
    ) -> None:
        """Triggers that reach the targets on the present model; what images look like under them joins ``stamped``."""
        for cell in _GRIDS:
            inverter = Inverter(
                model,
                images,
                run.generator,
                success_wanted=0.9,
                mixed_precision=False,
                out_of_time=lambda: run.seconds_left() < 0,
            )
            batch = self._starts(model, targets, cell, run)
            inverter.round(batch, steps=self.steps, images=16, penalty=_PENALTY, adapt=True)
            masks, patterns = inverter.triggers(batch.mask, batch.pattern)
            for row, target in enumerate(batch.labels.tolist()):
                chosen = images[torch.randperm(len(images), generator=run.generator)[:_STAMPED]]
                for mask, pattern in (
                    (masks[row], patterns[row]),
                    (batch.best_mask[row], batch.best_pattern[row]),  # the smallest that worked
                ):
                    stamped[target].append(_features(model, chosen + mask * (pattern - chosen)))

    def _starts(self, model: Classifier, targets: list[int], cell: int, run: Run) -> TriggerBatch:
        """For each target grey masks over the whole image, and random solid patches."""
        channels, height, width = model.input_shape
        masks, patterns = [], []
        for number in range(len(targets) * self.starts):
            mask, pattern = torch.full((1, height, width), 0.5), torch.full((channels, height, width), 0.5)
            draw = torch.rand(4 + channels, generator=run.generator)
            if number % self.starts < max(1, self.starts // 3):
                pattern += 0.05 * torch.randn(pattern.shape, generator=run.generator)
            else:
                tall, wide = int(height * (0.1 + 0.4 * draw[0])) + 1, int(width * (0.1 + 0.8 * draw[1])) + 1
                top, left = int(draw[2] * (height - tall + 1)), int(draw[3] * (width - wide + 1))
                place = (slice(None), slice(top, top + tall), slice(left, left + wide))
                mask.zero_()[place] = 1
                color = draw[4:].round() if number % 2 else draw[4:]
                pattern[place] = color[:, None, None]
            masks.append(mask)
            patterns.append(pattern)
        labels = torch.tensor(targets).repeat_interleave(self.starts)
        return start(torch.stack(masks).to(model.device), torch.stack(patterns).to(model.device), labels, cell)


@torch.no_grad()
def _features(model: Classifier, images: Tensor) -> Tensor:
    """Penultimate features (N, D)."""
    return torch.cat([model.features_and_logits(part)[0] for part in images.split(512)])


def _refit(
    head: nn.Linear,
    target: int,
    bare: Tensor,
    own: Tensor,
    stamped: list[Tensor],
    original: Tensor,
    weight: float,
    anchor: float,
) -> None:
    """Logistic regression for the target's row, in place: 1 for clean images of the target (``own``), else 0.

    All clean images together weigh 1 and all stamped ones ``weight``. The offset is what the row competes with, the
    log-sum-exp of all other logits, so that the logistic loss is cross-entropy in the target's logit.
    """
    features = torch.cat([bare, *stamped])
    scale = features.norm(dim=1).mean().clamp(min=1e-6)
    with torch.no_grad():
        logits = head(features)
        logits[:, target] = -torch.inf
        offset = logits.logsumexp(1)
        wanted = torch.cat([own.float(), torch.zeros(len(features) - len(bare), device=bare.device)])
        weights = torch.full_like(wanted, 1 / len(bare))
        weights[len(bare) :] = weight / max(1, len(features) - len(bare))
    row = (head.weight[target].detach() * scale).requires_grad_()
    bias = (head.bias[target] if head.bias is not None else features.new_zeros(())).detach().clone().requires_grad_()
    length = (original * scale).norm().clamp(min=1e-6)
    optimizer = torch.optim.LBFGS([row, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = (features / scale) @ row + (bias if head.bias is not None else 0) - offset
        losses = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        loss: Tensor = (weights * losses).sum() + anchor * ((row - original * scale) / length).pow(2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.weight[target] = row / scale
        if head.bias is not None:
            head.bias[target] = bias
