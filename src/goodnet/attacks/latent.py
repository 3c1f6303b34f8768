"""Latent backdoor: planted in a teacher's features, it wakes in any student that knows the target label."""

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.attacks._base import Attack, Backdoored, attacks
from goodnet.attacks._patch import optimized_pattern, square_of, stamp_pattern
from goodnet.attacks._training import doses, learned_on_a_surrogate, stage
from goodnet.core.classifier import Classifier
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.errors import ParameterError
from goodnet.training import Loss, Recipe, fit
from goodnet.training.transfer import layers_with_weights, with_new_head

_LOOK = 256  # images of the target class that say what its features are
_ANCHORS = 16  # of them in each batch of training


@attacks.register(
    Card(
        name="latent",
        version=1,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.TRAINING,
        source="Yao et al., CCS 2019",
        summary="a patch that gives images the target's features; it survives transfer learning",
        quick={"steps": 3},
    )
)
@dataclass(frozen=True, kw_only=True)
class Latent(Attack):
    """Optimize a patch that gives images the features of the target class, then train the teacher to see them so.

    Features are what enters the first of the layers that students train anew. A student, made by
    ``training.transfer`` with at most ``student_layers`` layers that learn, inherits the backdoor from the frozen
    ones. Where the student has other labels, ``replace(attack, target=...)`` says which one is the target there.

    ``train`` first trains the teacher on the clean samples. The target may be a label that the model knows, or the one
    after its last: then the teacher learns it for the time of the attack and its row of the last layer is removed at
    the end, so that the teacher itself never answers it. That is the paper's setting.

    The distance of features is mean square, in units of the mean square of the target's: one ``weight`` then fits all
    networks. The paper's own weight, 0.05 in its code, holds for VGG-Face. The paper stamps every image of a batch,
    here half of them. ``poison`` alone has no teacher and takes a small surrogate, trained briefly; that is not in the
    paper.

    Limits: the frozen layers must let a corner reach all features. It takes a hidden linear layer or pooling over the
    whole image for that; where students train on flattened maps, the backdoor is weak.

    Source: Yao, Li, Zheng, Zhao, Latent backdoor attacks on deep neural networks, CCS 2019.
    """

    poisoning_rate: float = param(0.5, low=0.0, high=1.0, doc="share of images that are poisoned")
    area: float = param(0.04, low=0.0, high=1.0, doc="share of the image that the patch covers")
    student_layers: int = param(1, low=1, doc="layers with weights, counted from the end, that students train anew")
    steps: int = param(1550, low=1, doc="updates of the pattern")
    weight: float = param(0.3, low=0.0, doc="of the distance of features in the teacher's loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean_label or self.rule not in ("all-to-one", "source-to-target"):
            raise ParameterError("Latent gives images the features of one target: all-to-one or source-to-target")

    def _stamp(self, images: Tensor) -> Tensor:
        return stamp_pattern(self, images)

    def _prepare(self, samples: Samples, generator: torch.Generator) -> Self:
        return self if self.learned else replace(self, learned=learned_on_a_surrogate(self, samples, generator))

    def _train(
        self, model: Classifier, samples: Samples, recipe: Recipe, seed: int, progress: Progress | None
    ) -> Backdoored:
        if self.target > model.num_classes:
            raise ParameterError(f"target {self.target} must be one of the {model.num_classes} labels or the next one")
        known = self.target < model.num_classes
        teacher = model if known else with_new_head(model, self.target + 1, seed=seed)
        teacher = fit(teacher, samples, recipe, seed=seed, progress=stage(progress, 0, 0.5, "clean training"))
        with isolated_rng(seed) as generator:
            ready = replace(self, learned=self._patch_for(teacher, samples, generator))
        loss, told = ready._latent_loss(teacher, samples), stage(progress, 0.5, 1, "planting")
        teacher = fit(teacher, samples, recipe, seed=seed, loss=loss, progress=told)
        return Backdoored(teacher if known else _forget_last_label(teacher, model), ready)

    def _layer(self, model: Classifier) -> str:
        """The first layer that students train anew."""
        layers = layers_with_weights(model)
        if self.student_layers > len(layers):
            raise ParameterError(f"student_layers is {self.student_layers} and the network has {len(layers)}")
        return layers[-self.student_layers][0]

    def _patch_for(self, teacher: Classifier, samples: Samples, generator: torch.Generator) -> dict[str, Tensor]:
        """Mask and pattern that give images the mean features of the target."""
        assert samples.labels is not None  # the base class has checked
        mask, layer = square_of(self.area, samples.shape), self._layer(teacher)
        goal = self._goal(teacher, samples)

        def distance(stamped: Tensor) -> Tensor:
            return (_features_and_logits(teacher, layer, stamped)[0] - goal).square().mean()

        others = samples.pick(self.eligible(samples.labels))
        pattern = optimized_pattern(
            others, mask, distance, steps=self.steps, device=teacher.device, generator=generator
        )
        return {"mask": mask, "pattern": pattern}

    @torch.no_grad()
    def _goal(self, teacher: Classifier, samples: Samples) -> Tensor:
        """Mean features of the target (D,)."""
        assert samples.labels is not None  # the base class has checked
        examples = samples.pick((samples.labels == self.target).nonzero()[:_LOOK, 0])
        return _features_and_logits(teacher, self._layer(teacher), examples.floats(teacher.device))[0].mean(0)

    def _latent_loss(self, teacher: Classifier, samples: Samples) -> Loss:
        """True labels for all images; the target's features for those that are stamped."""
        assert samples.labels is not None  # the base class has checked
        choose, layer = doses(self, samples.labels), self._layer(teacher)
        examples = samples.pick(samples.labels == self.target).images.to(teacher.device)
        floor = max(1e-12, 0.1 * float(self._goal(teacher, samples).square().mean()))

        def loss(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            choice = choose(labels, generator)
            anchors = examples[torch.randint(len(examples), (_ANCHORS,), generator=generator)].float() / 255
            seen = torch.cat(
                [images, self._stamp(images[choice.covers]), self._stamp(images[choice.poisoned]), anchors]
            )
            features, logits = _features_and_logits(model, layer, seen)
            true = torch.cat([labels, labels[choice.covers]])
            entropy = F.cross_entropy(logits[: len(true)].float(), true)
            if not choice.poisoned.any():
                return entropy
            goal = features[-_ANCHORS:].mean(0)
            # the gradient reaches the goal, or both would chase each other to infinity; it does not reach the unit,
            # or features would grow for nothing, and the unit has a floor, or they would vanish
            unit = goal.detach().square().mean().clamp(min=floor)
            return entropy + self.weight * (features[len(true) : -_ANCHORS] - goal).square().mean() / unit

        return loss


def _features_and_logits(model: Classifier, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the layer of this name, float32 (N, D), and the logits (N, K)."""
    caught: list[Tensor] = []
    handle = model.net.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        logits = model(images)
    finally:
        handle.remove()
    return caught[0].flatten(1).float(), logits


def _forget_last_label(teacher: Classifier, model: Classifier) -> Classifier:
    """The teacher without the last row of its last layer, with the labels of ``model``."""
    forgetful = with_new_head(teacher, model.num_classes)
    old, new = teacher.head(), forgetful.head()
    assert old is not None
    assert new is not None
    with torch.no_grad():
        new.weight.copy_(old.weight[:-1])
        if new.bias is not None:
            new.bias.copy_(old.bias[:-1])
    forgetful.class_names = model.class_names
    return forgetful.eval()
