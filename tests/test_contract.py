"""Every registered method keeps the contract, and every check of the contract catches the method that breaks it."""

import random
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from goodnet.attacks._base import Attack, attacks
from goodnet.audit._base import Auditor, Inspection, LabelFinding, Reading, auditors
from goodnet.cleanse._base import ClassFinding, Cleanser, Scored, cleansers
from goodnet.core.classifier import Classifier, Preprocessing
from goodnet.core.defender import Defender
from goodnet.core.params import param
from goodnet.core.registry import Card, Needs
from goodnet.core.run import Run
from goodnet.core.trigger import Trigger
from goodnet.guard._base import Guard, Learned, guards
from goodnet.learn._base import LEARNS, Learner, Taught, learners
from goodnet.repair._base import Fixed, Repairer, repairers
from goodnet.testing import World, broken_promises, checks_for, small_world

METHODS = [*auditors, *cleansers, *learners, *repairers, *guards, *attacks]


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def _cases() -> list[Any]:
    cases = []
    for method in METHODS:
        for check in checks_for(method):
            reason = method.card.known_failures.get(check.__name__)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            cases.append(pytest.param(method, check, id=f"{method.card.name}-{check.__name__}", marks=marks))
    return cases


@pytest.mark.parametrize(("method", "check"), _cases())
def test_a_registered_method_keeps_the_contract(method, check, world):
    check(method, world)


def test_known_failures_name_checks_that_exist():
    for method in METHODS:
        names = {check.__name__ for check in checks_for(method)} | {"planted_world"}
        assert set(method.card.known_failures) <= names


# --- auditors: one that is right, and ones that are wrong on purpose ---


def card(**changes: Any) -> Card:
    given = {"name": "x", "version": 1, "needs": Needs.MODEL | Needs.CLEAN, "source": "none", "summary": "none"}
    return Card(**{**given, **changes})


@dataclass(frozen=True, kw_only=True)
class Right(Auditor):
    """What it does: nothing. Needs: little. Limits: many. Source: none."""

    card = card()
    strength: int = param(1, low=0, high=9, doc="none")

    def _inspect(self, defender: Defender, run: Run) -> Inspection:
        run.progress(0.5, "half")
        score = float(torch.rand(1, generator=run.generator))
        return Inspection(
            readings=(Reading(score=score, suspects=(1,)),), per_class=(LabelFinding(label=1, score=score),)
        )


@dataclass(frozen=True, kw_only=True)
class ReprLies(Right):
    def __repr__(self) -> str:
        return "Right(strength=2)"


@dataclass(frozen=True, kw_only=True)
class TakesAnything(Right):
    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Undocumented(Right):
    pass


@dataclass(frozen=True, kw_only=True)
class IgnoresTheSeed(Right):
    def _inspect(self, defender, run):
        return Inspection(readings=(Reading(score=Right.draws.pop(), suspects=(1,)),))


Right.draws = [float(value) for value in range(99)]


@dataclass(frozen=True, kw_only=True)
class SpoilsTheImages(Right):
    def _inspect(self, defender, run):
        defender.clean.images[0, 0, 0, 0] += 1
        return Right._inspect(self, defender, run)


@dataclass(frozen=True, kw_only=True)
class SpoilsTheModel(Right):
    def run(self, defender, **arguments):
        next(defender.model.parameters()).data += 1
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class SwitchesTheMode(Right):
    def run(self, defender, **arguments):
        defender.model.eval()
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class LeavesAHook(Right):
    def run(self, defender, **arguments):
        defender.model.net.classifier.register_forward_hook(lambda *_: None)
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class FreezesTheModel(Right):
    def run(self, defender, **arguments):
        defender.model.requires_grad_(not next(defender.model.parameters()).requires_grad)
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class DrawsFromTheGlobalState(Right):
    def run(self, defender, **arguments):
        random.random()
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class ForgetsToTidyUp(Right):
    def run(self, defender, **arguments):
        training = defender.model.training
        defender.model.train(not training)
        verdict = Auditor.run(self, defender, **arguments)
        defender.model.train(training)  # not reached when the hook fails
        return verdict


