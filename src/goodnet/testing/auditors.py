"""The checks of auditors."""

import contextlib
import copy
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import Auditor, Inspection, Verdict
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.errors import GoodnetError, NotHeld
from goodnet.testing._common import Check, Snapshot, quick, require
from goodnet.testing._world import World


def _audit(auditor: Auditor, world: World, **arguments: Any) -> Verdict:
    """A verdict beside nineteen clean nets that score lower than anything."""
    name, version = auditor.card.name, auditor.card.version
    assert world.defender.model is not None
    clean = BankEntry(
        method=name,
        version=version,
        score=-1e9,
        num_classes=world.defender.model.num_classes,
        architecture="small_cnn",
        data="noise",
        seed=0,
    )
    return auditor.run(world.defender, bank=CleanBank((clean,) * 19), **arguments)


def _answer(verdict: Verdict) -> str:
    """All of the verdict but its cost, as text, so that NaN equals NaN."""

    def text(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if isinstance(value, dict):
            return {key: text(inner) for key, inner in value.items()}
        return [text(inner) for inner in value] if isinstance(value, list | tuple) else value

    answer = {name: value for name, value in asdict(verdict).items() if name != "provenance"}
    return repr(text({**answer, "counts": dict(verdict.provenance.counts)}))


def _with_hook(method: type[Auditor], hook: Callable[[Any, Defender, Run], Inspection]) -> type[Auditor]:
    """The same method with another ``_inspect``."""
    return type(method.__name__, (method,), {"_inspect": hook, "__doc__": method.__doc__})


class _Planned(Exception):
    """Raised inside a hook on purpose."""


def same_seed_same_answer(method: type[Auditor], world: World) -> None:
    """The answer depends on the seed and not on the caller's random state."""
    answers = []
    for callers_seed in (1, 2):
        with isolated_rng(callers_seed):
            answers.append(_answer(_audit(quick(method), world, seed=5)))
    require(answers[0] == answers[1], "two runs with one seed give different answers")


def caller_is_left_alone(method: type[Auditor], world: World) -> None:
    """Weights, mode, hooks, gradients, images and global random states are as they were, whatever mode was set."""
    for training in (True, False):
        assert world.defender.model is not None
        other = World(replace(world.defender, model=copy.deepcopy(world.defender.model).train(training)), world.samples)
        before = Snapshot(other)
        _audit(quick(method), other)
        before.require_unchanged("by a run")


def caller_is_left_alone_after_an_exception(method: type[Auditor], world: World) -> None:
    """The same when the hook does its work and then fails; the exception reaches the caller."""

    def fails(self: Any, defender: Defender, run: Run) -> Inspection:
        method._inspect(self, defender, run)
        raise _Planned

    before = Snapshot(world)
    try:
        _audit(quick(_with_hook(method, fails)), world)
    except _Planned:
        before.require_unchanged("by a run that fails")
    else:
        raise AssertionError("an exception inside the hook does not reach the caller")


def missing_needs_are_refused_by_name(method: type[Auditor], world: World) -> None:
    """Without something that the card declares the run is refused, and the message says what is missing."""
    defender = world.defender
    assert defender.clean is not None
    without = {
        Needs.MODEL: (replace(defender, model=None), "model"),
        Needs.CLEAN: (replace(defender, clean=None), "clean"),
        Needs.CLEAN_LABELS: (replace(defender, clean=defender.clean.without_labels()), "labels"),
        Needs.TRAINING_SET: (replace(defender, training_set=None), "training"),
    }
    for need, (poorer, word) in without.items():
        if need in method.card.needs:
            try:
                quick(method).run(poorer, bank=CleanBank(()))
            except NotHeld as error:
                require(word in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
            else:
                raise AssertionError(f"runs without {need}, which its card declares")


def undeclared_things_are_unreachable(method: type[Auditor], world: World) -> None:
    """The hook sees what the card declares and nothing else, and a copy of the model in eval mode without gradients."""
    seen: list[Defender] = []

    def looks(self: Any, defender: Defender, run: Run) -> Inspection:
        seen.append(defender)
        return method._inspect(self, defender, run)

    _audit(quick(_with_hook(method, looks)), world)
    require(len(seen) == 1, "the hook is not called once")
    held, needs = seen[0], method.card.needs
    require(Needs.CLEAN in needs or held.clean is None, "sees clean images, which its card does not declare")
    require(Needs.TRAINING_SET in needs or held.training_set is None, "sees the training set undeclared")
    labels = None if held.clean is None else held.clean.labels
    require(Needs.CLEAN_LABELS in needs or labels is None, "sees the clean images' labels undeclared")
    require(held.model is not None and held.model is not world.defender.model, "holds the caller's own model")


def nothing_is_printed(method: type[Auditor], world: World) -> None:
    """A run writes neither to standard output nor to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        _audit(quick(method), world)
    printed = out.getvalue() + err.getvalue()
    require(not printed, f"prints {printed[:60]!r}")


def verdict_is_well_formed(method: type[Auditor], world: World) -> None:
    """Every number is in its range and every trigger has the model's shape."""
    verdict, model = _audit(quick(method), world), world.defender.model
    assert model is not None
    labels = set(range(model.num_classes))
    require(not math.isnan(verdict.score), "the score is not a number")
    require(verdict.p_value is None or 0 < verdict.p_value <= 1, f"p-value {verdict.p_value}")
    require(verdict.num_classes == model.num_classes, "num_classes is not the model's")
    require(set(verdict.targets) <= labels and bool(verdict.flagged) == bool(verdict.targets), "wrong targets")
    found = [finding.label for finding in verdict.per_class]
    require(set(found) <= labels and len(set(found)) == len(found), "labels twice, or labels that do not exist")
    require(not any(math.isnan(finding.score) for finding in verdict.per_class), "a label's score is not a number")
    for trigger in verdict.triggers:
        shapes = tuple(trigger.mask.shape), tuple(trigger.pattern.shape)
        require(shapes == (model.input_shape[1:], model.input_shape), f"mask and pattern have the shapes {shapes}")
        for name, value in (("mask", trigger.mask), ("pattern", trigger.pattern)):
            require(bool(((value >= 0) & (value <= 1)).all()), f"a trigger's {name} leaves [0, 1]")
        require(trigger.target in labels and 0 <= trigger.success_rate <= 1, "a trigger's target or success is wrong")


def verdict_survives_json(method: type[Auditor], world: World) -> None:
    """Evidence and counts are JSON values, and the report's record of the verdict is strict JSON."""
    from goodnet.report.json import verdict_to_dict  # here: it takes the report's dependencies with it

    verdict = _audit(quick(method), world)
    try:
        json.dumps([dict(verdict.evidence), dict(verdict.provenance.counts)])
        record = verdict_to_dict(verdict, file="model.pt", sha256="")
        require(json.loads(json.dumps(record, allow_nan=False)) == record, "the record changes on the way")
    except (TypeError, ValueError, GoodnetError) as error:
        raise AssertionError(f"not JSON: {error}") from None


def provenance_tells_how(method: type[Auditor], world: World) -> None:
    """The result names the method, its version, every parameter, the seed, and what the method assumes."""
    auditor = quick(method)
    provenance = _audit(auditor, world, seed=7).provenance
    told = provenance.method, provenance.version, dict(provenance.parameters), provenance.seed, provenance.assumes
    card = method.card
    require(told == (card.name, card.version, asdict(auditor), 7, card.assumes), f"the provenance says {told}")


def progress_is_a_share(method: type[Auditor], world: World) -> None:
    """Progress is told as shares between 0 and 1 that do not fall, with some words."""
    told: list[tuple[float, str]] = []
    _audit(quick(method), world, progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    require(all(0 <= share <= 1 for share in shares) and shares == sorted(shares), f"progress goes {shares}")
    require(all(text for _, text in told), "progress without words")


def tiny_budget_still_gives_a_verdict(method: type[Auditor], world: World) -> None:
    """When time is up at once, the best answer so far comes back, and the caller is left alone."""
    require(isinstance(_audit(quick(method), world, budget=1e-9), Verdict), "no verdict when time runs out")


CHECKS: tuple[Check, ...] = (
    same_seed_same_answer,
    caller_is_left_alone,
    caller_is_left_alone_after_an_exception,
    missing_needs_are_refused_by_name,
    undeclared_things_are_unreachable,
    nothing_is_printed,
    verdict_is_well_formed,
    verdict_survives_json,
    provenance_tells_how,
    progress_is_a_share,
    tiny_budget_still_gives_a_verdict,
)
