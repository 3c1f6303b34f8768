"""RONI, reject on negative impact: samples without which clean images are answered better."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from goodnet.cleanse._base import Cleanser, Scored, cleansers
from goodnet.cleanse._features import features
from goodnet.cleanse._rules import scored_above_clean
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotHeld

_QUIZ = 0.5  # share of the clean images by which impact is measured; the others set the threshold
_STEPS, _CLOSE = 500, 1e-8  # of conjugate gradients, and the share of the residue that may be left


@cleansers.register(
    Card(
        name="roni",
        version=1,
        needs=Needs.MODEL | Needs.TRAINING_SET | Needs.CLEAN | Needs.CLEAN_LABELS,
        source="Nelson et al., Exploiting Machine Learning to Subvert Your Spam Filter, LEET 2008",
        summary="by how much clean images are answered better by a last layer that has not seen the sample",
        assumes=("poison harms the answers to clean images, which backdoors avoid",),
        known_failures={
            "planted_world": "a backdoor leaves the answers to clean images alone; there is no impact to see"
        },
    )
)
@dataclass(frozen=True, kw_only=True)
class Roni(Cleanser):
    """Measure what each sample's absence would do for clean images, at the network's last layer.

    What it does: the last layer is fitted anew to the features of the training set, with weight decay, to its optimum.
    A sample's impact is the fall of the mean loss of a quiz, half of the clean images, when the layer is fitted
    without it. By influence that is a product of gradients: one linear system is solved for the whole set. By refitting
    (``impact="refit"``) the layer is really fitted once for each sample: exact, and thousands of times as dear. The
    score is the impact times the number of samples. The other clean images, as if each of them joined the set, set the
    threshold at the share ``rate``; nothing is removed where no more samples exceed it than chance gives (1 %).
    Needs: the model, the training set, clean images with labels (hundreds).
    Limits: it finds wrong labels and what else does harm. Backdoors are made to do none: their samples are answered
    surely and hardly move the layer, so do not expect it to find them. Features stay as poison has shaped them.
    Source: Nelson et al., LEET 2008, which trains for each sample; Koh, Liang, ICML 2017: influence. The last layer and
    the threshold are ours; a well-known library flags what costs a tenth of the accuracy, which no one sample does.
    """

    impact: Literal["influence", "refit"] = param(
        "influence", choices=("influence", "refit"), doc="to first order, or by fitting once for each sample"
    )
    weight_decay: float = param(1e-3, low=1e-8, doc="L2 penalty on the last layer")
    rate: float = param(0.01, low=0.0, high=0.5, doc="share of clean images above the threshold")
    alpha: float = param(0.01, low=0.0, high=1.0, doc="chance of removing anything from a set like the clean images")
    layer: str = param("", doc="whose output is the input of the layer; empty for what the last linear layer is given")

    def _score(self, defender: Defender, run: Run) -> Scored:
        model, held, clean = defender.model, defender.training_set, defender.clean
        assert model is not None
        assert held is not None
        assert held.labels is not None
        assert clean is not None
        assert clean.labels is not None
        if len(clean) < 4:
            raise NotHeld("roni needs clean images for its quiz and others to compare with; give some hundreds")
        run.progress(0.0, "features")
        seen, known = (features(model, one.images, self.layer).double() for one in (held, clean))
        mean, spread = seen.mean(0), seen.std(0).mean().clamp_min(1e-12)
        seen, known = (with_one((one - mean) / spread) for one in (seen, known))
        order = torch.randperm(len(clean), generator=run.generator)
        quiz, others = order.tensor_split([round(_QUIZ * len(order))])
        head = LastLayer(seen, held.labels, model.num_classes, self.weight_decay)
        run.progress(0.3, "the last layer")
        weights = head.fitted()
        direction = head.solved(weights, gradient(weights, known[quiz], clean.labels[quiz]))
        if self.impact == "refit":
            scores = self._by_refitting(head, weights, (known[quiz], clean.labels[quiz]), run)
        else:
            scores = influence(weights, direction, seen, held.labels)
        return scored_above_clean(
            scores.float(),
            influence(weights, direction, known[others], clean.labels[others]).float(),
            held.labels,
            self.rate,
            self.alpha,
            counts={"quiz": len(quiz), "features": seen.shape[1] - 1},
        )

    def _by_refitting(self, head: "LastLayer", weights: Tensor, quiz: tuple[Tensor, Tensor], run: Run) -> Tensor:
        """As influence, (N,); samples for which no time is left score 0."""
        before, scores = loss_of(weights, *quiz), torch.zeros(len(head.rows), dtype=torch.float64)
        for one in range(len(scores)):
            if run.seconds_left() <= 0:
                break
            rest = torch.arange(len(scores)) != one
            decay = head.decay * len(scores) / max(1, len(scores) - 1)  # so that nothing but the sample is missing
            without = LastLayer(head.rows[rest], head.labels[rest], head.classes, decay).fitted(weights)
            scores[one] = len(scores) * (before - loss_of(without, *quiz))
            run.progress(0.3 + 0.7 * (one + 1) / len(scores), f"sample {one + 1}")
        return scores


@dataclass(frozen=True)
class LastLayer:
    """Multinomial regression: mean cross-entropy of ``rows`` (N, D) with ``labels`` plus decay / 2 |weights|^2."""

    rows: Tensor
    labels: Tensor
    classes: int
    decay: float

    def fitted(self, start: Tensor | None = None) -> Tensor:
        """float64 (K, D): the optimum, by Newton's method with halved steps where a full one overshoots."""
        weights = torch.zeros(self.classes, self.rows.shape[1], dtype=torch.float64) if start is None else start
        value = self._value(weights)
        for _ in range(50):
            slope = gradient(weights, self.rows, self.labels) + self.decay * weights
            step, length = self.solved(weights, slope), 1.0
            while length > 1e-6 and self._value(weights - length * step) > value:
                length /= 2
            moved = weights - length * step
            fell, value = value - self._value(moved), self._value(moved)
            weights = moved
            if fell <= 1e-10 * value:
                break
        return weights

    def _value(self, weights: Tensor) -> float:
        return loss_of(weights, self.rows, self.labels) + self.decay / 2 * float(weights.square().sum())

    def solved(self, weights: Tensor, wanted: Tensor) -> Tensor:
        """The matrix (K, D) that the second derivative at ``weights`` makes ``wanted``, by conjugate gradients."""
        shares = (self.rows @ weights.T).softmax(1)
        found, residue = torch.zeros_like(wanted), wanted.clone()
        direction, size = residue.clone(), float(residue.square().sum())
        enough = _CLOSE**2 * size
        for _ in range(_STEPS):
            if size <= enough:
                break
            moved = shares * (self.rows @ direction.T)
            moved = moved - shares * moved.sum(1, keepdim=True)
            curved = moved.T @ self.rows / len(self.rows) + self.decay * direction
            length = size / float((direction * curved).sum())
            found, residue = found + length * direction, residue - length * curved
            before, size = size, float(residue.square().sum())
            direction = residue + size / before * direction
        return found


def with_one(rows: Tensor) -> Tensor:
    """A column of ones beside ``rows``, for the bias."""
    return torch.cat((rows, torch.ones(len(rows), 1, dtype=rows.dtype)), 1)


def loss_of(weights: Tensor, rows: Tensor, labels: Tensor) -> float:
    """The mean cross-entropy."""
    return float(F.cross_entropy(rows @ weights.T, labels))


def gradient(weights: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Of the mean cross-entropy, (K, D)."""
    return _residues(weights, rows, labels).T @ rows / len(rows)


def influence(weights: Tensor, direction: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """(N,): minus the product of each sample's gradient with ``direction``, the quiz's in units of the curvature."""
    return -(_residues(weights, rows, labels) * (rows @ direction.T)).sum(1)


def _residues(weights: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    return (rows @ weights.T).softmax(1) - F.one_hot(labels, len(weights))
