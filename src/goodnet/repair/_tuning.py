"""What repairers that train have in common: what the images shall be answered with, and the training loop."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.defender import Defender
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.training import Recipe, fit
from goodnet.training.fit import Loss

_HARMLESS = 0.02  # share of right answers that may go without another attempt, as in unlearning
_HELD_OUT = 5  # one image in so many measures, the others tune


def wanted_answers(defender: Defender) -> Tensor:
    """What the clean images shall be answered with: their labels (N,), or the suspect's own probabilities (N, K).

    The suspect is right on images without a trigger, so its own answers stand in for labels that nobody has. Both kinds
    are what ``cross_entropy`` takes as a target.
    """
    assert defender.model is not None
    assert defender.clean is not None
    if defender.clean.labels is not None:
        return defender.clean.labels
    return predictions(defender.model, defender.clean.images).softmax(1)


def new_seed(run: Run) -> int:
    """A seed drawn from the run's generator, for something that wants its own."""
    return int(torch.randint(2**31, (1,), generator=run.generator))


def tune(
    model: Classifier,
    samples: Samples,
    wanted: Tensor,
    recipe: Recipe,
    run: Run,
    *,
    loss: Loss | None = None,
    progress: tuple[float, float] = (0.0, 1.0),
) -> Classifier:
    """A copy of ``model`` trained so that ``samples`` are answered with ``wanted`` (see ``wanted_answers``).

    The loop is that of ``training.fit``: it ends early when the run's time is up. ``loss`` takes (model, images, wanted
    answers of these images, generator); cross-entropy when left out. ``progress``: from where to where, in [0, 1].
    """
    wanted = wanted.to(model.device)
    minimized = loss or _cross_entropy

    def of_batch(now: Classifier, images: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        return minimized(now, images, wanted[places], generator)

    def told(share: float, text: str) -> None:
        run.progress(progress[0] + share * (progress[1] - progress[0]), text)

    return fit(
        model,
        Samples(samples.images, labels=torch.arange(len(samples))),  # a label says which answer is wanted
        recipe,
        seed=new_seed(run),
        loss=of_batch,
        progress=told,
        stop=lambda: run.seconds_left() < 0,
    )


def tune_gently(
    model: Classifier,
    samples: Samples,
    wanted: Tensor,
    recipe: Recipe,
    run: Run,
    *,
    attempts: int,
    loss: Loss | None = None,
    progress: tuple[float, float] = (0.0, 1.0),
) -> tuple[Classifier, float]:
    """As ``tune``, and the learning rate that did no harm on a fifth of ``samples``, which is kept aside.

    Where more than two points of right answers go there, it is done again from the start at a tenth of the rate, up to
    ``attempts`` times. When all of them harm, the answer is a copy of ``model`` as it was, and the rate 0.
    """
    aside, rest = parted(len(samples), run)
    held, mine = samples.images[aside], samples.pick(rest)
    enough = share_right(model, held, wanted[aside]) - _HARMLESS
    for attempt in range(attempts):
        milder = replace(recipe, learning_rate=recipe.learning_rate / 10**attempt)
        tuned = tune(model, mine, wanted[rest], milder, run, loss=loss, progress=progress)
        if share_right(tuned, held, wanted[aside]) >= enough:
            return tuned, milder.learning_rate
        if run.seconds_left() < 0:
            break
    return copy.deepcopy(model), 0.0


def parted(count: int, run: Run) -> tuple[Tensor, Tensor]:
    """Places of the images that measure, and of those that are worked with; of a single image both are made."""
    shuffled = torch.randperm(count, generator=run.generator)
    first = -(-count // _HELD_OUT)
    return shuffled[:first], shuffled[first:] if count > 1 else shuffled


def share_right(model: Classifier, images: Tensor, wanted: Tensor) -> float:
    """Share of the images that are answered as wanted; 1 where there are none, 0 where the answers are no numbers."""
    if not len(images):
        return 1.0
    logits, labels = predictions(model, images), wanted if wanted.ndim == 1 else wanted.argmax(1)
    return float((logits.argmax(1) == labels).double().mean()) if logits.isfinite().all() else 0.0


def _cross_entropy(model: Classifier, images: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(model(images).float(), wanted)
