"""The checks of attacks."""

import torch

from goodnet.attacks._base import Attack
from goodnet.core.rng import isolated_rng
from goodnet.testing._common import Check, Snapshot, quick, require
from goodnet.testing._world import World
from goodnet.training import Recipe


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


def only_what_is_marked_is_touched(method: type[Attack], world: World) -> None:
    """Images change where the mask or the covers are and nowhere else; labels where the mask is, to the goal."""
    attack, clean = quick(method, poisoning_rate=0.3, rate_of="eligible"), world.samples
    poisoned = attack.poison(clean)
    assert clean.labels is not None
    assert poisoned.samples.labels is not None
    mask, touched = poisoned.mask, poisoned.mask | poisoned.covers
    require(not bool((poisoned.mask & poisoned.covers).any()), "a sample is both poisoned and a cover")
    same = (poisoned.samples.images == clean.images).flatten(1).all(1)
    require(bool(same[~touched].all()), "an image that is not marked has changed")
    require(not bool(same[mask].any()), "a poisoned image has not changed")
    require(torch.equal(poisoned.samples.labels[~mask], clean.labels[~mask]), "a label outside the mask has changed")
    made, true = poisoned.samples.labels[mask], clean.labels[mask]
    if attack.clean_label:
        require(torch.equal(made, true), "a clean-label attack changes labels")
    elif attack.rule == "untargeted":
        require(bool((made != true).all()), "an untargeted attack gives a true label")
    else:
        goals = torch.stack([part.goal(true, int(clean.labels.max()) + 1) for part in attack.parts()])
        require(bool((goals == made).any(0).all()), "a poisoned label is not the goal")
    assert poisoned.samples.ids is not None
    assert clean.ids is not None
    require(torch.equal(poisoned.samples.ids, clean.ids), "the ids do not say where the samples came from")


def poisoning_rate_is_met(method: type[Attack], world: World) -> None:
    """The poisoned share of what may be poisoned is the one asked for, for each trigger; none when it is zero."""
    assert world.samples.labels is not None
    for rate in (0.0, 0.25, 0.5):
        attack = quick(method, poisoning_rate=rate, rate_of="eligible", cover_rate=0.0)
        mask = attack.poison(world.samples).mask
        if len(attack.parts()) == 1:
            eligible = attack.eligible(world.samples.labels)
            require(not bool(mask[~eligible].any()), "a sample is poisoned that the threat model leaves alone")
            wanted = round(rate * int(eligible.sum()))
            require(int(mask.sum()) == wanted, f"{int(mask.sum())} samples are poisoned, {wanted} wanted")
        require(bool(mask.any()) == (rate > 0), f"with rate {rate} {int(mask.sum())} samples are poisoned")


def training_gives_a_model_and_leaves_the_caller_alone(method: type[Attack], world: World) -> None:
    """``train`` returns a new model in eval mode and an attack that can stamp; the same seed gives the same weights."""
    before = Snapshot(world)
    assert world.defender.model is not None
    recipe = Recipe(epochs=1, batch_size=20)
    made = [quick(method).train(world.defender.model, world.samples, recipe, seed=3) for _ in range(2)]
    before.require_unchanged("by training")
    first, second = (one.model.state_dict() for one in made)
    require(all(torch.equal(first[name], second[name]) for name in first), "two trainings with one seed differ")
    require(not made[0].model.training, "the model is not in eval mode")
    old = world.defender.model.state_dict()
    require(any(not torch.equal(first[name], old[name]) for name in first if name in old), "training changes nothing")
    stamped = [one.attack.stamp(world.samples.floats()) for one in made]
    require(torch.equal(*stamped), "the attacks of two trainings with one seed stamp in two ways")
    require(not torch.equal(stamped[0], world.samples.floats()), "the attack that comes back stamps nothing")


def what_was_learned_can_be_carried_over(method: type[Attack], world: World) -> None:
    """An attack made anew from its parameters and ``learned`` stamps the same: it can be saved and loaded."""
    attack = quick(method).poison(world.samples).attack
    again = quick(method, learned={name: value.clone() for name, value in attack.learned.items()})
    images = world.samples.floats()
    require(torch.equal(again.stamp(images), attack.stamp(images)), "the attack made anew stamps otherwise")


def what_was_learned_is_not_learned_anew(method: type[Attack], world: World) -> None:
    """Who poisons again with an attack that has its trigger, under whatever seed, poisons with that trigger."""
    attack = quick(method).poison(world.samples).attack
    again = attack.poison(world.samples, seed=1).attack
    kept = again.learned.keys() == attack.learned.keys()
    require(kept and all(again.learned[name] is attack.learned[name] for name in attack.learned), "it is learned anew")


def stamped_images_are_images(method: type[Attack], world: World) -> None:
    """Stamping keeps the shape and [0, 1], changes something, and leaves the images that it was given alone."""
    attack = quick(method)
    images = world.samples.floats()
    images[0], images[1] = 0, 1
    before = images.clone()
    attack = attack.poison(world.samples).attack  # with its trigger, if that is learned
    stamped = attack.stamp(images)
    require(stamped.shape == images.shape, f"the shape becomes {tuple(stamped.shape)}")
    require(float(stamped.min()) >= 0 and float(stamped.max()) <= 1, "stamped images leave [0, 1]")
    require(torch.equal(images, before), "stamping changes the images that it was given")
    require(not torch.equal(stamped, images), "stamping changes nothing")


CHECKS: tuple[Check, ...] = (
    poisoning_leaves_the_caller_alone,
    same_seed_same_poison,
    only_what_is_marked_is_touched,
    poisoning_rate_is_met,
    training_gives_a_model_and_leaves_the_caller_alone,
    what_was_learned_can_be_carried_over,
    what_was_learned_is_not_learned_anew,
    stamped_images_are_images,
)