@dataclass(frozen=True, kw_only=True)
class SwallowsExceptions(Right):
    def run(self, defender, **arguments):
        try:
            return Auditor.run(self, defender, **arguments)
        except Exception:  # noqa: BLE001 - that is the point
            return None


@dataclass(frozen=True, kw_only=True)
class RunsWithoutImages(Right):
    def run(self, defender, **arguments):
        return Auditor.run(replace(self), replace(defender, clean=defender.clean or small_world().samples), **arguments)


@dataclass(frozen=True, kw_only=True)
class SeesTheLabels(Right):
    def run(self, defender, **arguments):
        self._inspect(defender, Run(torch.Generator()))
        return Auditor.run(self, defender, **arguments)


@dataclass(frozen=True, kw_only=True)
class CannotDoWithoutLabels(Right):
    card = card(uses=Needs.CLEAN_LABELS)

    def _inspect(self, defender, run):
        assert defender.clean.labels is not None
        return Right._inspect(self, defender, run)


@dataclass(frozen=True, kw_only=True)
class Prints(Right):
    def _inspect(self, defender, run):
        sys.stderr.write("done\n")
        return Right._inspect(self, defender, run)


@dataclass(frozen=True, kw_only=True)
class ScoresNaN(Right):
    def _inspect(self, defender, run):
        return Inspection(readings=(Reading(score=float("nan"), suspects=(1,)),))


@dataclass(frozen=True, kw_only=True)
class FindsLabelsThatDoNotExist(Right):
    def _inspect(self, defender, run):
        return Inspection(readings=(Reading(score=1.0, suspects=(10,)),))


@dataclass(frozen=True, kw_only=True)
class FindsATriggerOfAnotherSize(Right):
    def _inspect(self, defender, run):
        trigger = Trigger(target=1, mask=torch.zeros(3, 3), pattern=torch.zeros(1, 3, 3), success_rate=1.0, count=1)
        return Inspection(readings=(Reading(score=1.0, suspects=(1,)),), triggers=(trigger,))


@dataclass(frozen=True, kw_only=True)
class HasTensorsForEvidence(Right):
    def _inspect(self, defender, run):
        return replace(Right._inspect(self, defender, run), evidence={"mask": torch.zeros(2)})


@dataclass(frozen=True, kw_only=True)
class HidesItsSeed(Right):
    def run(self, defender, **arguments):
        verdict = Auditor.run(self, defender, **arguments)
        return replace(verdict, provenance=replace(verdict.provenance, seed=0))


@dataclass(frozen=True, kw_only=True)
class GoesBackwards(Right):
    def _inspect(self, defender, run):
        run.progress(0.9, "nearly there")
        return Right._inspect(self, defender, run)


@dataclass(frozen=True, kw_only=True)
class GivesUp(Right):
    def _inspect(self, defender, run):
        if run.seconds_left() < 0:
            raise TimeoutError
        return Right._inspect(self, defender, run)


CULPRITS = {
    ReprLies: "repr_gives_the_method_back",
    TakesAnything: "out_of_range_parameters_are_named",
    Undocumented: "docstring_says_what_it_must",
    IgnoresTheSeed: "same_seed_same_answer",
    SpoilsTheImages: "caller_is_left_alone",
    SpoilsTheModel: "caller_is_left_alone",
    SwitchesTheMode: "caller_is_left_alone",
    LeavesAHook: "caller_is_left_alone",
    FreezesTheModel: "caller_is_left_alone",
    DrawsFromTheGlobalState: "caller_is_left_alone",
    ForgetsToTidyUp: "caller_is_left_alone_after_an_exception",
    SwallowsExceptions: "caller_is_left_alone_after_an_exception",
    RunsWithoutImages: "missing_needs_are_refused_by_name",
    SeesTheLabels: "undeclared_things_are_unreachable",
    CannotDoWithoutLabels: "what_it_uses_can_be_missing",
    Prints: "nothing_is_printed",
    ScoresNaN: "verdict_is_well_formed",
    FindsLabelsThatDoNotExist: "verdict_is_well_formed",
    FindsATriggerOfAnotherSize: "verdict_is_well_formed",
    HasTensorsForEvidence: "verdict_survives_json",
    HidesItsSeed: "provenance_tells_how",
    GoesBackwards: "progress_is_a_share",
    GivesUp: "tiny_budget_still_gives_an_answer",
}


