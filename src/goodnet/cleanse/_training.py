"""Networks that a cleanser trains for itself."""

import copy

from goodnet.core.classifier import Classifier
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.training import Recipe, fit
from goodnet.training.fit import Loss, cross_entropy


def trained_anew(
    model: Classifier, samples: Samples, recipe: Recipe, run: Run, *, seed: int, loss: Loss = cross_entropy
) -> Classifier:
    """A network of the same kind as ``model``, with fresh weights, trained on ``samples`` until time is up."""
    fresh = copy.deepcopy(model).requires_grad_(True)
    with isolated_rng(seed):
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    trained = fit(
        fresh,
        samples,
        recipe,
        seed=seed,
        loss=loss,
        progress=lambda share, text: run.progress(share, text),
        stop=lambda: run.seconds_left() <= 0,
    )
    return trained.requires_grad_(False)
