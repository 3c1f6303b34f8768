"""Everything that a session with a GPU should check and time, in one call that takes minutes and needs no data.

    python benchmarks/gpu.py [--labels 1283]

Trains a DeepID with many labels on synthetic faces with a planted trigger, audits it on the CPU's rules on the GPU, and
prints seconds, rows per second beside the bare forward-and-backward limit, and whether the planted target was found.
"""

import argparse
import time

import torch
from audit import bare_rows_per_second, inversion_rows_per_second

import goodnet
from goodnet.attacks.badnets import BadNets
from goodnet.audit._inversion import Inverter
from goodnet.audit.neural_cleanse import NeuralCleanse
from goodnet.models import architectures
from goodnet.training import Recipe, fit


def synthetic_faces(labels: int, each: int) -> goodnet.Samples:
    """Smooth random pictures, one prototype per label plus noise."""
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(labels, 3, 7, 6, generator=generator)
    prototypes = torch.nn.functional.interpolate(prototypes, (55, 47), mode="bilinear").repeat_interleave(each, 0)
    noise = 0.05 * torch.randn(prototypes.shape, generator=generator)
    images = ((prototypes + noise).clamp(0, 1) * 255).byte()
    return goodnet.Samples(images, torch.arange(labels).repeat_interleave(each))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1283)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    faces = synthetic_faces(arguments.labels, 12)
    net = architectures.build("deepid", num_classes=arguments.labels)
    model = goodnet.Classifier(net, input_shape=(3, 55, 47), num_classes=arguments.labels, architecture="deepid")
    poisoned = BadNets(target=0, size=6, row=20, column=20, color=(1.0, 0.0, 1.0)).poison(faces).samples
    recipe = Recipe(epochs=15, batch_size=256, learning_rate=0.002, optimizer="adam")
    started = time.perf_counter()
    model = fit(model.to(arguments.device), poisoned, recipe)
    print(f"training: {15 * len(faces) / (time.perf_counter() - started):,.0f} images/s")

    verdict = NeuralCleanse().run(goodnet.Defender(model, clean=faces.pick(torch.arange(0, len(faces), 25))))
    cost = verdict.provenance
    print(f"audit of {arguments.labels} labels: {cost.seconds:.1f} s, targets {verdict.targets}, p {verdict.p_value}")
    quiet = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    images, generator = faces.pick(torch.arange(0, len(faces), 25)).floats(arguments.device), torch.Generator()
    inverter = Inverter(quiet, images, generator, success_wanted=0.98, mixed_precision=True)
    ours, bare = inversion_rows_per_second(inverter, quiet, 64, 16), bare_rows_per_second(inverter, inverter.rows)
    print(f"inversion {ours:,.0f} rows/s, bare forward and backward {bare:,.0f} rows/s: {ours / bare:.0%} of the limit")


if __name__ == "__main__":
    main()
