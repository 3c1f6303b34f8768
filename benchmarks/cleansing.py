"""How fast are cleansers on features that are there already? And beside ART, on the same features in the same run?

    python benchmarks/cleansing.py                        600,000 samples x 160 features, ours alone
    python benchmarks/cleansing.py --samples 50000 --art  side by side with adversarial-robustness-toolbox
    python benchmarks/cleansing.py --features FILE --art  yours: an npz with features (N, D), labels (N,), poisoned (N,)

The features are normal noise around a mean for each label; a twentieth of the samples of one label lies a few
deviations off in one direction. So they measure time and memory, and whether two programs find the same. How well a
method finds real poison they do not tell. ART is given the features as activations, so that its network is free.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from goodnet.cleanse.activation_clustering import ActivationClustering
from goodnet.cleanse.spectral_signatures import SpectralSignatures
from goodnet.evaluation import at_false_positive_rate, ranking, removal

Found = tuple[Tensor, Tensor]  # scores and what is removed, (N,) each


def made_up(samples: int, features: int, labels: int, off: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(features, labels, truth): a twentieth of label 0 comes from other labels and lies ``off`` deviations away."""
    generator = torch.Generator().manual_seed(seed)
    given = torch.arange(samples) % labels
    poisoned = (given == 0) & (torch.rand(samples, generator=generator) < 0.05)
    values = torch.randn(samples, features, generator=generator)
    values += 3 * torch.randn(labels, features, generator=generator)[given]
    direction = torch.randn(features, generator=generator)
    values[poisoned] += off * direction / direction.norm()
    return values, given, poisoned


def ours(values: Tensor, labels: Tensor) -> dict[str, Callable[[], Found]]:
    def of(method: ActivationClustering | SpectralSignatures) -> Callable[[], Found]:
        def work() -> Found:
            scored = method.score_features(values, labels)
            return scored.scores, scored.removed

        return work

    return {"activation-clustering": of(ActivationClustering()), "spectral-signatures": of(SpectralSignatures())}


def theirs(values: Tensor, labels: Tensor) -> dict[str, Callable[[], Found]]:
    """ART with its defaults. Its clustering gives no scores but flags, which are taken as scores of 0 and 1."""
    from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense  # type: ignore[import-untyped]
    from art.estimators.classification import PyTorchClassifier  # type: ignore[import-untyped]

    class Given(PyTorchClassifier):  # type: ignore[misc]
        """Hands out the features as they are."""

        def get_activations(
            self, x: object, layer: object = None, batch_size: int = 0, framework: bool = False
        ) -> object:
            return x

    classes = int(labels.max()) + 1
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(values.shape[1], classes))
    wrapped = Given(net, torch.nn.CrossEntropyLoss(), (values.shape[1],), classes)
    x, y = values.numpy(), torch.nn.functional.one_hot(labels, classes).numpy()

    def clustering() -> Found:
        _, clean = ActivationDefence(wrapped, x, y).detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA")
        gone = torch.tensor(clean) == 0
        return gone.float(), gone

    def spectral() -> Found:
        report, clean = SpectralSignatureDefense(wrapped, x, y).detect_poison()
        scores = torch.zeros(len(x))  # of what it keeps it tells none; those are below what it removes
        scores[list(report)] = torch.tensor([float(one) for one in report.values()])
        return scores, torch.tensor(clean) == 0

    return {"activation-clustering": clustering, "spectral-signatures": spectral}


def told(name: str, work: Callable[[], Found], truth: Tensor) -> float:
    """Run, write one line, and give the seconds."""
    started = time.perf_counter()
    scores, removed = work()
    seconds = time.perf_counter() - started
    ranked, gone = ranking(scores, truth), removal(removed, truth)
    point = at_false_positive_rate(scores, truth, 0.01)
    caught = None if point is None else point.true_positive_rate.value
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name:<32} {seconds:8.1f} s  {peak:5.2f} GB at most so far  AUROC {ranked.auroc or 0:.3f}  "
        f"TPR at 1 % FPR {caught or 0:.1%}  removed {gone.recall.value or 0:.1%} of the poison, "
        f"{gone.false_positive_rate.value or 0:.2%} of the rest"
    )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600_000)
    parser.add_argument("--width", type=int, default=160, help="features of a sample")
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--off", type=float, default=8.0, help="how far poison lies off, in standard deviations")
    parser.add_argument("--features", type=Path, help="npz with features, labels, poisoned")
    parser.add_argument("--art", action="store_true", help="the same with adversarial-robustness-toolbox")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.features is None:
        data = made_up(options.samples, options.width, options.labels, options.off, options.seed)
    else:
        with np.load(options.features) as arrays:
            names = ("features", "labels", "poisoned")
            values, labels, truth = (torch.from_numpy(arrays[name]) for name in names)
        data = values.float(), labels.long(), truth.bool()
    values, labels, truth = data
    print(f"{len(values):,} samples x {values.shape[1]} features, {int(truth.sum()):,} of them poisoned")
    other = theirs(values, labels) if options.art else {}
    for name, work in ours(values, labels).items():
        mine = told(name, work, truth)
        if name in other:
            print(f"  {told(f'{name}, ART', other[name], truth) / mine:.1f} times as long in ART")


if __name__ == "__main__":
    main()
