"""Networks that a cleanser trains for itself."""

from collections.abc import Callable

from goodnet.core.classifier import Classifier
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.models.untrained import anew
from goodnet.training import Recipe, fit
from goodnet.training.fit import Loss, cross_entropy


def trained_anew(
    model: Classifier,
    samples: Samples,
    recipe: Recipe,
    run: Run,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    watch: Callable[[Classifier], None] | None = None,
) -> Classifier:
    """A network of the same kind as ``model``, with fresh weights, trained on ``samples`` until time is up.

    Args:
        watch: given the network after every epoch, to look at it and leave it as it is.
    """
    return trained(anew(model, seed), samples, recipe, run, seed=seed, loss=loss, watch=watch)


def trained(
    model: Classifier,
    samples: Samples,
    recipe: Recipe,
    run: Run,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    watch: Callable[[Classifier], None] | None = None,
) -> Classifier:
    """As ``trained_anew``, from the weights that ``model`` has."""
    found = fit(
        model.requires_grad_(True),
        samples,
        recipe,
        seed=seed,
        loss=loss,
        watch=watch,
        progress=lambda share, text: run.progress(share, text),
        stop=lambda: run.seconds_left() <= 0,
    )
    return found.requires_grad_(False)


def part_of(run: Run, one: int, of: int) -> Run:
    """The run as one of several trainings sees it: what it tells of its progress is a part of the whole."""
    return Run(run.generator, run.deadline, lambda share, text: run.progress((one + share) / of, text))
