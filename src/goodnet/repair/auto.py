"""Auto: try repairs, judge each on images that it did not see, and take the best, or none."""

from dataclasses import dataclass, replace
from typing import Any

from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.errors import NotApplicable
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.repair._tuning import new_seed
from goodnet.repair.head_unlearning import HeadUnlearning
from goodnet.repair.proof import Proof, prove
from goodnet.repair.retuning import Retuned, retune
from goodnet.repair.unlearning import Unlearning

# cheapest first; the methods of one candidate follow each other
_CANDIDATES: dict[str, tuple[Repairer, ...]] = {
    "unlearning": (Unlearning(),),
    "head-unlearning": (HeadUnlearning(rounds=1),),
    "unlearning, then head-unlearning": (Unlearning(), HeadUnlearning(rounds=1)),
}

_HARMLESS = 0.01  # share of right answers that may go without a word


@repairers.register(
    Card(
        name="auto",
        version=3,
        needs=Needs.MODEL | Needs.GRADIENTS | Needs.CLEAN | Needs.TRIGGERS,
        uses=Needs.CLEAN_LABELS,
        source="goodnet",
        summary="tries several repairs, judges each on held-out images, takes the best or gives the suspect back",
        quick={"most_candidates": 1},
    )
)
@dataclass(frozen=True, kw_only=True)
class Auto(Repairer):
    """Choose the repair for this model, and none where all of them harm it.

    What it does: keeps a part of the clean images aside; runs unlearning, head unlearning, and the one after the other.
    Of those that keep accuracy (without labels: agreement with the suspect) and stop the reconstructed triggers on the
    images aside, as they are and shifted a little, it takes one that costs a point of accuracy at most before others,
    then one whose triggers do not come back in the retuning gate, then the one with the most accuracy and the most
    stamped images that get their right answer back. When none will do, the suspect comes back as it was, and beside
    it, for a second opinion, the candidate that triggers turn least at least harm.
    Needs: the model, its gradients, clean images, and triggers from an audit.
    Limits: the judgement knows the reconstructed triggers only, and a handful of images judges badly: whether the
    choice may take the suspect's place is for ``prove`` on images that no choice was made by.
    Source: ours. No single repair succeeds on more than a quarter of the public leaderboard's cells, the best of each
    cell on half: so choose for each model.
    """

    most_drop: float = param(0.03, low=0.0, high=1.0, doc="accuracy or agreement that may be lost")
    most_success: float = param(0.1, low=0.0, high=1.0, doc="share that a reconstructed trigger may still turn")
    aside: float = param(0.3, low=0.05, high=0.9, doc="share of the clean images that candidates are judged on")
    most_candidates: int = param(len(_CANDIDATES), low=1, doc="so many candidates, cheapest first")

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        suspect, clean, triggers = defender.model, defender.clean, defender.triggers
        assert suspect is not None
        assert clean is not None
        assert triggers is not None
        tuning, aside = clean.split(1 - self.aside, run.generator)
        tried: list[dict[str, Any]] = []
        best: tuple[tuple[bool, bool, float], str, Classifier] | None = None
        other: tuple[float, Classifier] | None = None
        names = list(_CANDIDATES)[: self.most_candidates]
        for number, name in enumerate(names):
            run.progress(number / len(names), f"{name} ({number + 1} of {len(names)})")
            held = replace(defender, clean=tuning)
            try:
                model = _in_turn(_CANDIDATES[name], held, run)
            except NotApplicable as reason:
                tried.append({"candidate": name, "accepted": False, "reason": str(reason)})
                continue
            proof = prove(suspect, model, aside, triggers)
            accepted = proof.promises(most_drop=self.most_drop, most_success=self.most_success)
            retuned = retune(model, tuning, aside, triggers, run) if accepted else ()
            told = [one.as_json() for one in retuned]
            tried.append({"candidate": name, "accepted": accepted, **proof.as_json(), "retuned": told})
            worth = _worth(proof, retuned)
            if accepted and (best is None or worth > best[0]):
                best = worth, name, model
            elif not accepted and (other is None or _doubt(proof) > other[0]):
                other = _doubt(proof), model
            if run.seconds_left() < 0:
                break
        chosen = "nothing: the suspect as it was" if best is None else best[1]
        model = suspect if best is None else best[2]
        return Fixed(
            model=model,
            notes={"reverted": float(best is None), "candidates": float(len(tried))},
            counts={"images": len(tuning), "images_aside": len(aside), "triggers": len(triggers)},
            evidence={"chosen": chosen, "tried": tried},
            second_opinion=other[1] if best is None and other is not None else None,
        )


def _worth(proof: Proof, retuned: tuple[Retuned, ...]) -> tuple[bool, bool, float]:
    """Larger is better: what harms hardly at all, then what is not only suppressed, then kept and recovered answers."""
    removed = all(one.suppressed is False for one in retuned)
    return proof.harm <= _HARMLESS, removed, -proof.harm + proof.recovered - proof.success


def _doubt(proof: Proof) -> float:
    """Larger is better for a second opinion: no trigger works on it, and it agrees with the suspect elsewhere."""
    return -proof.success - proof.harm


def _in_turn(methods: tuple[Repairer, ...], defender: Defender, run: Run) -> Classifier:
    """The model after one method and then the next."""
    for method in methods:
        left = run.seconds_left()
        budget = None if left == float("inf") else max(left, 1e-3)
        defender = replace(defender, model=method.run(defender, seed=new_seed(run), budget=budget).model)
    assert defender.model is not None
    return defender.model
