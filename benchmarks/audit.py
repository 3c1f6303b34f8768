"""How fast is an audit? Prints ratios measured side by side in one run; asserts nothing.

    python benchmarks/audit.py MODEL --data IMAGES [--input-range R] [--labels 4] [--threads 2] [--device cuda]

Three figures: seconds and memory of the default scan; rows per second beside the bare forward-and-backward passes of
the same network; and the paper's label-by-label schedule on a few labels, scaled to all of them.
"""

import argparse
import statistics
import time

import torch

import goodnet
from goodnet.audit._base import auditors
from goodnet.audit._folded import folded
from goodnet.audit._inversion import Inverter, start
from goodnet.audit._paper_schedule import invert_label
from goodnet.core.classifier import Classifier


def bare_rows_per_second(inverter: Inverter, rows: int, repeats: int = 9) -> float:
    """Forward and backward to the input of the inverter's network on ready-made rows: the limit for any inversion."""
    batch = inverter.images[:1].expand(rows, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(repeats):
        kind = torch.bfloat16 if inverter.mixed_precision else torch.float32
        images = batch.to(kind).requires_grad_()
        started = time.perf_counter()
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=inverter.mixed_precision):
            logits = inverter.model(images)
        torch.nn.functional.cross_entropy(
            logits.float(), torch.zeros(rows, dtype=torch.long, device=batch.device)
        ).backward()
        if batch.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return rows / statistics.median(seconds)


def inversion_rows_per_second(inverter: Inverter, model: Classifier, labels: int, images: int) -> float:
    shape, device = (labels, *model.input_shape), inverter.images.device
    mask, pattern = torch.full((labels, 1, *shape[2:]), 0.5, device=device), torch.rand(shape, device=device)
    batch = start(mask, pattern, torch.arange(labels) % model.num_classes, 1)
    inverter.round(batch, steps=1, images=images, penalty=0.001, adapt=True)  # warm
    before, started = inverter.rows_done, time.perf_counter()
    inverter.round(batch, steps=6, images=images, penalty=0.001, adapt=True)
    return (inverter.rows_done - before) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default=None)
    parser.add_argument("--input-range", default=None)
    parser.add_argument("--labels", type=int, default=2, help="for the label-by-label reference; 0: leave it out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = goodnet.load_model(arguments.model, input_range=arguments.input_range).to(arguments.device)
    clean = goodnet.load_data(arguments.data, split=arguments.split, limit=600, shape=model.input_shape)
    auditor = auditors["neural-cleanse"]()

    verdict = auditor.run(goodnet.Defender(model, clean=clean))
    cost = verdict.provenance
    print(
        f"default scan: {model.num_classes} labels, {cost.seconds:.1f} s, "
        f"{cost.peak_memory_bytes / 2**30:.2f} GiB peak, "
        f"{cost.counts['rows']:,} rows, flagged {verdict.flagged}, targets {verdict.targets}"
    )

    quiet = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    inverter = Inverter(
        folded(quiet),
        clean.floats(arguments.device),
        torch.Generator().manual_seed(0),
        success_wanted=0.98,
        mixed_precision=True,
    )
    bare, ours = bare_rows_per_second(inverter, inverter.rows), inversion_rows_per_second(inverter, quiet, 64, 16)
    bare = statistics.mean((bare, bare_rows_per_second(inverter, inverter.rows)))  # before and after: loads change
    print(f"inversion {ours:,.0f} rows/s, bare forward and backward {bare:,.0f} rows/s: {ours / bare:.0%} of the limit")

    plain = Inverter(quiet, inverter.images, inverter.generator, success_wanted=0.98, rows=1024, mixed_precision=True)
    slower = bare_rows_per_second(plain, plain.rows)
    print(f"passes of 128 rows through the folded network: {bare / slower:.2f} times those of 1024 through the network")

    if arguments.labels:
        started = time.perf_counter()
        for label in range(arguments.labels):
            invert_label(inverter, label, 1, steps=1000, images=32)
        each = (time.perf_counter() - started) / arguments.labels
        print(
            f"label by label: {each:.1f} s a label, {each * model.num_classes:,.0f} s for all: "
            f"{each * model.num_classes / cost.seconds:,.0f} times the default scan"
        )


if __name__ == "__main__":
    main()