def test_a_method_that_is_right_breaks_no_promise():
    assert broken_promises(Right, small_world()) == {}


@pytest.mark.parametrize("culprit", CULPRITS, ids=lambda culprit: culprit.__name__)
def test_every_check_catches_its_culprit(culprit):
    check = next(check for check in checks_for(culprit) if check.__name__ == CULPRITS[culprit])
    with pytest.raises((AssertionError, TimeoutError)):
        check(culprit, small_world())


def test_every_auditor_check_has_a_culprit():
    assert {check.__name__ for check in checks_for(Right)} == set(CULPRITS.values())


def test_a_failure_that_the_card_admits_is_not_reported():
    admitted = type("Prints", (Prints,), {"card": card(known_failures={"nothing_is_printed": "on purpose"})})
    assert "nothing_is_printed" in broken_promises(Prints, small_world())
    assert "nothing_is_printed" not in broken_promises(admitted, small_world())


# --- repairers ---


@dataclass(frozen=True, kw_only=True)
class RightRepairer(Repairer):
    """What it does: nothing. Needs: little. Limits: many. Source: none."""

    card = card()

    def _fix(self, defender: Defender, run: Run) -> Fixed:
        with torch.no_grad():
            next(defender.model.parameters()).mul_(torch.rand(1, generator=run.generator))
        return Fixed(model=defender.model)


@dataclass(frozen=True, kw_only=True)
class GivesTheSuspectBack(RightRepairer):
    def run(self, defender, **arguments):
        return replace(Repairer.run(self, defender, **arguments), model=defender.model)


@dataclass(frozen=True, kw_only=True)
class LeavesAMask(RightRepairer):
    def _fix(self, defender, run):
        defender.model.net.classifier.register_forward_hook(lambda *_: None)
        return Fixed(model=defender.model)


@dataclass(frozen=True, kw_only=True)
class BreaksTheModel(RightRepairer):
    def _fix(self, defender, run):
        defender.model.preprocessing = Preprocessing(scale=float("nan"))
        return Fixed(model=defender.model)


@dataclass(frozen=True, kw_only=True)
class ForgetsTheHistory(RightRepairer):
    def _finished(self, model, seed):
        return model.eval()


@dataclass(frozen=True, kw_only=True)
class NotesInfinity(RightRepairer):
    def _fix(self, defender, run):
        return Fixed(model=defender.model, notes={"loss": float("inf")})


WRONG_REPAIRERS = {
    GivesTheSuspectBack: "repaired_model_is_a_new_working_one",
    LeavesAMask: "repaired_model_is_a_new_working_one",
    BreaksTheModel: "repaired_model_is_a_new_working_one",
    ForgetsTheHistory: "repair_is_in_the_history",
    NotesInfinity: "notes_survive_json",
}


def test_a_repairer_that_is_right_breaks_no_promise():
    assert broken_promises(RightRepairer, small_world()) == {}


@pytest.mark.parametrize("culprit", WRONG_REPAIRERS, ids=lambda culprit: culprit.__name__)
def test_every_repairer_check_catches_its_culprit(culprit):
    check = next(check for check in checks_for(culprit) if check.__name__ == WRONG_REPAIRERS[culprit])
    with pytest.raises(AssertionError):
        check(culprit, small_world())


