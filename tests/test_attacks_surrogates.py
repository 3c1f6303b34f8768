"""Attacks that train networks of their own: steps downhill, hard images, colliding features, hidden bits."""

from dataclasses import replace

import pytest
import torch

import goodnet
from goodnet.attacks._learned import arrays_of
from goodnet.attacks._surrogate import adversarial_cross_entropy, descend
from goodnet.attacks.feature_collision import FeatureCollision
from goodnet.attacks.issba import Issba
from goodnet.attacks.label_consistent import LabelConsistent
from goodnet.core.classifier import Classifier, Preprocessing, predictions
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError
from goodnet.models import architectures
from goodnet.training import Recipe, accuracy, fit
from goodnet.triggers import corner_checkerboards

QUICK = {"surrogate": "small_cnn:width=4", "surrogate_epochs": 4}


@pytest.fixture(scope="module")
def digits() -> Samples:
    return goodnet.load_data("digits", limit=500)


def network(samples: Samples, width: int = 4, preprocessing: Preprocessing = Preprocessing()) -> Classifier:  # noqa: B008
    name = f"small_cnn:width={width}"
    with isolated_rng(0):
        net = architectures.build(name, num_classes=10, input_shape=samples.shape)
    return Classifier(
        net, input_shape=samples.shape, num_classes=10, architecture=name, preprocessing=preprocessing
    ).eval()


@pytest.fixture(scope="module")
def public(digits) -> Classifier:
    recipe = Recipe(epochs=8, batch_size=32, optimizer="adam", learning_rate=0.002)
    return fit(network(digits), digits, recipe)


# --- steps downhill ---


def test_descending_lowers_the_loss_and_stays_near_and_within_range():
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[0], images[1] = 0, 1
    before = images.clone()
    weights = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))

    def loss(moved: torch.Tensor) -> torch.Tensor:
        return (moved * weights).sum()

    with torch.no_grad():  # whatever the caller's mode
        moved = descend(images, loss, epsilon=0.1, step=0.03, steps=10)
    wanted = (images - 0.1 * weights.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, wanted)
    assert torch.equal(images, before)
    assert not moved.requires_grad
    assert torch.equal(descend(images, loss, epsilon=0.1, step=0.03, steps=0), images)


def attacked_accuracy(model: Classifier, samples: Samples, epsilon: float) -> float:
    def sureness(moved: torch.Tensor) -> torch.Tensor:
        return -torch.nn.functional.cross_entropy(model(moved), samples.labels)

    moved = descend(samples.floats(), sureness, epsilon=epsilon, step=epsilon / 4, steps=10)
    return float((predictions(model, moved).argmax(1) == samples.labels).float().mean())


def test_adversarial_training_gives_a_network_that_withstands_more(digits, public):
    recipe = Recipe(epochs=8, batch_size=32, optimizer="adam", learning_rate=0.002)
    robust = fit(network(digits), digits, recipe, loss=adversarial_cross_entropy(0.1, 2))
    probed = digits.pick(torch.arange(200))
    assert accuracy(public, probed) > 0.9
    assert attacked_accuracy(robust, probed, 0.1) > attacked_accuracy(public, probed, 0.1) + 0.2


# --- a known network ---


def test_a_known_network_is_taken_as_it_is(digits, public):
    made = FeatureCollision(target=3, steps=1).knowing(public).poison(digits)
    assert made.attack.surrogate == "small_cnn:width=4"
    for name, value in public.net.state_dict().items():
        assert torch.equal(made.attack.learned[f"surrogate.{name}"], value)
    again = made.attack.poison(digits)
    assert torch.equal(again.attack.learned["sources"], made.attack.learned["sources"])


def test_a_network_that_cannot_be_rebuilt_is_refused(digits):
    for wrong in (network(digits, preprocessing=Preprocessing(scale=255.0)), network(digits)):
        if wrong.preprocessing == Preprocessing():
            wrong.architecture = ""
        with pytest.raises(ParameterError, match="named architecture and without preprocessing"):
            LabelConsistent().knowing(wrong)


def test_what_was_learned_from_other_images_is_refused(digits, public):
    attack = LabelConsistent(steps=1).knowing(public)
    small = Samples(images=digits.images[:, :, :20, :20].contiguous(), labels=digits.labels)
    with pytest.raises(ParameterError, match="what was learned does not fit"):
        attack.poison(small)


# --- label-consistent ---


def test_label_consistent_images_are_hard_near_and_have_the_pattern(digits, public):
    attack = replace(LabelConsistent(target=3, epsilon=0.1, step=0.02, steps=10).knowing(public), amplitude=0.25)
    made = attack.poison(digits)
    assert torch.equal(made.samples.labels, digits.labels)
    assert (digits.labels[made.mask] == 3).all()
    poisoned, clean = made.samples.pick(made.mask).floats(), digits.pick(made.mask).floats()
    pattern = corner_checkerboards(32, 32, 3)
    inside = pattern != 0
    assert int(inside.sum()) == 4 * 9
    assert float((poisoned - clean)[..., ~inside].abs().max()) <= 0.1 + 1 / 255
    hard = (poisoned - 0.25 * pattern).clamp(0, 1)
    sure = [predictions(public, images).softmax(1)[:, 3].mean() for images in (clean, hard)]
    assert float(sure[0]) > 0.8
    assert float(sure[1]) < 0.5


