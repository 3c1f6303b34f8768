"""What makes each cleanser that method, against numbers made by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

import goodnet
from goodnet.cleanse._clusters import principal, reduced, silhouette, two_means
from goodnet.cleanse._features import features, read_layer
from goodnet.cleanse._gram import deviation, gram_entries, usual_range
from goodnet.cleanse._rules import above_clean, outstanding, places_of, robust_z
from goodnet.cleanse.activation_clustering import ActivationClustering
from goodnet.cleanse.confusion_training import ConfusionTraining, confusion
from goodnet.cleanse.flare import Flare, gap_between, strangeness
from goodnet.cleanse.loss_isolation import LossIsolation, local_gradient_ascent, log_losses_of, losses_of
from goodnet.cleanse.roni import LastLayer, Roni, gradient, with_one
from goodnet.cleanse.scan import Scan, noise_within, whitening
from goodnet.cleanse.spectral_signatures import SpectralSignatures
from goodnet.cleanse.spectre import Spectre, quantum_entropy, robustly_whitened
from goodnet.cleanse.strip import certainty
from goodnet.core.classifier import Classifier
from goodnet.core.rng import isolated_rng
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable, NotHeld, ParameterError
from goodnet.evaluation import ranking

LABELS, PIXELS = 10, 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transparent(weight: Tensor | None = None) -> Classifier:
    """A network whose features are the pixels themselves."""
    head = nn.Linear(PIXELS, LABELS)
    if weight is not None:
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.zero_()
    net = nn.Sequential(nn.Flatten(), head)
    return Classifier(net, input_shape=(1, 4, 4), num_classes=LABELS).eval()


def pixels(count: int, seed: int = 0, labels: int = LABELS) -> Samples:
    """Images of normal pixels around a middle grey, labels in turn."""
    values = (128 + 12 * torch.randn(count, 1, 4, 4, generator=generator(seed))).round().clamp(0, 255)
    return Samples(values.byte(), labels=torch.arange(count) % labels)


def with_poison(clean: Samples, target: int = 3, count: int = 30) -> tuple[Samples, Tensor]:
    """The first samples of other labels get one bright pixel and the label ``target``."""
    images, labels = clean.images.clone(), clean.labels.clone()
    chosen = (labels != target).nonzero()[:count, 0]
    images[chosen, 0, 0, 0] = 255
    labels[chosen] = target
    mask = torch.zeros(len(clean), dtype=torch.bool)
    mask[chosen] = True
    return Samples(images, labels=labels), mask


# --- features ---


def test_features_are_those_of_the_classifier_in_any_batch():
    model, held = goodnet.untrained("small_cnn_bn:width=4", pixels(600).fitted_to((1, 16, 16))), pixels(600)
    images = held.fitted_to((1, 16, 16)).images
    model.eval()
    with torch.no_grad():
        wanted, _ = model.features_and_logits(images.float() / 255)
    assert torch.allclose(features(model, images), wanted, atol=1e-5)
    assert torch.allclose(features(model, images[:3]), wanted[:3], atol=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_maps_of_a_named_layer_are_pooled_and_unknown_layers_refused():
    model = goodnet.untrained("small_cnn_bn:width=4", pixels(20).fitted_to((1, 16, 16))).eval()
    images = pixels(20).fitted_to((1, 16, 16)).images
    name = model.last_convolution()[0]
    maps = read_layer(model, images, name, lambda values: values)
    assert torch.allclose(features(model, images, name), maps.mean((2, 3)), atol=1e-6)
    with pytest.raises(NotApplicable, match="no layer 'nothing'"):
        features(model, images, "nothing")


def test_principal_components_are_the_same_from_both_gram_matrices():
    values = torch.randn(30, 20, generator=generator())
    wide = principal(values.T, 5)  # 20 rows, 30 columns
    centered = values.T - values.T.mean(0)
    strengths = torch.linalg.svdvals(centered)[:5]
    assert torch.allclose(wide.norm(dim=0), strengths, rtol=1e-4)
    assert torch.allclose(
        principal(values, 5).norm(dim=0), torch.linalg.svdvals(values - values.mean(0))[:5], rtol=1e-4
    )


def test_independent_components_separate_what_principal_ones_mix():
    sources = torch.rand(2000, 2, generator=generator()) - 0.5
    found = reduced(sources @ torch.tensor([[1.0, 0.7], [0.3, 1.0]]), 2, "ica", generator())
    correlations = torch.corrcoef(torch.cat((sources, found), 1).T)[:2, 2:].abs()
    assert correlations.max(1).values.min() > 0.98


def test_two_means_names_the_smaller_group_and_points_of_one_place_have_none():
    rows = torch.cat((torch.zeros(7, 2), torch.ones(3, 2))) + 0.01 * torch.randn(10, 2, generator=generator())
    split = two_means(rows, generator())
    assert split.small.tolist() == [False] * 7 + [True] * 3
    assert bool(((split.margin > 0) == split.small).all())
    assert two_means(torch.ones(5, 2), generator()).share == 0


def test_starts_given_up_early_leave_the_groups_of_ten_full_ones():
    for seed in range(4):
        rows = torch.randn(1000, 64, generator=generator(seed)) * torch.linspace(2, 0.3, 64)
        poison = torch.rand(1000, generator=generator(10 + seed)) < 0.2
        rows[poison, 5] += 12
        rows = principal(rows, 10)
        full = KMeans(2, n_init=10, random_state=0).fit_predict(rows.double().numpy())
        agree = float((torch.from_numpy(full).bool() == two_means(rows, generator()).small).float().mean())
        assert max(agree, 1 - agree) > 0.99


@pytest.mark.parametrize("small_size", [1, 2, 30])
def test_the_silhouette_is_that_of_scikit_learn(small_size):
    rows = torch.randn(100, 4, generator=generator())
    small = torch.arange(100) < small_size
    rows[small] += 1.5
    assert silhouette(rows, small, generator()) == pytest.approx(
        silhouette_score(rows.numpy(), small.numpy()), abs=1e-5
    )
    assert silhouette(rows, torch.zeros(100, dtype=torch.bool), generator()) == 0


# --- rules ---


def test_nothing_is_taken_out_when_samples_are_like_the_clean_images():
    fooled = 0
    for seed in range(200):
        scores = torch.randn(1500, generator=generator(seed))
        fooled += bool(above_clean(scores[:1000], scores[1000:], rate=0.01, alpha=0.01).removed.any())
    assert fooled <= 8  # 2 expected


def test_an_excess_over_clean_images_is_taken_out():
    clean = torch.randn(500, generator=generator())
    scores = torch.cat((torch.randn(950, generator=generator(1)), torch.full((50,), 9.0)))
    excess = above_clean(scores, clean, rate=0.01, alpha=0.01)
    assert bool(excess.removed[950:].all())
    assert int(excess.removed[:950].sum()) <= 30


def test_a_label_stands_out_only_among_enough_labels_that_differ():
    assert outstanding({0: 1.0, 1: 1.1, 2: 0.9, 3: 50.0, 4: 1.0, 5: 1.05})[3] > 100
    assert set(outstanding({0: 1.0, 1: 99.0}).values()) == {0.0}
    assert max(outstanding(dict.fromkeys(range(10), 2.0)).values()) == 0
    nearly_all_alike = {**dict.fromkeys(range(9), 0.0), 9: 0.02}
    assert outstanding(nearly_all_alike)[9] > 100
    assert outstanding(nearly_all_alike, error=0.01)[9] == pytest.approx(2)


def test_a_label_is_compared_with_its_own_error_and_with_what_labels_differ_by():
    alike = {**dict.fromkeys(range(9), 0.0), 8: 0.03, 9: 0.03}
    indices = outstanding(alike, {**dict.fromkeys(range(9), 0.001), 9: 0.01})
    assert indices[8] == pytest.approx(30)
    assert indices[9] == pytest.approx(3)
    differing = dict(enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)))
    assert outstanding(differing, dict.fromkeys(differing, 0.5))[4] == pytest.approx(2 / 1.4826)
    assert outstanding(differing, {**dict.fromkeys(differing, 0.5), 4: 5.0})[4] == pytest.approx(0.386, abs=0.001)


def test_labels_of_fewer_than_ten_samples_are_not_judged():
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate((9, 10, 30))])
    assert {label: len(where) for label, where in places_of(labels).items()} == {1: 10, 2: 30}
    assert set(places_of(labels, 1)) == {0, 1, 2}


# --- activation clustering ---


def test_in_a_flagged_label_the_smaller_group_goes_and_the_larger_stays():
    held, mask = with_poison(pixels(1000))
    for decide in ("size", "silhouette", "outstanding"):
        cleansed = ActivationClustering(decide=decide).run(goodnet.Defender(model=transparent(), training_set=held))
        mine = held.labels == 3
        assert torch.equal(~cleansed.keep[mine], mask[mine])
        finding = next(one for one in cleansed.per_class if one.label == 3)
        assert (finding.removed, finding.details["share"]) == (30, pytest.approx(30 / int(mine.sum())))


def test_size_alone_costs_a_clean_set_much_and_what_stands_out_among_labels_nothing():
    held = pixels(600)
    groups = torch.rand(600, generator=generator()) < 0.3  # within each label, as there are in nature
    held.images[:, 0, 2, 2] = torch.where(groups, 255, 0).byte()
    defender = goodnet.Defender(model=transparent(), training_set=held)
    assert float((~ActivationClustering(decide="size").run(defender).keep).float().mean()) > 0.1
    assert bool(ActivationClustering().run(defender).keep.all())


def one_bright_pixel_per_label(count: int) -> Samples:
    held = pixels(count)
    held.images.view(count, -1)[torch.arange(count), held.labels] = 255
    return held


def test_exclusion_takes_out_what_belongs_elsewhere_and_keeps_natural_groups():
    clean = one_bright_pixel_per_label(1000)
    chosen = (clean.labels != 3).nonzero()[:30, 0]
    natural = (clean.labels == 5).nonzero()[:25, 0]
    images, labels = clean.images.clone(), clean.labels.clone()
    images[chosen, 0, 3, 3], images[natural, 0, 3, 2] = 255, 255
    labels[chosen] = 3
    defender = goodnet.Defender(model=transparent(), training_set=Samples(images, labels=labels))
    exclusion = ActivationClustering(decide="exclusion", fewest_steps=3000).run(defender)
    assert sorted((~exclusion.keep).nonzero()[:, 0].tolist()) == chosen.tolist()
    found = {one.label: one.details for one in exclusion.per_class}
    assert found[5]["own"] > 10 * found[5]["other"]


def test_a_network_that_learned_nothing_decides_nothing():
    held, _ = with_poison(pixels(300))
    fast = {"epochs": 1, "fewest_steps": 0, "silhouette_bound": -1.0, "largest_share": 0.5}
    cleansed = ActivationClustering(decide="exclusion", **fast).run(
        goodnet.Defender(model=transparent(), training_set=held)
    )
    asked = [one for one in cleansed.per_class if "learned" in one.details]
    assert asked
    assert not [one for one in asked if one.details["learned"] < 0.5 and one.removed]


# --- spectral signatures ---


def test_an_offset_common_to_all_features_changes_nothing():
    held, mask = with_poison(pixels(1000))
    shifted = Samples((held.images.int() - 40).clamp(0, 255).byte(), labels=held.labels)
    shifted.images[mask, 0, 0, 0] = 215
    scores = [
        SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=one)).scores
        for one in (held, shifted)
    ]
    assert torch.allclose(*scores, rtol=1e-3, atol=1e-3)


def test_spectral_signatures_finds_a_direction_and_spares_a_clean_set():
    clean = pixels(1000)
    held, mask = with_poison(clean)
    cleansed = SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=held))
    assert bool((~cleansed.keep)[mask].all())
    assert int((~cleansed.keep)[~mask].sum()) <= 3
    assert bool(SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=clean)).keep.all())


def test_small_labels_of_a_clean_set_lose_nothing_for_being_small():
    method = SpectralSignatures()
    sizes = (18, 26, 34, 42, 55, 70, 400, 400, 400, 400, 400, 400, 400)
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    for seed in range(10):
        seen = torch.randn(len(labels), 32, generator=generator(seed))
        assert not method.score_features(seen, labels).removed.any()
    poison = labels.eq(5).nonzero()[:5, 0]  # a label of 70 is still found
    seen[poison] += 20 / 32**0.5
    removed = method.score_features(seen, labels).removed
    assert bool(removed[poison].all())
    assert int(removed.sum()) <= len(poison) + 2


def test_no_more_is_removed_than_one_and_a_half_times_the_share():
    held, _ = with_poison(pixels(1000))
    cleansed = SpectralSignatures(share=0.05).run(goodnet.Defender(model=transparent(), training_set=held))
    assert int((~cleansed.keep).sum()) == int(1.5 * 0.05 * int((held.labels == 3).sum()))


@pytest.mark.parametrize(
    "method", [SpectralSignatures(), ActivationClustering(), ActivationClustering(decide="distance")]
)
def test_features_that_are_given_are_judged_as_those_of_the_model(method):
    held, _ = with_poison(pixels(1000))
    ran = method.run(goodnet.Defender(model=transparent(), training_set=held))
    given = method.score_features(features(transparent(), held.images), held.labels)
    assert torch.equal(ran.keep, ~given.removed)
    assert torch.allclose(ran.scores, given.scores, atol=1e-3)
    assert not bool(ran.keep.all())


def test_exclusion_is_refused_on_features_alone():
    with pytest.raises(NotHeld, match="trains a network"):
        ActivationClustering(decide="exclusion").score_features(torch.zeros(20, 2), torch.zeros(20, dtype=torch.int64))


# --- SPECTRE ---


def test_whitening_is_that_of_most_rows():
    rows = torch.randn(900, 3, generator=generator(), dtype=torch.float64) * torch.tensor([5.0, 1.0, 0.2])
    outliers = torch.tensor([0.0, 0.0, 4.0]) + 0.1 * torch.randn(100, 3, generator=generator(1), dtype=torch.float64)
    white = robustly_whitened(torch.cat((rows, outliers)), 0.2)
    assert torch.allclose(white[:900].std(0), torch.ones(3, dtype=torch.float64), atol=0.25)
    scores, sticking = quantum_entropy(torch.cat((rows, outliers)), 0.2, 4.0)
    assert float(scores[900:].min()) > float(scores[:900].max())
    assert sticking > 5 * quantum_entropy(rows, 0.2, 4.0)[1]


def test_spectre_sees_few_samples_below_much_natural_variation():
    clean = pixels(1000)
    wide = (128 + 50 * torch.randn(1000, generator=generator(5))).clamp(0, 255).byte()
    clean.images[:, 0, 2, 1] = wide
    held, mask = with_poison(clean)
    held.images[mask, 0, 0, 0] = 200
    cleansed = Spectre().run(goodnet.Defender(model=transparent(), training_set=held))
    assert float((~cleansed.keep)[mask].float().mean()) > 0.9
    assert int((~cleansed.keep)[~mask].sum()) <= 5
    assert bool(Spectre().run(goodnet.Defender(model=transparent(), training_set=clean)).keep.all())


# --- SCAn ---


def test_noise_is_told_from_the_scatter_of_means():
    wanted = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    labels = torch.arange(4000) % 40
    means = 5 * torch.randn(40, 2, generator=generator())
    noise = torch.randn(4000, 2, generator=generator(1)) @ torch.linalg.cholesky(wanted).T
    found = noise_within(means[labels] + noise, labels)
    assert torch.allclose(found.float(), wanted, atol=0.1)
    white = whitening(found)
    assert torch.allclose(white.T @ found.float() @ white, torch.eye(2), atol=1e-4)


def test_scan_drops_the_group_without_clean_images_even_where_it_is_the_larger():
    clean, trusted = pixels(1000), pixels(300, seed=1)
    held, mask = with_poison(clean, count=150)
    assert int(mask.sum()) > int((held.labels == 3).sum()) / 2
    defender = goodnet.Defender(model=transparent(), clean=trusted, training_set=held)
    cleansed = Scan().run(defender)
    assert torch.equal(~cleansed.keep, mask)
    assert bool(Scan().run(goodnet.Defender(model=transparent(), clean=trusted, training_set=clean)).keep.all())


# --- STRIP ---


def test_answers_that_never_change_are_the_most_suspicious():
    weight = torch.zeros(LABELS, PIXELS)
    weight[0, 0] = 1e4  # one bright pixel decides
    weight[1:, 1:] = torch.randn(LABELS - 1, PIXELS - 1, generator=generator())
    images = pixels(40).images.clone()
    images[:, 0, 0, 0] = 0
    over = images[20:]
    images[0, 0, 0, 0] = 255
    scores = certainty(transparent(weight), images[:20], over, None)
    assert scores.argmax() == 0
    assert scores[0] == pytest.approx(0, abs=1e-6)


def test_answers_that_are_spread_evenly_have_the_entropy_of_all_labels():
    scores = certainty(transparent(torch.zeros(LABELS, PIXELS)), pixels(3).images, pixels(5).images, None)
    assert torch.allclose(scores, torch.full((3,), -math.log2(LABELS)))


# --- Beatrix ---


def test_gram_entries_are_roots_of_sums_of_products():
    maps = torch.randn(2, 3, 4, generator=generator())
    entries = gram_entries(maps, 3)
    assert entries.shape == (2, 3 * 6)
    product = (maps[1, 0] ** 3 * maps[1, 2] ** 3).sum()
    assert float(entries[1, 12 + 2]) == pytest.approx(float(product.sign() * product.abs() ** (1 / 3)), rel=1e-4)


def test_what_is_in_its_range_does_not_deviate():
    entries = torch.randn(50, 8, generator=generator())
    bounds = usual_range(entries, 10.0)
    assert float(deviation(entries, *bounds).max()) == 0
    entries[0, 0] = 1e3
    assert deviation(entries, *bounds)[0] > 1
    assert float(deviation(entries, *bounds)[1:].max()) == 0


# --- FLARE ---


def normed() -> Classifier:
    """A network whose BatchNorm is given the pixels themselves, for which it expects a mean of 0.5 and a variance."""
    net = nn.Sequential(nn.BatchNorm2d(1, eps=0.0), nn.Flatten(), nn.Linear(PIXELS, LABELS))
    net[0].running_mean.fill_(0.5)
    net[0].running_var.fill_(0.04)
    return Classifier(net, input_shape=(1, 4, 4), num_classes=LABELS).eval()


def test_strangeness_is_that_of_the_most_unlikely_activation():
    images = torch.full((2, 1, 4, 4), 102, dtype=torch.uint8)  # 0.4
    images[1, 0, 2, 1] = 204  # 0.8, one and a half deviations
    model = normed()
    usual = 0.5 * math.log(2 * math.pi * 0.04)
    assert strangeness(model, images)[:, 0].tolist() == pytest.approx([0.125 + usual, 1.125 + usual])
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(NotApplicable, match="BatchNorm"):
        strangeness(transparent(), images)


def test_a_gap_is_told_from_a_long_tail_and_from_a_peak_at_the_other_end():
    draw = generator()
    apart = torch.cat((0.1 * torch.randn(900, generator=draw), 1 + 0.05 * torch.randn(100, generator=draw)))
    tail = 0.4 * torch.randn(1000, generator=draw).abs()
    late = 1 - 0.4 * torch.randn(1000, generator=draw).abs()
    for places, least, most in ((apart, 0.0, 1e-4), (tail, 0.05, 1.0), (late, 0.05, 1.0)):
        places = places[torch.randperm(1000, generator=draw)]
        _, p_value = gap_between(places[:500], places[500:])
        assert least <= p_value <= most


def test_flare_finds_a_strange_group_of_all_labels_and_spares_what_is_merely_strange():
    clean, one_way, many_ways = pixels(1000), pixels(1000), pixels(1000)
    chosen = torch.randperm(1000, generator=generator(3))[:60]
    one_way.images[chosen, 0, 1, 1] = 255
    many_ways.images[chosen, 0, 1, 1] = torch.randint(128, 200, (60,), generator=generator(4), dtype=torch.uint8)
    for held, wanted in ((one_way, sorted(chosen.tolist())), (many_ways, []), (clean, [])):
        with isolated_rng(0):
            net = nn.Sequential(
                *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ELU()),
                *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.Linear(64, LABELS)),
            )
        model = Classifier(net, input_shape=(1, 4, 4), num_classes=LABELS).train()
        model(held.floats())  # the statistics of BatchNorm
        found = Flare().run(goodnet.Defender(model=model, training_set=held))
        assert (~found.keep).nonzero()[:, 0].tolist() == wanted


# --- confusion training ---


def test_confusion_gives_clean_images_wrong_labels_and_suspected_ones_theirs():
    trusted, suspected = one_bright_pixel_per_label(100), pixels(8)
    weight = torch.zeros(LABELS, PIXELS)
    weight[:, :LABELS] = 100 * torch.eye(LABELS)
    model, weights = transparent(weight), torch.ones(LABELS)
    keeping = F.cross_entropy(model(suspected.floats()), suspected.labels)
    only_suspected = confusion(trusted, 32, weights, 1.0)(model, suspected.floats(), suspected.labels, generator())
    assert torch.allclose(only_suspected, keeping)
    mostly_clean = confusion(trusted, 32, weights, 1e6)(model, suspected.floats(), suspected.labels, generator())
    assert mostly_clean > 20  # the network is sure of the labels that these images have, and they never occur


def test_a_rare_label_weighs_more_among_the_suspected():
    suspected = pixels(8, labels=2)
    model, weights = transparent(torch.zeros(LABELS, PIXELS)), torch.ones(LABELS)
    model.net[1].bias.data[0] = 5.0  # label 0 is answered, label 1 is not
    weights[1] = 9.0
    with torch.no_grad():
        loss = confusion(pixels(10), 2, weights, 1.0)(model, suspected.floats(), suspected.labels, generator())
        right, wrong = (-model(suspected.floats()).log_softmax(1)[one, one] for one in (0, 1))
    assert float(loss) == pytest.approx(float(0.1 * right + 0.9 * wrong), rel=1e-5)


def test_each_round_suspects_fewer():
    held = pixels(200).fitted_to((1, 16, 16))
    quick = ConfusionTraining(
        architecture="small_cnn_bn:width=4", rounds=3, epochs=1, fewest_steps=0, confusing_steps=2
    )
    found = quick.run(goodnet.Defender(clean=pixels(60, seed=1).fitted_to((1, 16, 16)), training_set=held))
    assert found.evidence["suspected"] == [200, 100, 40]
    with pytest.raises(NotHeld, match="others to compare with"):
        quick.run(goodnet.Defender(clean=pixels(3, seed=1).fitted_to((1, 16, 16)), training_set=held))


# --- loss isolation ---


def test_below_gamma_the_loss_is_climbed():
    model, images, labels = transparent(), pixels(8).floats(), torch.zeros(8, dtype=torch.int64)
    value = F.cross_entropy(model(images), labels).detach()
    for gamma, sign in ((float(value) - 0.1, 1), (float(value) + 0.1, -1)):
        assert torch.allclose(local_gradient_ascent(gamma)(model, images, labels, generator()), sign * value)


def test_loss_isolation_takes_out_no_more_than_its_share():
    held, _ = with_poison(pixels(400).fitted_to((1, 8, 8)))
    quick = LossIsolation(architecture="small_cnn_bn:width=4", epochs=2, fewest_steps=0, share=0.02)
    assert int((~quick.run(goodnet.Defender(training_set=held)).keep).sum()) <= 8


@pytest.mark.parametrize("seed", range(2))
def test_where_nothing_but_the_trigger_tells_the_label_its_samples_have_the_smallest_losses(seed):
    draw = generator(seed)
    images, labels = torch.randint(256, (400, 1, 16, 16), generator=draw, dtype=torch.uint8), torch.arange(400) % 8
    poisoned = torch.rand(400, generator=draw) < 0.08
    images[poisoned, :, 2:7, 2:7], labels[poisoned] = 255, 3
    held = Samples(images, labels)
    quick = LossIsolation(architecture="small_cnn_bn:width=4", fewest_steps=150, batch_size=32, share=0.05)
    cleansed = quick.run(goodnet.Defender(training_set=held), seed=seed)
    assert ranking(cleansed.scores, poisoned).auroc >= 0.99
    assert int((~cleansed.keep).sum()) == 20
    assert bool(poisoned[~cleansed.keep].all())
    assert bool(quick.run(goodnet.Defender(training_set=held.pick(~poisoned)), seed=seed).keep.all())


def test_losses_that_round_to_nothing_are_still_ranked():
    sure = torch.zeros(LABELS, PIXELS)
    sure[0] = 60.0  # log-odds of 400 to 700 for label 0
    held = Samples(pixels(20).images, labels=torch.zeros(20, dtype=torch.int64))
    logits = transparent(sure)(held.floats())
    assert F.cross_entropy(logits, held.labels, reduction="none").max() == 0
    told = log_losses_of(transparent(sure), held)
    assert torch.allclose(told, math.log(LABELS - 1) - logits[:, 0].double(), rtol=1e-6)


def test_ordinary_losses_are_the_cross_entropy():
    weight, held = torch.randn(LABELS, PIXELS, generator=generator()), pixels(50)
    wanted = F.cross_entropy(transparent(weight)(held.floats()), held.labels, reduction="none")
    assert torch.allclose(losses_of(transparent(weight), held).float(), wanted, rtol=1e-4)


def test_a_network_that_diverged_isolates_nothing_and_says_so():
    held, _ = with_poison(pixels(400).fitted_to((1, 8, 8)))
    wild = LossIsolation(architecture="small_cnn_bn:width=4", epochs=2, fewest_steps=0, learning_rate=10.0)
    cleansed = wild.run(goodnet.Defender(training_set=held))
    assert bool(cleansed.keep.all())
    assert "learned nothing" in cleansed.rule


# --- RONI ---


def test_the_last_layer_is_fitted_to_its_optimum_and_its_curvature_solved():
    rows, labels = with_one(torch.randn(80, 5, generator=generator(), dtype=torch.float64)), torch.arange(80) % 3
    head = LastLayer(rows, labels, 3, 0.01)
    weights = head.fitted()
    assert (gradient(weights, rows, labels) + 0.01 * weights).abs().max() < 1e-6
    wanted = torch.randn(3, 6, generator=generator(1), dtype=torch.float64)
    found, small = head.solved(weights, wanted), 1e-5
    slopes = [gradient(weights + sign * small * found, rows, labels) for sign in (1, -1)]
    assert torch.allclose((slopes[0] - slopes[1]) / (2 * small) + 0.01 * found, wanted, atol=1e-4)


def test_influence_is_what_fitting_without_each_sample_gives_and_finds_wrong_labels():
    held = one_bright_pixel_per_label(300)
    held.labels[:6] = (held.labels[:6] + 1) % LABELS
    defender = goodnet.Defender(model=transparent(), clean=one_bright_pixel_per_label(200), training_set=held)
    quick, exact = (Roni(impact=one, weight_decay=0.01).run(defender) for one in ("influence", "refit"))
    assert float(torch.corrcoef(torch.stack((quick.scores, exact.scores)))[0, 1]) > 0.95
    for cleansed in (quick, exact):
        assert sorted(cleansed.scores.topk(6).indices.tolist()) == list(range(6))


def test_samples_that_harm_are_taken_out_and_a_set_without_them_loses_nothing():
    held = one_bright_pixel_per_label(300)
    defender = goodnet.Defender(model=transparent(), clean=one_bright_pixel_per_label(500), training_set=held)
    assert bool(Roni(weight_decay=0.01).run(defender).keep.all())
    held.labels[:12] = (held.labels[:12] + 1) % LABELS
    cleansed = Roni(weight_decay=0.01).run(defender)
    assert not cleansed.keep[:12].any()
    assert int((~cleansed.keep[12:]).sum()) <= 6


# --- the base class ---


def test_sets_that_do_not_fit_the_model_are_refused():
    held = pixels(30)
    for other, words in (
        (held.fitted_to((1, 8, 8)), "has the shape"),
        (Samples(held.images, labels=held.labels + 5), "has the label 14"),
    ):
        with pytest.raises(NotApplicable, match=words):
            SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=other))
    with pytest.raises(NotHeld, match="labels"):
        SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=held.without_labels()))
    with pytest.raises(ParameterError, match="budget"):
        SpectralSignatures().run(goodnet.Defender(model=transparent(), training_set=held), budget=0)


def test_a_robust_deviation_is_positive_above_the_median_and_in_units_of_a_normal():
    values = torch.cat([torch.randn(2001, generator=torch.Generator().manual_seed(0)), torch.tensor([8.0, -8.0])])
    z = robust_z(values)
    assert z[-2] == pytest.approx(8, abs=0.6)
    assert z[-1] == pytest.approx(-8, abs=0.6)
