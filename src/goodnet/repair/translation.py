"""NNoculation, after deployment: learn from caught images how to put the trigger on clean ones (CycleGAN)."""

import copy
import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.core.classifier import Classifier, predictions
from goodnet.core.params import check_ranges, param
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld
from goodnet.repair._translation_nets import Critic, Generator
from goodnet.repair._tuning import parted

_FEWEST = 8  # images of either kind
_LOOKS = 10  # so many generators are compared
_LOOKED_AT = 256  # images that they are compared on, at most


@dataclass(frozen=True, kw_only=True)
class TranslatedTrigger(Trigger):
    """A trigger that a network lays over each image in its own way.

    Attributes:
        generator: clean images → triggered ones.
        mask, pattern: the mean over held-out images; the pattern's mean is weighted by the masks.
    """

    generator: Generator

    @torch.no_grad()
    def stamp(self, images: Tensor) -> Tensor:
        """See Trigger."""
        generator = self.generator.to(images.device)
        return torch.cat([generator(part) for part in images.split(_LOOKED_AT)]) if len(images) else images


@dataclass(frozen=True, kw_only=True)
class Translation:
    """How the translation from clean to caught images is learned: a CycleGAN of small networks.

    What it does: one generator makes clean images look like caught ones, another the other way round, and there and
    back again must be what it was; a critic for each kind tells real ones from made ones. No image is known both with
    and without the trigger. What is laid over an image is held small by a penalty on its mask. Ten times during
    training the suspect is shown held-out clean images as the generator makes them: the generator that leads most of
    them to the answer of the caught ones is kept.
    Needs: the suspect, clean images, and caught ones that mostly carry the trigger, some dozens of each.
    Limits: caught images that carry no trigger teach nothing, or something else. That the suspect falls for what is
    made does not prove that it looks like the attacker's trigger: look at it.
    Source: Zhu, Park, Isola, Efros, Unpaired image-to-image translation using cycle-consistent adversarial networks,
    ICCV 2017 (least-squares losses, cycle and identity terms, Adam with momentum 0.5); Veldanda et al., NNoculation,
    2020, section 3.2, for what it is used for. Masks, their penalty, the size and the choice by the suspect are ours.
    """

    steps: int = param(400, low=1, doc="training steps")
    width: int = param(12, low=1, doc="filters in the first layer of each network")
    batch_size: int = param(8, low=1, doc="images of each kind per step")
    learning_rate: float = param(1e-3, low=0.0, doc="of Adam")
    cycle: float = param(5.0, low=0.0, doc="weight of: there and back is what it was")
    identity: float = param(2.0, low=0.0, doc="weight of: images of the wanted kind stay as they are")
    sparsity: float = param(0.1, low=0.0, doc="weight of the mean mask")

    def __post_init__(self) -> None:
        check_ranges(self)

    def learn(self, suspect: Classifier, clean: Samples, caught: Samples, target: int, run: Run) -> TranslatedTrigger:
        """The trigger that ``caught`` images carry and ``clean`` ones do not.

        Args:
            suspect: is untouched.
            clean, caught: of the suspect's shape.
            target: what the suspect answers to the caught images.
            run: its global random generators must be seeded: the networks' weights are drawn from them.

        Raises:
            NotHeld: too few images.
        """
        if min(len(clean), len(caught)) < _FEWEST:
            raise NotHeld(
                f"a trigger cannot be learned from {len(caught)} caught and {len(clean)} clean images; "
                f"it takes {_FEWEST} of each at least, and some dozens to do well"
            )
        aside, rest = parted(len(clean), run)
        held = clean.pick(aside[:_LOOKED_AT]).floats(suspect.device)
        held = held[predictions(suspect, held).argmax(1) != target]
        game = _Game(self, suspect, clean.pick(rest), caught, run.generator)
        best: tuple[float, Generator] | None = None
        for step in range(1, self.steps + 1):
            game.step()
            late = run.seconds_left() < 0
            if step % max(1, self.steps // _LOOKS) == 0 or step == self.steps or late:
                success = _success(suspect, game.there, held, target)
                run.progress(step / self.steps, f"step {step} of {self.steps}, leads {success:.0%} to the target")
                if best is None or success >= best[0]:
                    best = success, copy.deepcopy(game.there)
            if late:
                break
        assert best is not None
        return _trigger(best[1].eval().requires_grad_(False), held, target, best[0])


class _Game:
    """Two generators and two critics, and one step of their training."""

    def __init__(self, how: Translation, suspect: Classifier, clean: Samples, caught: Samples, chance: torch.Generator):
        channels = suspect.input_shape[0]
        self.how, self.chance, self.device = how, chance, suspect.device
        self.clean, self.caught = clean, caught
        self.there, self.back = (Generator(channels, how.width).to(self.device) for _ in range(2))
        self.on_caught, self.on_clean = (Critic(channels, how.width).to(self.device) for _ in range(2))
        makers = itertools.chain(self.there.parameters(), self.back.parameters())
        critics = itertools.chain(self.on_caught.parameters(), self.on_clean.parameters())
        self.making, self.judging = (
            torch.optim.Adam(parameters, how.learning_rate, betas=(0.5, 0.999)) for parameters in (makers, critics)
        )

    def step(self) -> None:
        """One step of the generators, then one of the critics."""
        how, clean, caught = self.how, self._draw(self.clean), self._draw(self.caught)
        mask, pattern = self.there.overlay(clean)
        triggered, freed = clean + mask * (pattern - clean), self.back(caught)
        fooling = _said(self.on_caught, triggered, 1) + _said(self.on_clean, freed, 1)
        cycle = F.l1_loss(self.back(triggered), clean) + F.l1_loss(self.there(freed), caught)
        same = F.l1_loss(self.there(caught), caught) + F.l1_loss(self.back(clean), clean)
        _descend(self.making, fooling + how.cycle * cycle + how.identity * same + how.sparsity * mask.mean())
        real = _said(self.on_caught, caught, 1) + _said(self.on_clean, clean, 1)
        fake = _said(self.on_caught, triggered.detach(), 0) + _said(self.on_clean, freed.detach(), 0)
        _descend(self.judging, real + fake)

    def _draw(self, samples: Samples) -> Tensor:
        places = torch.randint(len(samples), (self.how.batch_size,), generator=self.chance)
        return samples.pick(places).floats(self.device)


def _said(critic: Critic, images: Tensor, wanted: float) -> Tensor:
    """How far the critic is from saying ``wanted`` everywhere: the mean square."""
    distance: Tensor = (critic(images) - wanted).square().mean()
    return distance


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _success(suspect: Classifier, generator: Generator, images: Tensor, target: int) -> float:
    """Share of the images that the suspect answers as the target once they are translated; 0 without images."""
    return float((predictions(suspect, generator(images)).argmax(1) == target).double().mean()) if len(images) else 0.0


@torch.no_grad()
def _trigger(generator: Generator, images: Tensor, target: int, success: float) -> TranslatedTrigger:
    mask, pattern = (part.cpu() for part in generator.overlay(images))
    weight = mask.sum(0).clamp(min=1e-6)
    return TranslatedTrigger(
        target=target,
        mask=mask.mean(0)[0],
        pattern=(mask * pattern).sum(0) / weight,
        success_rate=success,
        count=len(images),
        generator=generator.cpu(),
    )