def test_every_repairer_check_has_a_culprit():
    assert {check.__name__ for check in checks_for(RightRepairer)} == {
        *CULPRITS.values(),
        *WRONG_REPAIRERS.values(),
    } - {
        "verdict_is_well_formed",
        "verdict_survives_json",
    }


# --- cleansers ---


@dataclass(frozen=True, kw_only=True)
class RightCleanser(Cleanser):
    """What it does: nothing. Needs: little. Limits: many. Source: none."""

    card = card(needs=Needs.TRAINING_SET)

    def _score(self, defender: Defender, run: Run) -> Scored:
        scores = torch.rand(len(defender.training_set), generator=run.generator)
        removed = scores > 0.9
        mine = defender.training_set.labels == 1
        finding = ClassFinding(label=1, count=int(mine.sum()), removed=int((mine & removed).sum()), score=0.0)
        return Scored(scores=scores, removed=removed, rule="above 0.9", per_class=(finding,))


@dataclass(frozen=True, kw_only=True)
class ScoresSome(RightCleanser):
    def _score(self, defender, run):
        scored = RightCleanser._score(self, defender, run)
        return replace(scored, scores=scored.scores[1:], removed=scored.removed[1:])


@dataclass(frozen=True, kw_only=True)
class ScoresInfinity(RightCleanser):
    def _score(self, defender, run):
        scored = RightCleanser._score(self, defender, run)
        return replace(scored, scores=scored.scores / 0)


@dataclass(frozen=True, kw_only=True)
class CountsWrongly(RightCleanser):
    def _score(self, defender, run):
        scored = RightCleanser._score(self, defender, run)
        return replace(
            scored,
            removed=torch.zeros_like(scored.removed),
            per_class=(ClassFinding(label=1, count=3, removed=0, score=0.0),),
        )


@dataclass(frozen=True, kw_only=True)
class RemovesTheLowest(RightCleanser):
    def _score(self, defender, run):
        scored = RightCleanser._score(self, defender, run)
        return replace(scored, scores=-scored.scores)


@dataclass(frozen=True, kw_only=True)
class NeedsNoLabels(RightCleanser):
    def run(self, defender, **arguments):
        held = defender.training_set
        labels = torch.zeros(len(held), dtype=torch.int64) if held.labels is None else held.labels
        return Cleanser.run(self, replace(defender, training_set=replace(held, labels=labels)), **arguments)


@dataclass(frozen=True, kw_only=True)
class ReadsTheIds(RightCleanser):
    def _score(self, defender, run):
        ids = defender.training_set.ids.float()
        return Scored(scores=ids, removed=ids > 190, rule="late ones")


@dataclass(frozen=True, kw_only=True)
class DeclaresNothing(RightCleanser):
    card = card()


@dataclass(frozen=True, kw_only=True)
class HasTensorsForDetails(RightCleanser):
    def _score(self, defender, run):
        return replace(RightCleanser._score(self, defender, run), evidence={"all": torch.zeros(2)})


@dataclass(frozen=True, kw_only=True)
class SeesTheSources(RightCleanser):
    def run(self, defender, **arguments):
        self._score(defender, Run(torch.Generator()))
        return Cleanser.run(self, defender, **arguments)


WRONG_CLEANSERS = {
    ScoresSome: "every_sample_gets_a_score",
    ScoresInfinity: "every_sample_gets_a_score",
    CountsWrongly: "every_sample_gets_a_score",
    RemovesTheLowest: "removed_samples_score_higher",
    NeedsNoLabels: "an_unlabeled_training_set_is_refused",
    ReadsTheIds: "ids_say_nothing",
    DeclaresNothing: "training_set_is_declared",
    HasTensorsForDetails: "scores_survive_json",
    SeesTheSources: "undeclared_things_are_unreachable",
}


def test_a_cleanser_that_is_right_breaks_no_promise():
    assert broken_promises(RightCleanser, small_world()) == {}


