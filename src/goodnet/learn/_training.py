"""What learners have in common: the training loop with the run's seed, time and progress."""

from collections.abc import Callable

from goodnet.core.classifier import Classifier
from goodnet.core.run import Progress, Run
from goodnet.core.samples import Samples
from goodnet.repair._tuning import new_seed
from goodnet.training import Recipe, fit
from goodnet.training.fit import Loss, cross_entropy

Span = tuple[float, float]  # from which share of a run to which


def train(
    model: Classifier,
    samples: Samples,
    recipe: Recipe,
    run: Run,
    *,
    loss: Loss = cross_entropy,
    watch: Callable[[Classifier], None] | None = None,
    span: Span = (0.0, 1.0),
) -> Classifier:
    """A copy of ``model`` trained on ``samples`` as ``training.fit`` does, until the run's time is up."""
    return fit(
        model,
        samples,
        recipe,
        seed=new_seed(run),
        loss=loss,
        watch=watch,
        progress=part_of(run.progress, span),
        stop=lambda: run.seconds_left() <= 0,
    )


def part_of(progress: Progress, span: Span) -> Progress:
    """The progress of a part that takes a run from one share to another."""
    return lambda share, text: progress(span[0] + share * (span[1] - span[0]), text)


def time_left(run: Run) -> float | None:
    """The budget of another method that is called inside this run; None for no limit."""
    return None if run.deadline is None else max(run.seconds_left(), 1e-9)
