"""Several guards as one, whose false-alarm rate is still the one asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable, NotHeld, ParameterError
from goodnet.guard._base import Guard, Learned, guards

_NAME = "ensemble"
_SAME = 1e-9  # spread of reference scores below which a guard tells nothing


@guards.register(
    Card(
        name=_NAME,
        version=1,
        needs=Needs.MODEL | Needs.CLEAN,
        uses=Needs.CLEAN_LABELS | Needs.TRIGGERS,
        source="goodnet; the threshold by split conformal prediction, Vovk et al., 2005",
        summary="the most alarmed of several guards, each measured by the same clean images; one vote for each family",
        assumes=("one of the guards sees the trigger",),
        quick={"parts": ("confidence", "scale-up", "strip")},
    )
)
@dataclass(frozen=True, kw_only=True)
class Ensemble(Guard):
    """Ask several guards, and believe the most alarmed family of them.

    What it does: the guards ``parts``, with their defaults, learn from a third of the clean images. A second third,
    from which no part learned, makes their scores comparable: a score becomes minus the logarithm of the share of
    reference images that score at least as high; beyond all of them it goes on with the logarithm of how far beyond.
    Guards of one family read the same thing: their evidence is averaged and measured once more by the same images, so
    that a family counts as one, however many it has. The score is that of the most alarmed family. The last third
    sets the threshold, so that the false-alarm rate is the one asked for and not the sum of those of the parts.
    Needs: the model, clean images; labels and triggers where a part wants them.
    Limits: costs as much as all parts together. Each more family raises the threshold of the others. With fewer
    reference images than families divided by the rate, the threshold lies beyond most of them, where guards are
    compared by a rule of thumb. A part that the network does not suit, or that scores all clean images the same, is
    left out, and a note says so.
    Source: ours. One guard of each family by default: STRIP, which suits every network, Beatrix and TED++.
    """

    fit_share: ClassVar[float] = 2 / 3

    parts: tuple[str, ...] = param(("strip", "beatrix", "ted"), doc="guards by name, with their defaults")

    def __post_init__(self) -> None:
        super().__post_init__()
        if _NAME in self.parts:
            raise ParameterError("Ensemble.parts must not hold the ensemble itself")
        if len(set(self.parts)) < len(self.parts):
            raise ParameterError(f"Ensemble.parts must hold every guard once, got {', '.join(self.parts)}")
        for name in self.parts:
            guards[name]

    def _fit(self, defender: Defender, run: Run) -> Learned:
        model, clean = defender.model, defender.clean
        assert model is not None
        assert clean is not None
        if len(clean) < 4:
            raise NotHeld("ensemble needs clean images to learn from and others to compare with; give some hundreds")
        part, reference = clean.split(0.5, run.generator)
        held = replace(defender, clean=part)
        arrays: dict[str, Tensor] = {}
        values: dict[str, object] = {}
        notes: list[str] = []
        evidence: dict[str, Tensor] = {}
        for place, name in enumerate(self.parts):
            run.progress(place / len(self.parts), name)
            guard = guards[name]()
            try:
                learned = guard._fit(guard._held(held), replace(run, progress=_unheard))
            except NotApplicable as reason:
                notes.append(f"{name} is left out: {reason}")
                continue
            scores = guard.scores(model, learned, reference.images)
            known = scores.sort().values.float()  # as they are saved
            if float(known[-1] - known[0]) <= _SAME:
                notes.append(f"{name} is left out: it scores all clean images the same")
                continue
            notes.extend(f"{name}: {note}" for note in learned.notes)
            arrays |= {f"{name}/{key}": value for key, value in learned.arrays.items()}
            arrays[f"{name}//reference"] = known
            values[name] = dict(learned.values)
            evidence[name] = surprise(scores, known)
        if not evidence:
            raise NotApplicable(f"no part of the ensemble works here: {'; '.join(notes)}")
        arrays |= {f"//{family}": mean.sort().values.float() for family, mean in _by_family(evidence).items()}
        counts = {"parts": len(evidence), "reference_images": len(reference)}
        return Learned(arrays=arrays, values=values, notes=tuple(notes), counts=counts)

    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        evidence = {}
        for name, values in learned.values.items():
            start = f"{name}/"
            mine = {key.removeprefix(start): value for key, value in learned.arrays.items() if key.startswith(start)}
            scores = guards[name]()._score(model, Learned(arrays=mine, values=values), images).double().cpu()
            evidence[name] = surprise(scores, mine["/reference"])
        families = _by_family(evidence)
        alarms = [surprise(mean, learned.arrays[f"//{name}"]) for name, mean in families.items()]
        return torch.stack(alarms).max(0).values


def surprise(scores: Tensor, reference: Tensor) -> Tensor:
    """How seldom scores (M,) so high are among ``reference`` (n,), sorted and not all equal: float64 (M,), rising.

    At a reference score minus the logarithm of the share that is at least as high, of n + 1, straight between two of
    them; beyond the highest it rises by the logarithm of 1 + the distance, in spans of the reference.
    """
    knots, counts = np.unique(reference.numpy(), return_counts=True)
    least = counts[::-1].cumsum()[::-1]  # of the reference, at least as high as the knot
    inside = np.interp(scores.numpy(), knots, np.log((len(reference) + 1) / least))
    beyond: Tensor = (scores - knots[-1]).clamp_min(0) / (knots[-1] - knots[0])
    return beyond.log1p() + torch.from_numpy(inside)


def _by_family(evidence: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean evidence (M,) of the guards of each family; one that names no family is its own."""
    families: dict[str, list[Tensor]] = {}
    for name, one in evidence.items():
        families.setdefault(guards[name].family or name, []).append(one)
    return {family: torch.stack(each).mean(0) for family, each in families.items()}


def _unheard(share: float, text: str) -> None:
    """Parts do not tell how far they are; the ensemble does."""