def test_the_pattern_is_full_at_test_time_and_fainter_in_training(digits):
    grey = Samples(images=torch.full((20, 1, 16, 16), 128, dtype=torch.uint8), labels=torch.zeros(20).long())
    attack = LabelConsistent(amplitude=0.25, steps=0, robust=False, poisoning_rate=1.0, **QUICK)
    made = attack.poison(grey)
    corner = made.samples.floats()[0, 0, :3, :3]
    torch.testing.assert_close(corner[0], 128 / 255 + 0.25 * torch.tensor([1.0, -1.0, 1.0]), atol=1 / 255, rtol=0)
    assert attack.stamp(grey.floats())[0, 0, -3:, -3:].flatten().tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]


# --- feature collision ---


def test_colliding_images_never_show_the_trigger_and_move_toward_stamped_features(digits, public):
    attack = FeatureCollision(target=3, size=6, poisoning_rate=1.0, step=0.01, epsilon=0.15, steps=40).knowing(public)
    made = attack.poison(digits)
    assert torch.equal(made.samples.labels, digits.labels)
    poisoned, clean = made.samples.pick(made.mask).floats(), digits.pick(made.mask).floats()
    assert float((poisoned - clean).abs().max()) <= 0.15 + 1 / 255
    stamped = made.attack.stamp(made.attack.learned["sources"].float() / 255)
    assert (stamped[:, :, -7:-1, -7:-1] == 1).all()

    def distance(images: torch.Tensor) -> float:
        """To the nearest stamped image, in feature space."""
        with torch.no_grad():
            features, goals = (public.features_and_logits(one)[0] for one in (images, stamped))
        return float(torch.cdist(features, goals).amin(1).mean())

    assert distance(poisoned) < 0.8 * distance(clean)


def test_sources_are_images_of_other_classes(digits, public):
    made = FeatureCollision(target=3, steps=1, stored=30).knowing(public).poison(digits)
    others = {tuple(image.flatten().tolist()) for image in digits.images[digits.labels != 3]}
    sources = made.attack.learned["sources"]
    assert len(sources) == 30
    assert all(tuple(image.flatten().tolist()) in others for image in sources)


# --- ISSBA ---

SMALL = (1, 16, 16)


@pytest.fixture(scope="module")
def trained(digits) -> tuple[Issba, torch.nn.Module]:
    """An attack that has learned its trigger, and the decoder, which it does not keep."""
    attack = Issba(target=3, bits=4, steps=400, width=8)
    with isolated_rng(0) as generator:
        pair = attack._trained_pair(digits.fitted_to(SMALL), generator)
    arrays = arrays_of(pair.encoder, "encoder") | {"secret": torch.tensor([0.0, 1.0, 1.0, 0.0])}
    return replace(attack, learned=arrays), pair.decoder


def test_the_decoder_reads_the_secret_from_images_that_hardly_change(trained):
    attack, decoder = trained
    fresh = goodnet.load_data("digits", split="test", limit=100).fitted_to(SMALL).floats()
    encoded = attack.stamp(fresh)
    assert float((encoded - fresh).abs().max()) <= attack.strength + 1e-6
    assert float((encoded - fresh).abs().mean()) < attack.strength / 2
    with torch.no_grad():
        read, unread = (decoder((images * 255).round() / 255) > 0 for images in (encoded, fresh))
    wanted = attack.learned["secret"].bool()
    assert float((read == wanted).float().mean()) > 0.9
    assert float((unread == wanted).all(1).float().mean()) < 0.5


def test_every_image_gets_a_residual_of_its_own_and_always_the_same(digits, trained):
    attack, _ = trained
    images = digits.fitted_to(SMALL).floats()[:50]
    residual = attack._stamp(images) - images  # before anything is clipped
    own = (residual - residual.mean(0)).square().mean()
    assert float(own) > 0.05 * float(residual.square().mean())
    torch.testing.assert_close(attack.stamp(images[7:8]), attack.stamp(images)[7:8], atol=1e-5, rtol=0)


def test_another_secret_is_another_trigger(digits, trained):
    attack, _ = trained
    other = replace(attack, learned={**attack.learned, "secret": 1 - attack.learned["secret"]})
    images = digits.fitted_to(SMALL).floats()[:5]
    assert not torch.allclose(other.stamp(images), attack.stamp(images), atol=0.01)


def test_small_sets_are_seen_as_often_as_it_takes(digits):
    few = digits.fitted_to(SMALL).pick(torch.arange(40))
    once, often = (Issba(bits=4, width=4, steps=steps).poison(few).attack.learned for steps in (1, 20))
    assert not torch.equal(once["encoder.body.0.weight"], often["encoder.body.0.weight"])


def test_a_trigger_that_is_not_learned_yet_cannot_be_stamped(digits):
    with pytest.raises(NotHeld, match=r"issba learns its trigger from data: stamp with poison\(samples\).attack"):
        Issba().stamp(digits.floats()[:1])
