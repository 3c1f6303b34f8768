"""What learners share that train on what a cleanser keeps."""

from dataclasses import dataclass

from torch import Tensor

from goodnet.cleanse._base import Cleanser
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.run import Run
from goodnet.learn._training import Span, part_of, time_left, train
from goodnet.models.untrained import anew
from goodnet.repair._tuning import new_seed
from goodnet.training import Recipe


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a cleanser kept: ``keep`` is bool (N,); ``rule`` says how that was decided."""

    keep: Tensor
    rule: str


def cleanse(cleanser: Cleanser, defender: Defender, run: Run, *, span: Span) -> Kept:
    """Which samples of ``defender.training_set`` stay; ``defender.model`` is what was trained on them, where needed.

    Where nothing of a label would stay, all of it does: a network cannot learn a label of which it sees nothing.
    """
    assert defender.training_set is not None
    labels = defender.training_set.labels
    assert labels is not None
    told = cleanser.run(defender, seed=new_seed(run), budget=time_left(run), progress=part_of(run.progress, span))
    left = labels[told.keep].bincount(minlength=int(labels.max()) + 1)
    return Kept(keep=told.keep | (left[labels] == 0), rule=told.rule)


def seen_by(
    cleanser: Cleanser, model: Classifier, defender: Defender, recipe: Recipe, run: Run, *, span: Span
) -> Defender:
    """What a cleanser is shown: a network like ``model`` trained on the set, where the cleanser looks into one."""
    assert defender.training_set is not None
    if Needs.MODEL not in cleanser.card.needs:
        return Defender(clean=defender.clean, training_set=defender.training_set)
    trained = train(anew(model, new_seed(run)), defender.training_set, recipe, run, span=span)
    return Defender(model=trained, clean=defender.clean, training_set=defender.training_set)
