"""IBD-PSC: the answer to a trigger survives larger BatchNorm parameters."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable
from goodnet.guard._base import Guard, Learned, guards
from goodnet.guard._clean import rightly_answered

_BATCH = 64


@guards.register(
    Card(
        name="ibd-psc",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS,
        source="Hou et al., IBD-PSC: Backdoor Detection via Parameter-oriented Scaling Consistency, ICML 2024",
        summary="whether the answer stays when the last BatchNorm layers are amplified",
        assumes=("BatchNorm",),
    )
)
@dataclass(frozen=True, kw_only=True)
class IbdPsc(Guard):
    """Amplify BatchNorm layers from the end and see how sure the models stay of the answer.

    What it does: scale and shift of the last BatchNorm layers are multiplied by ``factor``, one layer more at a time,
    until more than ``error`` of the clean images are answered otherwise than before; from there ``models`` models with
    one more layer each are kept. The score is the mean probability that they give the answer of the original model.
    Needs: the model, with BatchNorm; clean images, their labels where they are held.
    Limits: where too few layers are left behind the start, there are fewer models; where the error is never reached the
    start is the last layer count tried, and a note says so.
    Source: Hou et al., IBD-PSC, ICML 2024: factor 1.5, error 0.6, five models. Instead of their
    threshold of 0.9 there is one from clean images.
    """

    family: ClassVar[str] = "survives-perturbation"

    factor: float = param(1.5, low=1.0, doc="what BatchNorm scale and shift are multiplied by")
    error: float = param(0.6, low=0.0, high=1.0, doc="share of clean images answered otherwise at which models begin")
    models: int = param(5, low=1, doc="models that are asked")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model = defender.model
        assert model is not None
        layers = _norms(model)
        if not layers:
            raise NotApplicable("ibd-psc amplifies BatchNorm layers, and this network has none")
        images, answers = rightly_answered(defender)
        floats, start = images.float().to(model.device) / 255, len(layers)
        for count in range(1, len(layers) + 1):
            run.progress(count / len(layers), f"{count} layers amplified")
            changed = self._answers(model, layers[-count:], floats) != answers
            if float(changed.float().mean()) > self.error:
                start = count
                break
        else:
            never = f"amplifying all {len(layers)} BatchNorm layers changes at most {self.error:.0%} of clean answers"
            return Learned(values={"start": start}, notes=(never,), counts={"clean_images": len(images)})
        return Learned(values={"start": start}, counts={"clean_images": len(images)})

    def _answers(self, model: Classifier, layers: list[str], images: Tensor) -> Tensor:
        parts = [self._amplified(model, layers, batch).argmax(1).cpu() for batch in images.split(_BATCH)]
        return torch.cat(parts)

    @torch.no_grad()
    def _amplified(self, model: Classifier, layers: list[str], images: Tensor) -> Tensor:
        """Logits with these layers amplified; nothing is copied but their parameters."""
        parameters = dict(model.named_parameters())
        names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
        changed = {name: parameters[name] * self.factor for name in names if name in parameters}
        logits: Tensor = functional_call(model, changed, (images,))
        return logits

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        layers, start = _norms(model), int(learned.values["start"])
        answers = model(images).argmax(1, keepdim=True)
        last = min(len(layers), start + self.models - 1)
        shares = [
            self._amplified(model, layers[-count:], images).double().softmax(1).gather(1, answers)[:, 0]
            for count in range(start, last + 1)
        ]
        return torch.stack(shares).mean(0)


def _norms(model: Classifier) -> list[str]:
    """The BatchNorm layers that have parameters, by the names that the classifier gives them, in execution order."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    return [f"net.{name}" for name, layer in model.layers() if isinstance(layer, kinds) and layer.affine]
