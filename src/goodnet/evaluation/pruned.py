"""Pruning against the truth: how accuracy and attack success fall as channels go, one after the other."""

from torch import Tensor

from goodnet.attacks._base import Attack, to_bytes
from goodnet.core.classifier import Classifier
from goodnet.core.rates import Rate
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.evaluation.rates import clean_accuracy
from goodnet.evaluation.stamped import attack_success
from goodnet.repair.pruning import Pruning, pruning_curve


def pruning_rates(
    model: Classifier,
    pruning: Pruning,
    *,
    ranked_on: Samples,
    test: Samples,
    attack: Attack | None = None,
    most: int | None = None,
) -> list[tuple[Rate, Rate | None]]:
    """Clean accuracy and, of the best trigger, attack success, with 0, 1, 2 ... channels pruned.

    Args:
        model: is untouched.
        pruning: which layers are pruned, and by which criterion; how far it would go does not matter.
        ranked_on: the defender's images, which say in which order channels go.
        test: labeled images, none of the defender's.
        attack: None for accuracy alone.
        most: at most so many images, and so many victims of each trigger, from the front; None for all.

    Raises:
        NotHeld: the test images have no labels.
        NotApplicable: the network has no such layers.
    """
    if test.labels is None:
        raise NotHeld("evaluation needs labeled test images; these have no labels")

    def along(images: Tensor) -> Tensor:
        return pruning_curve(
            model,
            images,
            ranked_on=ranked_on.images,
            layers=pruning.layers,
            layer=pruning.layer,
            criterion=pruning.criterion,
        )

    accuracies = [clean_accuracy(answers, test.labels[:most]) for answers in along(test.images[:most])]
    successes: list[list[Rate]] = []
    for part in attack.parts() if attack is not None else ():
        victims = test.pick(part.victims(test.labels).nonzero()[:most, 0])
        assert victims.labels is not None
        goals = None if part.rule == "untargeted" else part.goal(victims.labels, model.num_classes)
        if len(victims):
            stamped = to_bytes(part.stamp(victims.floats()))
            successes.append([attack_success(answers, victims.labels, goals) for answers in along(stamped)])
    if not successes:
        return [(accuracy, None) for accuracy in accuracies]
    best = [max(rates, key=lambda rate: rate.value or 0.0) for rates in zip(*successes, strict=True)]
    return list(zip(accuracies, best, strict=True))