@pytest.mark.parametrize("culprit", WRONG_CLEANSERS, ids=lambda culprit: culprit.__name__)
def test_every_cleanser_check_catches_its_culprit(culprit):
    check = next(check for check in checks_for(culprit) if check.__name__ == WRONG_CLEANSERS[culprit])
    with pytest.raises(AssertionError):
        check(culprit, small_world())


def test_every_cleanser_check_has_a_culprit():
    assert {check.__name__ for check in checks_for(RightCleanser)} == {
        *CULPRITS.values(),
        *WRONG_CLEANSERS.values(),
    } - {"verdict_is_well_formed", "verdict_survives_json"}


# --- guards ---


@dataclass(frozen=True, kw_only=True)
class RightGuard(Guard):
    """What it does: little. Needs: little. Limits: many. Source: none."""

    card = card()

    def _fit(self, defender: Defender, run: Run) -> Learned:
        return Learned(arrays={"weights": torch.rand(256, generator=run.generator)})

    def _score(self, model: Classifier, learned: Learned, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ learned.arrays["weights"]


@dataclass(frozen=True, kw_only=True)
class ScoresNothing(RightGuard):
    def _score(self, model, learned, images):
        return RightGuard._score(self, model, learned, images) / 0


@dataclass(frozen=True, kw_only=True)
class ComparesWithinTheBatch(RightGuard):
    def _score(self, model, learned, images):
        scores = RightGuard._score(self, model, learned, images)
        return scores - scores.mean()


@dataclass(frozen=True, kw_only=True)
class ScoresByChance(RightGuard):
    def _score(self, model, learned, images):
        return RightGuard._score(self, model, learned, images) + torch.rand(len(images))


@dataclass(frozen=True, kw_only=True)
class ChangesWhatItLearned(RightGuard):
    def _score(self, model, learned, images):
        scores = RightGuard._score(self, model, learned, images)
        learned.arrays["weights"].add_(1e-9 + torch.finfo().eps)
        return scores


@dataclass(frozen=True, kw_only=True)
class DecidesOtherwise(RightGuard):
    calls: list = field(default_factory=list, repr=False, compare=False)

    def _side(self, model, learned, images, threshold):
        self.calls.append(threshold)
        scores = RightGuard._score(self, model, learned, images)
        return scores if len(self.calls) == 1 else 2 * threshold - scores


@dataclass(frozen=True, kw_only=True)
class AlarmsOften(RightGuard):
    def _threshold(self, scores, rate):
        return float(scores.median()), ()


@dataclass(frozen=True, kw_only=True)
class CalibratesOnWhatItSaw(RightGuard):
    def _split(self, clean, rate, run):
        return clean, clean


@dataclass(frozen=True, kw_only=True)
class PromisesAnything(RightGuard):
    def _split(self, clean, rate, run):
        return Guard._split(self, clean, 0.5, run)

    def _threshold(self, scores, rate):
        return float(scores.max()), ()


@dataclass(frozen=True, kw_only=True)
class DeclaresNoImages(RightGuard):
    card = card(needs=Needs.MODEL)


@dataclass(frozen=True, kw_only=True)
class ForgetsAnArray(RightGuard):
    def _fit(self, defender, run):
        ForgetsAnArray.kept = torch.rand(256, generator=run.generator)
        return Learned(values={"shape": (256, 1)})

    def _score(self, model, learned, images):
        return images.flatten(1) @ ForgetsAnArray.kept


WRONG_GUARDS = {
    ScoresNothing: "every_image_gets_a_score",
    ComparesWithinTheBatch: "an_image_is_judged_by_itself",
    ScoresByChance: "an_image_is_judged_by_itself",
    ChangesWhatItLearned: "scoring_leaves_everything_alone",
    DecidesOtherwise: "answers_follow_the_threshold",
    AlarmsOften: "the_rate_is_kept_on_calibration_images",
    CalibratesOnWhatItSaw: "calibration_images_are_unseen",
    PromisesAnything: "too_few_clean_images_are_refused",
    DeclaresNoImages: "clean_images_are_declared",
    ForgetsAnArray: "a_saved_guard_judges_as_before",
}


def test_a_guard_that_is_right_breaks_no_promise(monkeypatch):
    monkeypatch.setitem(guards._methods, "x", RightGuard)  # as if registered: it has to be found when it is loaded
    assert broken_promises(RightGuard, small_world()) == {}


@pytest.mark.parametrize("culprit", WRONG_GUARDS, ids=lambda culprit: culprit.__name__)
def test_every_guard_check_catches_its_culprit(culprit, monkeypatch):
    monkeypatch.setitem(guards._methods, "x", culprit)
    check = next(check for check in checks_for(culprit) if check.__name__ == WRONG_GUARDS[culprit])
    with pytest.raises(AssertionError):
        check(culprit, small_world())


def test_every_guard_check_has_a_culprit():
    assert {check.__name__ for check in checks_for(RightGuard)} == {
        *CULPRITS.values(),
        *WRONG_GUARDS.values(),
    } - {"verdict_is_well_formed", "verdict_survives_json"}


# --- learners ---


@dataclass(frozen=True, kw_only=True)
class RightLearner(Learner):
    """What it does: nothing. Needs: little. Limits: many. Source: none."""

    card = card(needs=LEARNS)

    def _learn(self, defender: Defender, run: Run) -> Taught:
        with torch.no_grad():
            next(defender.model.parameters()).mul_(torch.rand(1, generator=run.generator))
        return Taught(model=defender.model, distrusted=defender.training_set.labels == 1)


@dataclass(frozen=True, kw_only=True)
class LeavesAHookBehind(RightLearner):
    def _learn(self, defender, run):
        defender.model.net.classifier.register_forward_hook(lambda *_: None)
        return Taught(model=defender.model)


@dataclass(frozen=True, kw_only=True)
class KeepsTheWeights(RightLearner):
    def run(self, defender, **arguments):
        learned = Learner.run(self, defender, **arguments)
        learned.model.load_state_dict(defender.model.state_dict())
        return learned


@dataclass(frozen=True, kw_only=True)
class LearnsTheIds(RightLearner):
    def _learn(self, defender, run):
        with torch.no_grad():
            next(defender.model.parameters()).add_(float(defender.training_set.ids[0]))
        return Taught(model=defender.model)


@dataclass(frozen=True, kw_only=True)
class MakesUpLabels(RightLearner):
    def run(self, defender, **arguments):
        held = defender.training_set
        labels = torch.zeros(len(held), dtype=torch.int64) if held.labels is None else held.labels
        return Learner.run(self, replace(defender, training_set=replace(held, labels=labels)), **arguments)


@dataclass(frozen=True, kw_only=True)
class TrainsUndeclared(RightLearner):
    card = card(needs=Needs.MODEL | Needs.TRAINING_SET)


@dataclass(frozen=True, kw_only=True)
class TellsNoHistory(RightLearner):
    def _finished(self, model, seed):
        return model.eval()


@dataclass(frozen=True, kw_only=True)
class TellsOfSome(RightLearner):
    def _learn(self, defender, run):
        return Taught(model=defender.model, losses=torch.zeros(2, 3))


WRONG_LEARNERS = {
    LeavesAHookBehind: "learned_model_is_a_new_working_one",
    KeepsTheWeights: "given_weights_say_nothing",
    LearnsTheIds: "ids_teach_nothing",
    MakesUpLabels: "unlabeled_images_teach_nothing",
    TrainsUndeclared: "training_is_declared",
    TellsNoHistory: "learning_is_in_the_history",
    TellsOfSome: "told_of_every_sample",
}


def test_a_learner_that_is_right_breaks_no_promise():
    assert broken_promises(RightLearner, small_world()) == {}


@pytest.mark.parametrize("culprit", WRONG_LEARNERS, ids=lambda culprit: culprit.__name__)
def test_every_learner_check_catches_its_culprit(culprit):
    check = next(check for check in checks_for(culprit) if check.__name__ == WRONG_LEARNERS[culprit])
    with pytest.raises(AssertionError):
        check(culprit, small_world())


def test_every_learner_check_has_a_culprit():
    assert {check.__name__ for check in checks_for(RightLearner)} == {
        *CULPRITS.values(),
        *WRONG_LEARNERS.values(),
    } - {"verdict_is_well_formed", "verdict_survives_json"}


# --- attacks ---


@dataclass(frozen=True, kw_only=True)
class RightAttack(Attack):
    """Source: none."""

    card = card(needs=Needs.TRAINING_SET)

    def _stamp(self, images):
        return 1 - images


@dataclass(frozen=True, kw_only=True)
class StampsInPlace(RightAttack):
    def _stamp(self, images):
        return images.mul_(0.5)


@dataclass(frozen=True, kw_only=True)
class StampsNothing(RightAttack):
    def _stamp(self, images):
        return images


@dataclass(frozen=True, kw_only=True)
class LeavesTheRange(RightAttack):
    def stamp(self, images):
        return images + 0.5


@dataclass(frozen=True, kw_only=True)
class PoisonsTheCaller(RightAttack):
    def poison(self, samples, *, seed=0):
        made = Attack.poison(self, samples, seed=seed)
        samples.labels.copy_(made.samples.labels)
        return made


@dataclass(frozen=True, kw_only=True)
class PoisonsHalf(RightAttack):
    def choose(self, labels, generator, taken=None):
        choice = Attack.choose(self, labels, generator, taken)
        return replace(choice, poisoned=choice.poisoned & (torch.arange(len(labels)) % 2 == 0))


@dataclass(frozen=True, kw_only=True)
class MisplacesTheMask(RightAttack):
    def poison(self, samples, *, seed=0):
        made = Attack.poison(self, samples, seed=seed)
        return replace(made, mask=made.mask.roll(1))


@dataclass(frozen=True, kw_only=True)
class PoisonsByChance(RightAttack):
    def poison(self, samples, *, seed=0):
        return Attack.poison(self, samples, seed=int(torch.randint(2**31, (1,))))


@dataclass(frozen=True, kw_only=True)
class TrainsInPlace(RightAttack):
    def _train(self, model, samples, recipe, seed, progress):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return Attack._train(self, model, samples, recipe, seed, progress)


@dataclass(frozen=True, kw_only=True)
class ForgetsItsTrigger(RightAttack):
    hidden: list = field(default_factory=list, repr=False, compare=False)

    def _prepare(self, samples, generator):
        return replace(self, hidden=[0.25])

    def _stamp(self, images):
        return (1 - images) * (self.hidden[0] if self.hidden else 1.0)


WRONG_ATTACKS = {
    StampsInPlace: "stamped_images_are_images",
    StampsNothing: "stamped_images_are_images",
    LeavesTheRange: "stamped_images_are_images",
    PoisonsTheCaller: "poisoning_leaves_the_caller_alone",
    PoisonsHalf: "poisoning_rate_is_met",
    MisplacesTheMask: "only_what_is_marked_is_touched",
    TrainsInPlace: "training_gives_a_model_and_leaves_the_caller_alone",
    ForgetsItsTrigger: "what_was_learned_can_be_carried_over",
    PoisonsByChance: "same_seed_same_poison",
}


def test_an_attack_that_is_right_breaks_no_promise():
    assert broken_promises(RightAttack, small_world()) == {}


@pytest.mark.parametrize("culprit", WRONG_ATTACKS, ids=lambda culprit: culprit.__name__)
def test_every_attack_check_catches_its_culprit(culprit):
    check = next(check for check in checks_for(culprit) if check.__name__ == WRONG_ATTACKS[culprit])
    with pytest.raises(AssertionError):
        check(culprit, small_world())
