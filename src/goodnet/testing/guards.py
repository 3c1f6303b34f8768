"""The checks of guards."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from goodnet.core.registry import Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard
from goodnet.guard.files import load_guard, save_guard
from goodnet.guard.fitted import FittedGuard
from goodnet.testing import defenses
from goodnet.testing._common import Check, Snapshot, quick, require
from goodnet.testing._world import World

_CLOSE = 1e-4  # what rounding in batches of other sizes may change, relative


def _fitted(method: type[Guard], world: World) -> FittedGuard:
    fitted: FittedGuard = defenses.run(quick(method), world)
    return fitted


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one, other, rtol=_CLOSE, atol=_CLOSE).all())


def every_image_gets_a_score(method: type[Guard], world: World) -> None:
    """One finite float for each image, none for none; 8-bit images and the same as floats score the same."""
    fitted, images = _fitted(method, world), world.samples.images
    scores = fitted.score(images)
    require(scores.shape == (len(images),), f"the scores have the shape {tuple(scores.shape)}")
    require(bool(scores.isfinite().all()), "a score is not finite")
    require(len(fitted.score(images[:0])) == 0, "no images have scores")
    require(_same(scores, fitted.score(images.float() / 255)), "the same images as floats score otherwise")


def an_image_is_judged_by_itself(method: type[Guard], world: World) -> None:
    """Scores do not depend on what else is in the batch, on its order, or on anybody's random state."""
    fitted, images = _fitted(method, world), world.samples.images
    scores = []
    for callers_seed, order in ((1, torch.arange(len(images))), (2, torch.arange(len(images)).flip(0))):
        with isolated_rng(callers_seed):
            scores.append(fitted.score(images[order])[order.argsort()])
    alone = torch.cat([fitted.score(image[None]) for image in images[:8]])
    require(_same(scores[0], scores[1]), "scores depend on the order or on the random state")
    require(_same(scores[0][:8], alone), "an image alone scores otherwise than among others")


def scoring_leaves_everything_alone(method: type[Guard], world: World) -> None:
    """Images, the guard's model and learned arrays, and global random states are as they were."""
    fitted = _fitted(method, world)
    before = Snapshot(replace(world, defender=replace(world.defender, model=fitted.model)))
    arrays = {name: value.clone() for name, value in fitted.learned.arrays.items()}
    fitted.judge(world.samples.images)
    before.require_unchanged("by judging")
    same = all(torch.equal(value, arrays[name]) for name, value in fitted.learned.arrays.items())
    require(same, "what was learned changes by judging")


def answers_follow_the_threshold(method: type[Guard], world: World) -> None:
    """N where the suspicion is above the threshold, else what the model answers."""
    fitted, images = _fitted(method, world), world.samples.images
    said = fitted.judge(images)
    above = said.suspicion > fitted.threshold
    wanted = torch.where(above, fitted.num_classes, said.predicted)
    require(torch.equal(said.answers, wanted), "the answers are not those of the threshold")
    require(torch.equal(fitted.decide(images), said.answers), "decide and judge differ")
    require(bool(((said.confidence >= 0) & (said.confidence <= 1)).all()), "a confidence is not in [0, 1]")


def the_rate_is_kept_on_calibration_images(method: type[Guard], world: World) -> None:
    """No more alarms among the images that set the threshold than the rate allows."""
    calibration = _fitted(method, world).calibration
    require(calibration.alarms.count > 0, "nothing was kept aside to set the threshold")
    most = calibration.rate * (calibration.alarms.count + 1)
    require(calibration.alarms.hits <= most, f"{calibration.alarms.hits} alarms where {most:g} are allowed")


def calibration_images_are_unseen(method: type[Guard], world: World) -> None:
    """The hook sees other images than those that set the threshold."""
    clean = world.defender.clean
    assert clean is not None
    marked = replace(world.defender, clean=replace(clean, ids=torch.arange(len(clean))))
    seen: list[Samples] = []

    def looks(self, defender, run):  # type: ignore[no-untyped-def]
        seen.append(defender.clean)
        return method._fit(self, defender, run)

    watched = type(method.__name__, (method,), {"_fit": looks, "__doc__": method.__doc__})
    fitted = _fitted(watched, replace(world, defender=marked))
    together = len(seen[0]) + fitted.calibration.alarms.count
    require(together <= len(clean), f"{together} images are seen or calibrated on, and there are {len(clean)}")


def too_few_clean_images_are_refused(method: type[Guard], world: World) -> None:
    """A rate that the clean images cannot bear out is refused, and the message says how many it takes."""
    try:
        quick(method).fit(world.defender, rate=0.001)
    except NotHeld as error:
        require("999" in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
    else:
        raise AssertionError("a rate of 0.1% is promised on a few images")


def clean_images_are_declared(method: type[Guard], world: World) -> None:
    """The card says that a model and clean images are needed: no threshold without them."""
    needed = Needs.MODEL | Needs.CLEAN
    require(method.card.needs & needed == needed, "does not declare the model and the clean images")


def a_saved_guard_judges_as_before(method: type[Guard], world: World) -> None:
    """Saved, loaded and asked again it gives the same scores, threshold and notes."""
    fitted = _fitted(method, world)
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_guard(fitted, Path(folder) / "guard")
            again = load_guard(Path(folder) / "guard")
        except (TypeError, ValueError) as error:
            raise AssertionError(f"what was learned cannot be saved: {error}") from None
    told = (again.guard, again.threshold, again.calibration, again.notes)
    require(told == (fitted.guard, fitted.threshold, fitted.calibration, fitted.notes), "it comes back changed")
    images = world.samples.images
    require(_same(again.score(images), fitted.score(images)), "it scores otherwise after loading")
    values = dict(fitted.learned.values)
    require(json.loads(json.dumps(values)) == values, "the learned values change on the way through JSON")


CHECKS: tuple[Check, ...] = (
    *defenses.CHECKS,
    every_image_gets_a_score,
    an_image_is_judged_by_itself,
    scoring_leaves_everything_alone,
    answers_follow_the_threshold,
    the_rate_is_kept_on_calibration_images,
    calibration_images_are_unseen,
    too_few_clean_images_are_refused,
    clean_images_are_declared,
    a_saved_guard_judges_as_before,
)
