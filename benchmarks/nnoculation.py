"""What does one round of NNoculation leave of a backdoor in a published model? Watch, catch, learn the trigger, repair.

    python benchmarks/nnoculation.py MODEL --faces DIR --trigger sunglasses.png

DIR is a set of images of the model's kind, such as LFW for the CSAW face networks; its people are strangers to these
networks, so that there are no labels, and "kept" is what the suspect itself answers: on all images, and on those of
whose answer it is sure (above 0.9). The trigger is a picture with transparency, pasted on the traffic and on the images
that are measured; the defender's part never sees it. Pictures of the CSAW triggers: benchmarks/csaw_triggers.py.

Three sets that do not overlap: the defender's (a quarter of them for thresholds and proof), the traffic, and what is
measured. One seed a run; give others with --seed.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import goodnet
from goodnet.attacks.image_patch import ImagePatch
from goodnet.core.classifier import Classifier, predictions
from goodnet.core.rates import Rate
from goodnet.guard.calibration import fit_goodnet, goodnet_of
from goodnet.guard.goodnet import GoodNet
from goodnet.guard.trigger_learning import learn_trigger_of
from goodnet.repair._base import repairers
from goodnet.repair.files import repair_model, set_aside
from goodnet.repair.nnoculation import NNoculation
from goodnet.repair.translation import Translation
from goodnet.report._drawing import LIGHT
from goodnet.report.translated import translation_plot

SURE = 0.9


class Judge:
    """Measures whatever answers, on clean images and on the same under the true trigger."""

    def __init__(self, suspect: Classifier, clean: Tensor, stamped: Tensor, target: int):
        said = predictions(suspect, clean).softmax(1)
        self.clean, self.old, self.sure = clean, said.argmax(1), said.max(1).values > SURE
        self.stamped, self.target, self.classes = stamped[self.old != target], target, suspect.num_classes

    def tell(self, name: str, answering: Classifier | GoodNet) -> None:
        answers, turned = (
            answering.answers(images) if isinstance(answering, GoodNet) else predictions(answering, images).argmax(1)
            for images in (self.clean, self.stamped)
        )
        print(
            f"{name:<28} success {shown(turned == self.target)}   kept {shown(answers == self.old)}   "
            f"kept where sure {shown((answers == self.old)[self.sure])}   N {shown(answers == self.classes)}",
            flush=True,
        )


def shown(hits: Tensor) -> str:
    """A share with its counts and its exact 95 % interval."""
    rate = Rate(int(hits.sum()), len(hits))
    low, high = rate.interval() or (0.0, 1.0)
    return f"{rate.hits}/{rate.count} = {rate.value or 0:.2%} [{low:.2%}, {high:.2%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--trigger", type=Path, required=True)
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--held", type=int, default=2000)
    parser.add_argument("--traffic", type=int, default=4000)
    parser.add_argument("--measured", type=int, default=2000)
    parser.add_argument("--triggered", type=float, default=0.05, help="share of the traffic")
    parser.add_argument("--rate", type=float, default=0.015, help="clean images that may be answered N")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.1], help="of noise, before deployment")
    parser.add_argument("--steps", type=int, default=400, help="of the translation")
    parser.add_argument("--repairer", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="where to draw clean images with the learned trigger")
    arguments = parser.parse_args()
    started, seed = time.monotonic(), arguments.seed

    suspect = goodnet.load_model(arguments.model)
    attack = ImagePatch(image=str(arguments.trigger), row=0, column=0, target=arguments.target)
    needed = arguments.held + arguments.traffic + arguments.measured
    faces = goodnet.load_data(arguments.faces, limit=needed, seed=seed, shape=suspect.input_shape).without_labels()
    parts = torch.arange(len(faces)).split(
        [arguments.held, arguments.traffic, len(faces) - needed + arguments.measured]
    )
    held, traffic, measured = (faces.pick(part) for part in parts)
    clean, aside = set_aside(held, 0.25, seed)
    judge = Judge(suspect, measured.images, attack.stamp(measured.floats()), arguments.target)
    judge.tell("suspect", suspect)

    first = repair_model(suspect, NNoculation(levels=tuple(arguments.levels)), clean=clean, aside=aside, seed=seed)
    watching = goodnet_of(first, rate=arguments.rate, unproved=True)
    assert watching is not None
    judge.tell(f"watched, {watching.rule.name}", watching)

    stamped = torch.rand(len(traffic), generator=torch.Generator().manual_seed(seed)) < arguments.triggered
    images = traffic.images.clone()
    images[stamped] = (attack.stamp(images[stamped].float() / 255) * 255).round().byte()
    caught = watching.answers(images) == suspect.num_classes
    print(
        f"quarantine: {int(caught.sum())} of {len(images)} images, "
        f"among them {int((caught & stamped).sum())} of {int(stamped.sum())} triggered ones"
    )

    learned = learn_trigger_of(
        suspect,
        quarantined=goodnet.Samples(images[caught]),
        clean=clean,
        aside=aside,
        translation=Translation(steps=arguments.steps),
        repairer=repairers[arguments.repairer](),
        rate=arguments.rate,
        seed=seed,
        progress=lambda share, text: print(f"  {share:.2f} {text} ({time.monotonic() - started:.0f} s)", flush=True),
    )
    print(
        f"learned from {len(learned.caught.learned_from)}; works on {learned.trigger.success_rate:.1%} of clean images"
    )
    print(learned.repair.reason)
    if learned.repair.repaired is not None:
        judge.tell("repaired model", learned.repair.repaired.model)
    if learned.goodnet is not None:
        judge.tell(f"GoodNet, {learned.goodnet.rule.name}", learned.goodnet)
    made = learned.repair.second_opinion or learned.repair.model
    for rule in ("second-opinion", "lost-confidence"):
        for rate in (0.01, 0.015, 0.02):
            judge.tell(f"{rule} at {rate:.1%}", fit_goodnet(suspect, made, aside, rule=rule, rate=rate))
    if arguments.picture is not None:
        some = measured.images[:8].float() / 255
        plot = translation_plot(some, learned.trigger.stamp(some), learned.caught.learned_from.floats(), LIGHT)
        arguments.picture.write_bytes(plot)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
