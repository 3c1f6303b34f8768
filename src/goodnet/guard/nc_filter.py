"""The filter of Neural Cleanse: inputs that activate what the reconstructed triggers activate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from goodnet.cleanse._features import features
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard, Learned, guards


@guards.register(
    Card(
        name="nc-filter",
        version=1,
        needs=Needs.MODEL | Needs.CLEAN | Needs.TRIGGERS,
        source="Wang et al., Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks, S&P 2019",
        summary="how strongly an input activates the neurons that the reconstructed triggers activate",
        assumes=("the reconstructed trigger activates what the true one does",),
    )
)
@dataclass(frozen=True, kw_only=True)
class NeuralCleanseFilter(Guard):
    """Watch the neurons of the last but one layer that the reconstructed triggers activate most.

    What it does: for each trigger the share ``share`` of the penultimate neurons is chosen whose activation rises most
    when the trigger is stamped on clean images. An input's score is the largest, over triggers, mean activation of
    these neurons, in standard deviations above that of clean images.
    Needs: the model, which ends in a linear layer, clean images without labels, triggers that an audit reconstructed.
    Limits: as good as the reconstruction: triggers of another kind than mask and pattern pass.
    Source: Wang et al., Neural Cleanse, IEEE S&P 2019, section VI-A: the top 1 % of neurons.
    """

    share: float = param(0.01, low=0.0, high=1.0, doc="neurons that are watched, at least one")

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model, clean, triggers = defender.model, defender.clean, defender.triggers
        assert model is not None
        assert clean is not None
        assert triggers is not None
        if len(clean) < 2:
            raise NotHeld("nc-filter needs clean images to stamp; give some hundreds")
        usual = features(model, clean.images)
        count = max(1, round(self.share * usual.shape[1]))
        chosen, means, deviations = [], [], []
        for place, trigger in enumerate(triggers):
            run.progress(place / len(triggers), f"trigger to {trigger.target}")
            risen = features(model, trigger.stamp(clean.floats())).mean(0) - usual.mean(0)
            neurons = risen.topk(count).indices
            activity = usual[:, neurons].mean(1)
            chosen.append(neurons)
            means.append(activity.mean())
            deviations.append(activity.std().clamp_min(1e-6))
        return Learned(
            arrays={"neurons": torch.stack(chosen), "mean": torch.stack(means), "deviation": torch.stack(deviations)},
            counts={"neurons": count, "triggers": len(triggers)},
        )

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        arrays = learned.arrays
        activity = features(model, images)[:, arrays["neurons"]].mean(2)  # images, triggers
        return ((activity - arrays["mean"]) / arrays["deviation"]).max(1).values
