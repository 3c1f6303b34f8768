"""Learners: what makes each of them that method, against cases made by hand and the planted world."""

from typing import Any

import pytest
import torch
from planted import DirtyWorld, success_of

import goodnet
from goodnet.cleanse.loss_isolation import flooding, lowest
from goodnet.core.defender import Defender
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable, NotHeld, UnknownName
from goodnet.learn._ascent import balanced_accuracy, unlearn, watched_places
from goodnet.learn._base import Learned, Learner, learners
from goodnet.learn._curves import loss_curves
from goodnet.learn.abl import Abl
from goodnet.learn.plain import Plain
from goodnet.learn.retrain import Retrain
from goodnet.training import Recipe, accuracy

RECIPE = Recipe(epochs=8, batch_size=32, learning_rate=0.002, optimizer="adam")
MOST_SUCCESS, MOST_LOST = 0.1, 0.05  # what a learner may leave of the attack, and lose of plain training's accuracy
# the set is small: batches are too
SMALL: dict[str, dict[str, Any]] = {
    "abl": {"batch_size": 32, "watched": 200},
    "retrain": {"cleanser": "spectral-signatures"},
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def asked(samples: Samples, architecture: str = "small_cnn_bn") -> goodnet.Classifier:
    return goodnet.untrained(f"{architecture}:width=8", samples)


def learned_by(method: type[Learner], samples: Samples, held: Samples | None = None) -> Learned:
    learner = method(recipe=RECIPE, **SMALL.get(method.card.name, {}))
    architecture = "small_cnn" if method is Abl else "small_cnn_bn"  # with BatchNorm digits are as fast
    return learner.run(Defender(model=asked(samples, architecture), clean=held, training_set=samples))


def _cases() -> list[Any]:
    cases = []
    for method in learners:
        reason = method.card.known_failures.get("planted_world")
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        cases.append(pytest.param(method, id=method.card.name, marks=marks))
    return cases


@pytest.mark.parametrize("method", _cases())
def test_a_planted_backdoor_is_not_learned_and_accuracy_is_kept(method: type[Learner], dirty: DirtyWorld) -> None:
    learned = learned_by(method, dirty.poisoned.samples, dirty.held)
    assert accuracy(learned.model, dirty.held) >= accuracy(dirty.model, dirty.held) - MOST_LOST
    assert success_of(learned.model, dirty) <= MOST_SUCCESS


def test_plain_training_learns_everything_the_backdoor_too(dirty: DirtyWorld) -> None:
    learned = learned_by(Plain, dirty.poisoned.samples)
    assert success_of(learned.model, dirty) > 0.9
    assert learned.distrusted is None


def test_abl_isolates_a_share_and_tells_how_fast_it_was_learned() -> None:
    samples = goodnet.load_data("digits", limit=200)
    learner = Abl(recipe=Recipe(epochs=1), share=0.05, isolation_epochs=3, batch_size=32, steps=2)
    learned = learner.run(Defender(model=asked(samples), training_set=samples))
    assert learned.distrusted is not None
    assert learned.losses is not None
    assert int(learned.distrusted.sum()) == 10
    assert learned.losses.shape == (3, 200)
    last = learned.losses[-1]
    assert last[learned.distrusted].max() <= last[~learned.distrusted].min()
    curves = learned.evidence["loss_curves"]
    assert len(curves["kept"]["median"]) == 3
    assert curves["isolated"]["median"][-1] == pytest.approx(float(last[learned.distrusted].double().quantile(0.5)))
    assert sum(learned.evidence["isolated_labels"]) == 10
    assert learned.model.origin.history[0]["learn"] == "abl"


def test_the_ascent_stops_at_the_first_damage_and_takes_it_back() -> None:
    samples = goodnet.load_data("digits", limit=300)
    model = goodnet.fit(asked(samples), samples, RECIPE)
    threes = samples.pick(samples.labels == 3)
    run = Run(generator())
    given = {"steps": 30, "growth": 1.0, "batch_size": 32, "progress": lambda share, text: None}
    wild = unlearn(model, threes, samples, run, learning_rate=1.0, most_damage=0.01, **given)
    assert wild.damaged
    assert wild.accuracy[1] >= wild.accuracy[0] - 0.01
    assert balanced_accuracy(wild.model, samples) == pytest.approx(wild.accuracy[1])
    careless = unlearn(model, threes, samples, run, learning_rate=1.0, most_damage=1.0, **given)
    assert not careless.damaged
    assert careless.remembered[1] < 0.5 < careless.remembered[0]
    assert balanced_accuracy(careless.model, samples) < wild.accuracy[1]


def test_the_ascent_ends_where_every_loss_is_that_of_a_guess() -> None:
    samples = goodnet.load_data("digits", limit=60)
    model = asked(samples)
    with torch.no_grad():
        model.head().weight.zero_()
        model.head().bias.copy_(torch.arange(10) * -1.0)
    nines = Samples(samples.images, labels=torch.full((60,), 9))  # a loss far above log 10
    made = unlearn(
        model,
        nines,
        samples,
        Run(generator()),
        steps=5,
        learning_rate=1.0,
        growth=1.0,
        batch_size=60,
        most_damage=1.0,
        progress=lambda share, text: None,
    )
    assert made.steps == 0


def test_damage_is_looked_for_where_poison_is_unlikely() -> None:
    labels = torch.tensor([0] * 100 + [1] * 20 + [2] * 20)  # label 0 has 80 poisoned ones, the first
    losses = torch.cat([torch.linspace(0.01, 0.4, 80), torch.linspace(1, 2, 20), torch.ones(40)])
    isolated = lowest(losses, 10)
    chosen = watched_places(labels, losses, isolated, 30, generator())
    assert not isolated[chosen].any()
    assert (labels[chosen] == 0).sum() == 10  # half of what the median label has
    assert chosen[labels[chosen] == 0].min() >= 80
    assert (labels[chosen] == 1).sum() == (labels[chosen] == 2).sum() == 10
    fewer = watched_places(labels, losses, isolated, 3, generator())
    assert labels[fewer].bincount().tolist() == [1, 1, 1]


def test_accuracy_is_a_mean_over_labels() -> None:
    samples = goodnet.load_data("digits", limit=60)
    model = asked(samples)
    with torch.no_grad():
        model.head().weight.zero_()
        model.head().bias.copy_((torch.arange(10) == 4).float())
    mixed = Samples(samples.images[:10], labels=torch.tensor([4] * 9 + [2]))
    assert balanced_accuracy(model, mixed) == 0.5


def test_flooding_keeps_the_loss_above_its_level() -> None:
    samples = goodnet.load_data("digits", limit=20)
    model, images = asked(samples).eval(), samples.floats()
    plain = torch.nn.functional.cross_entropy(model(images), samples.labels)
    for level, expected in ((0.1, plain), (5.0, 10.0 - plain)):
        value = flooding(level)(model, images, samples.labels, generator())
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        assert value.item() >= level


def test_loss_curves_are_quartiles_of_both_groups() -> None:
    losses = torch.tensor([[1.0, 2.0, 3.0, 10.0, 20.0], [0.0, 0.0, 0.0, 4.0, 6.0]])
    curves = loss_curves(losses, torch.tensor([True, True, True, False, False]))
    assert curves["isolated"]["median"] == [2.0, 0.0]
    assert curves["kept"] == {"low": [12.5, 4.5], "median": [15.0, 5.0], "high": [17.5, 5.5]}
    assert loss_curves(losses, torch.ones(5, dtype=torch.bool))["kept"]["median"] == []


def test_retraining_takes_any_cleanser_and_says_its_rule(dirty: DirtyWorld) -> None:
    learned = learned_by(Retrain, dirty.poisoned.samples)
    assert learned.distrusted is not None
    assert learned.notes["removed"] == int(learned.distrusted.sum()) > 0
    assert learned.evidence["rule"]
    held = Defender(model=asked(dirty.clean_set), training_set=dirty.clean_set)
    with pytest.raises(UnknownName, match="no cleanser named"):
        Retrain(cleanser="none").run(held)
    with pytest.raises(NotHeld, match="scan needs clean images"):
        Retrain(cleanser="scan", recipe=Recipe(epochs=1)).run(held)


def test_a_set_that_does_not_fit_the_network_is_refused(dirty: DirtyWorld) -> None:
    model = asked(dirty.clean_set)
    small = Samples(torch.zeros(20, 1, 16, 16, dtype=torch.uint8), labels=torch.zeros(20, dtype=torch.int64))
    many = Samples(dirty.clean_set.images[:20], labels=torch.full((20,), 10))
    for samples, words in ((small, "shape"), (many, "label 10")):
        with pytest.raises(NotApplicable, match=words):
            Plain().run(Defender(model=model, training_set=samples))


def test_training_that_diverges_is_told() -> None:
    samples = goodnet.load_data("digits", limit=100)
    recipe = Recipe(epochs=2, learning_rate=1e38, schedule="constant")
    with pytest.raises(NotApplicable, match="diverged"):
        Plain(recipe=recipe).run(Defender(model=asked(samples), training_set=samples))
