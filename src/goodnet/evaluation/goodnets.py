"""GoodNets against the truth: what a model that may answer N says on test images, clean and stamped."""

from dataclasses import dataclass
from typing import Any

from goodnet.attacks._base import Attack, to_bytes
from goodnet.core.rates import Rate
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.evaluation.stamped import NPlusOneRates, n_plus_one_on_clean, n_plus_one_on_stamped
from goodnet.guard.goodnet import GoodNet


@dataclass(frozen=True)
class GoodNetOutcome:
    """The four rates of a GoodNet.

    Attributes:
        clean: on clean images; ``defense_triggered`` is its false-alarm rate.
        stamped: on the images that the attack is meant for, one for each of its triggers.
    """

    clean: NPlusOneRates
    stamped: tuple[NPlusOneRates, ...]

    def as_json(self) -> dict[str, Any]:
        """Counts, shares and intervals as JSON values."""
        return {"clean": _as_json(self.clean), "stamped": [_as_json(rates) for rates in self.stamped]}


def measure_goodnet(goodnet: GoodNet, test: Samples, attack: Attack | None = None) -> GoodNetOutcome:
    """A GoodNet on ``test`` (labels needed), clean and, with ``attack``, stamped at 8 bits as the world stores images.

    Raises:
        NotHeld: the images have no labels.
    """
    if test.labels is None:
        raise NotHeld("evaluation needs labeled test images; these have no labels")
    classes, stamped = goodnet.num_classes, []
    for part in attack.parts() if attack is not None else ():
        victims = test.pick(part.victims(test.labels))
        assert victims.labels is not None
        answers = goodnet.answers(to_bytes(part.stamp(victims.floats()))) if len(victims) else victims.labels
        goals = None if part.rule == "untargeted" else part.goal(victims.labels, classes)
        stamped.append(n_plus_one_on_stamped(answers, victims.labels, goals, num_classes=classes))
    clean = n_plus_one_on_clean(goodnet.answers(test.images), test.labels, num_classes=classes)
    return GoodNetOutcome(clean, tuple(stamped))


def _as_json(rates: NPlusOneRates) -> dict[str, Any]:
    return {name: value.as_json() if isinstance(value, Rate) else None for name, value in vars(rates).items()}
