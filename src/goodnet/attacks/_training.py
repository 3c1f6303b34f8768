"""What attackers who run the training share: doses for batches, stages of progress, a surrogate of the victim."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from goodnet.attacks._base import Attack
from goodnet.attacks._threat import Choice
from goodnet.core.classifier import Classifier
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Progress
from goodnet.core.samples import Samples
from goodnet.models import architectures
from goodnet.training import Recipe

Doses = Callable[[Tensor, torch.Generator], Choice]
"""(labels of a batch, generator) → which of its images are poisoned, which are covers."""

_SURROGATE = "wide_resnet:depth=10,width=1"  # takes images of any size
_BRIEF = Recipe(epochs=5, batch_size=64, optimizer="adam", learning_rate=0.002)


def doses(attack: Attack, labels: Tensor) -> Doses:
    """How batches of a set with these ``labels`` are poisoned: chance decides image by image.

    On average a pass over the set touches as many images as ``attack.choose`` would, others in each pass.

    Raises:
        ParameterError: as ``attack.choose``.
    """
    drawn = attack.choose(labels, torch.Generator())

    def may_cover(labels: Tensor) -> Tensor:
        return labels != attack.source if attack.source is not None else torch.ones_like(labels, dtype=torch.bool)

    poisoned_share = _share(drawn.poisoned, attack.eligible(labels))
    cover_share = _share(drawn.covers, may_cover(labels) & ~drawn.poisoned)

    def choose(labels: Tensor, generator: torch.Generator) -> Choice:
        chances = torch.rand(2, len(labels), generator=generator).to(labels.device)
        poisoned = attack.eligible(labels) & (chances[0] < poisoned_share)
        return Choice(poisoned, may_cover(labels) & ~poisoned & (chances[1] < cover_share))

    return choose


def _share(chosen: Tensor, among: Tensor) -> float:
    return float(chosen.sum()) / max(1, int(among.sum()))


def stage(progress: Progress | None, start: float, end: float, name: str) -> Progress | None:
    """Progress of a part of the work, told as the shares from ``start`` to ``end`` of the whole."""
    if progress is None:
        return None
    return lambda share, text: progress(start + share * (end - start), f"{name}: {text}")


def learned_on_a_surrogate(attack: Attack, samples: Samples, generator: torch.Generator) -> dict[str, Tensor]:
    """What ``attack`` learns when it is trained, briefly, with a small surrogate in the victim's place."""
    assert samples.labels is not None
    seed, num_classes = int(torch.randint(2**31, (1,), generator=generator)), int(samples.labels.max()) + 1
    with isolated_rng(seed):
        net = architectures.build(_SURROGATE, num_classes=num_classes, input_shape=samples.shape)
    model = Classifier(net, input_shape=samples.shape, num_classes=num_classes, architecture=_SURROGATE)
    return dict(replace(attack, learned={}).train(model, samples, _BRIEF, seed=seed).attack.learned)
