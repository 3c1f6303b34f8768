"""The learner contract: a training set that may be poisoned and a kind of network go in, a trained model comes out."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

from torch import Tensor

from goodnet.cleanse._base import require_fit
from goodnet.core.classifier import Classifier, Origin
from goodnet.core.defender import Defender
from goodnet.core.defense import Defense
from goodnet.core.params import parameters_of
from goodnet.core.registry import Needs, Registry
from goodnet.core.run import Progress, Provenance, Run
from goodnet.errors import NotApplicable, NotHeld
from goodnet.models.untrained import anew
from goodnet.training import Recipe


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a method's hook returns; the base class turns it into a Learned.

    Attributes:
        model: of the kind of ``defender.model``, trained.
        notes: numbers worth a column of a table, such as "isolated".
        distrusted: bool (N,), the samples that it learned nothing from, or unlearned; None where it makes no choice.
        losses: float (epochs, N), the loss of each sample after each epoch of the stage that made that choice, without
            augmentation; None where there was none.
        counts: how many images, epochs, steps ... were used.
        evidence: JSON values for the report.
    """

    model: Classifier
    notes: Mapping[str, float] = field(default_factory=dict)
    distrusted: Tensor | None = None
    losses: Tensor | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A learner's answer. Whether it is any good is for evaluation to say.

    Attributes:
        model: a new classifier in eval mode; its origin's history tells how it was learned.
        notes, distrusted, losses, evidence: see Taught; the two with one value for each sample are what evaluation
            compares with the truth.
        provenance: method, parameters, the recipe among them, seed, cost.
    """

    model: Classifier
    notes: Mapping[str, float]
    distrusted: Tensor | None
    losses: Tensor | None
    evidence: Mapping[str, Any]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Learner(Defense):
    """Trains in spite of poison. A method is a frozen dataclass of hyper-parameters with one hook, ``_learn``.

    ``defender.model`` says which kind of network is trained: its weights are drawn anew before the hook sees it, so
    that nothing of them is used. The training set always comes with its labels, which may be the attacker's.

    Attributes:
        recipe: how the network that comes out is trained; the same for all methods that shall be compared.
    """

    recipe: Recipe = Recipe()  # noqa: RUF009 - a frozen value

    @final
    def run(
        self,
        defender: Defender,
        *,
        seed: int = 0,
        budget: float | None = None,
        progress: Progress | None = None,
    ) -> Learned:
        """Train on ``defender.training_set``; the caller's model, images and random generators are untouched.

        Args:
            defender: what is held; see the card's needs, and what it uses where it is held.
            seed: same seed, same machine, same answer; of the initial weights too.
            budget: seconds after which the best model so far is wanted; None for no limit.
            progress: called with (share done, a few words).

        Raises:
            NotHeld: the defender lacks something that the method needs.
            NotApplicable: the method cannot work on this network, the set does not fit it, or training diverged.
            ParameterError: ``budget`` is out of its range.
        """
        mine = self._held(defender)
        require_fit(mine, self.card.name)
        if mine.model is None:
            raise NotHeld(f"{self.card.name} trains a model; its card must declare Needs.MODEL")
        with self._running(
            replace(mine, model=anew(mine.model, seed)), seed=seed, budget=budget, progress=progress, gradients=True
        ) as (seen, run):
            taught = self._learn(seen, run)
        if not all(value.isfinite().all() for value in taught.model.state_dict().values()):
            raise NotApplicable(f"{self.card.name} diverged: the network's weights are no longer numbers")
        return Learned(
            model=self._finished(taught.model, seed),
            notes=taught.notes,
            distrusted=None if taught.distrusted is None else taught.distrusted.cpu(),
            losses=None if taught.losses is None else taught.losses.float().cpu(),
            evidence=taught.evidence,
            provenance=self._provenance(mine, run, seed, taught.counts),
        )

    def _finished(self, model: Classifier, seed: int) -> Classifier:
        """In eval mode, without gradients left over, and with a history that begins here."""
        model.eval().requires_grad_(True).zero_grad(set_to_none=True)
        entry = {"learn": self.card.name, "version": self.card.version, **parameters_of(self)}
        model.origin = Origin(history=({**entry, "recipe": asdict(self.recipe), "seed": seed},))
        return model

    @abstractmethod
    def _learn(self, defender: Defender, run: Run) -> Taught:
        """Train. ``defender.model`` is a private, untrained network, to be trained or copied."""


LEARNS = Needs.MODEL | Needs.TRAINING_SET | Needs.TRAINING  # what every learner needs

learners: Registry[Learner] = Registry("learner", "goodnet.learn")
