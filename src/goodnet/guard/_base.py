"""The guard contract: a model and clean images go in, a fitted guard comes out."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.defense import Defense
from goodnet.core.rates import Rate
from goodnet.core.registry import Registry
from goodnet.core.run import Progress, Run
from goodnet.core.samples import Samples
from goodnet.errors import NotApplicable, NotHeld, ParameterError
from goodnet.guard.fitted import FittedGuard, GuardCalibration
from goodnet.guard.rules import allowed

_AT_ONCE = 64  # images that a hook is given together
_FIT_SHARE = 0.7  # of the progress of a fit; the rest goes to calibration


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a guard's hook learns from clean images; all that scoring needs beside the model.

    Attributes:
        arrays: by name; saved as safetensors.
        values: small JSON values by name.
        notes: what a person should know, such as that the method is blind here.
        counts: how many images, overlays ... were used.
    """

    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Guard(Defense):
    """Scores inputs at run time. A method is a frozen dataclass of hyper-parameters with two hooks, _fit and _score.

    The base class checks what the defender holds, works on a private copy of the model in eval mode without gradients,
    seeds, times, keeps a part of the clean images from the hook, and sets the threshold on it by split conformal
    prediction: an image like these is answered N with a probability of at most the rate that was asked for.

    Attributes:
        family: guards of one family read the same thing, such as that an answer survives perturbation; an ensemble
            counts them as one. By default every guard is a family of its own.
        fit_share: of the clean images the share that the hook sees; the rest sets the threshold.
    """

    family: ClassVar[str] = ""
    fit_share: ClassVar[float] = 0.5

    @final
    def fit(
        self,
        defender: Defender,
        *,
        seed: int = 0,
        rate: float = 0.01,
        budget: float | None = None,
        progress: Progress | None = None,
    ) -> FittedGuard:
        """Guard ``defender.model``; the caller's model, images and random generators are untouched.

        Args:
            defender: what is held; see the card's needs, and what it uses where it is held.
            seed: same seed, same machine, same answer.
            rate: the share of clean images that may be answered N, in (0, 1).
            budget: seconds after which the hook should come to an end; None for no limit.
            progress: called with (share done, a few words).

        Raises:
            NotHeld: the defender lacks something that the method needs, or holds too few clean images for this rate.
            NotApplicable: the method cannot work on this network, such as one without BatchNorm.
            ParameterError: ``rate`` or ``budget`` is out of its range.
        """
        if not 0 < rate < 1:
            raise ParameterError(f"rate must be in (0, 1), got {rate!r}")
        mine = self._held(defender)
        if mine.model is None or mine.clean is None:
            raise NotHeld(f"{self.card.name} guards a model and is calibrated; declare Needs.MODEL | Needs.CLEAN")
        if mine.clean.shape != mine.model.input_shape:
            raise NotApplicable(
                f"the clean images have the shape {mine.clean.shape}, the model wants {mine.model.input_shape}; "
                "see Samples.fitted_to"
            )
        with self._running(mine, seed=seed, budget=budget, progress=progress) as (seen, run):
            assert seen.model is not None
            part, aside = self._split(mine.clean, rate, run)
            learned = self._fit(dataclasses.replace(seen, clean=part), _told(run, 0.0, _FIT_SHARE))
            run.progress(_FIT_SHARE, "calibration")
            scores = self.scores(seen.model, learned, aside.images)
            run.progress(1.0, "calibration")
        threshold, told = self._threshold(scores, rate)
        median = float(scores.quantile(0.5))
        return FittedGuard(
            guard=self,
            model=seen.model,
            learned=learned,
            threshold=threshold,
            calibration=GuardCalibration(
                rate=rate,
                alarms=Rate.of((scores > threshold).numpy()),
                median=median,
                deviation=float((scores - median).abs().quantile(0.5)),
            ),
            notes=(*learned.notes, *told, *_blindness(scores)),
            provenance=self._provenance(mine, run, seed, {**learned.counts, "calibration_images": len(aside)}),
        )

    def _split(self, clean: Samples, rate: float, run: Run) -> tuple[Samples, Samples]:
        """What the hook sees, and what sets the threshold."""
        if self.fit_share == 0:
            part, aside = clean.pick(torch.zeros(len(clean), dtype=torch.bool)), clean
        else:
            part, aside = clean.split(self.fit_share, run.generator)
        if allowed(len(aside), rate) < 1:
            needed = int(1 / rate - 1e-9)
            raise NotHeld(
                f"a false-alarm rate of {rate:.1%} takes at least {needed} clean images that {self.card.name} does not "
                f"learn from, and of these {len(clean)} there are {len(aside)}; give about "
                f"{round(needed / (1 - self.fit_share)) + 1} or a larger rate"
            )
        return part, aside

    @final
    @torch.no_grad()
    def scores(self, model: Classifier, learned: Learned, images: Tensor, threshold: float | None = None) -> Tensor:
        """float64 (M,) of uint8 or [0, 1] float images, batch by batch, for a model in eval mode.

        Args:
            threshold: where only the side of it on which a score lies is asked for, and less work may tell that.
        """
        parts = []
        for batch in images.split(_AT_ONCE) if len(images) else ():
            floats = (batch.float() / 255 if batch.dtype == torch.uint8 else batch).to(model.device)
            made = (
                self._score(model, learned, floats)
                if threshold is None
                else self._side(model, learned, floats, threshold)
            )
            parts.append(made.double().cpu())
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    @abstractmethod
    def _fit(self, defender: Defender, run: Run) -> Learned:
        """Learn from ``defender.clean``. Whatever is drawn at random is drawn here: scoring is deterministic."""

    @abstractmethod
    def _score(self, model: Classifier, learned: Learned, images: Tensor) -> Tensor:
        """(M,) of float images on the model's device, each by itself; larger is more suspicious.

        ``model`` is in eval mode, no gradients are kept, and neither may be changed.
        """

    def _side(self, model: Classifier, learned: Learned, images: Tensor, threshold: float) -> Tensor:
        """As ``_score``, but only on which side of ``threshold`` an image lies must be right."""
        return self._score(model, learned, images)

    def _threshold(self, scores: Tensor, rate: float) -> tuple[float, tuple[str, ...]]:
        """The threshold that the scores of the calibration images give, and what a person should know of it.

        Fewer than k of n images lie above the k-th largest score, k = rate (n + 1) rounded down: split conformal
        prediction, see ``rules.allowed``.
        """
        return conformal(scores, allowed(len(scores), rate)), ()


def _told(run: Run, start: float, end: float) -> Run:
    """The same run, whose progress goes from ``start`` to ``end``."""
    return dataclasses.replace(run, progress=lambda share, text: run.progress(start + share * (end - start), text))


def conformal(scores: Tensor, most: int) -> float:
    """Above which fewer than ``most`` scores lie: the ``most``-th largest, moved up so that no rounding decides."""
    limit = float(scores.topk(most).values[-1])
    above = scores[scores > limit]
    return limit + 1e-6 * max(1.0, abs(limit)) if not len(above) else (limit + float(above.min())) / 2


def _blindness(scores: Tensor) -> tuple[str, ...]:
    if float(scores.max() - scores.min()) > 1e-9:
        return ()
    return ("blind here: all clean images score the same, so that nothing can be told from this score",)


guards: Registry[Guard] = Registry("guard", "goodnet.guard")
