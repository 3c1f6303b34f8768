"""The checks of attacks."""

import torch

from goodnet.attacks._base import Attack, to_bytes
from goodnet.core.rng import isolated_rng
from goodnet.testing._common import Check, Snapshot, quick, require
from goodnet.testing._world import World


def poisoning_leaves_the_caller_alone(method: type[Attack], world: World) -> None:
    """The clean samples and the global random states are as they were."""
    before = Snapshot(world)
    quick(method).poison(world.samples)
    before.require_unchanged("by poisoning")


def same_seed_same_poison(method: type[Attack], world: World) -> None:
    """The poison depends on the seed and not on the caller's random state."""
    made = []
    for callers_seed in (1, 2):
        with isolated_rng(callers_seed):
            made.append(quick(method).poison(world.samples, seed=3))
    same = torch.equal(made[0].mask, made[1].mask) and torch.equal(made[0].samples.images, made[1].samples.images)
    require(same, "two poisonings with one seed differ")


def mask_marks_what_was_poisoned(method: type[Attack], world: World) -> None:
    """Labels change exactly where the mask is, to the target, and the images there are the stamped ones, at 8 bits."""
    attack, clean = quick(method, poisoning_rate=0.3), world.samples
    poisoned = attack.poison(clean)
    assert clean.labels is not None
    changed = poisoned.samples.labels != clean.labels
    require(torch.equal(changed, poisoned.mask), "the mask is not where labels changed")
    require(bool((poisoned.samples.labels[changed] == attack.target).all()), "a label changed to something else")
    stamped = to_bytes(attack.stamp(clean.images[changed].float() / 255))
    require(torch.equal(poisoned.samples.images[changed], stamped), "a poisoned image is not the stamped one")
    assert poisoned.samples.ids is not None
    assert clean.ids is not None
    require(torch.equal(poisoned.samples.ids, clean.ids), "the ids do not say where the samples came from")


def poisoning_rate_is_met(method: type[Attack], world: World) -> None:
    """The poisoned share of the whole set is the one asked for; none at all when it is zero."""
    for rate in (0.0, 0.1, 0.3):
        share = float(quick(method, poisoning_rate=rate).poison(world.samples).mask.float().mean())
        require(abs(share - rate) <= 0.5 / len(world.samples) + 1e-6, f"{share:.3f} poisoned, {rate} wanted")


def stamped_images_are_images(method: type[Attack], world: World) -> None:
    """Stamping keeps the shape and [0, 1], changes something, and leaves the images that it was given alone."""
    attack = quick(method)
    images = world.samples.floats()
    images[0], images[1] = 0, 1
    before = images.clone()
    stamped = attack.stamp(images)
    require(stamped.shape == images.shape, f"the shape becomes {tuple(stamped.shape)}")
    require(float(stamped.min()) >= 0 and float(stamped.max()) <= 1, "stamped images leave [0, 1]")
    require(torch.equal(images, before), "stamping changes the images that it was given")
    require(not torch.equal(stamped, images), "stamping changes nothing")


CHECKS: tuple[Check, ...] = (
    poisoning_leaves_the_caller_alone,
    same_seed_same_poison,
    mask_marks_what_was_poisoned,
    poisoning_rate_is_met,
    stamped_images_are_images,
)
