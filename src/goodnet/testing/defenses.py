"""The checks of every defense: what it may see, what it must leave alone, and what its result says of itself."""

import contextlib
import copy
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import Auditor
from goodnet.cleanse._base import Cleanser
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.errors import NotHeld
from goodnet.guard._base import Guard
from goodnet.learn._base import Learner
from goodnet.repair._base import Repairer
from goodnet.testing._common import Check, Snapshot, quick, require
from goodnet.testing._world import World


@dataclass(frozen=True)
class _Way:
    """How a role is run: the name of its hook, more arguments, made for a method and a world, and the public call."""

    hook: str
    arguments: Callable[[Any, World], dict[str, Any]]
    call: str = "run"


def _lower_scores(auditor: Auditor, world: World) -> dict[str, Any]:
    """Nineteen clean nets that score lower than anything, so that there is something to compare with."""
    assert world.defender.model is not None
    clean = BankEntry(
        method=auditor.card.name,
        version=auditor.card.version,
        score=-1e9,
        num_classes=world.defender.model.num_classes,
        architecture="small_cnn",
        data="noise",
        seed=0,
    )
    return {"bank": CleanBank((clean,) * 19)}


_WAYS: dict[type, _Way] = {
    Auditor: _Way("_inspect", _lower_scores),
    Cleanser: _Way("_score", lambda *_: {}),
    Repairer: _Way("_fix", lambda *_: {}),
    Guard: _Way("_fit", lambda *_: {"rate": 0.1}, "fit"),  # the world's clean images are too few for the usual rate
    Learner: _Way("_learn", lambda *_: {}),
}


def _way(method: type[Any]) -> _Way:
    return next(way for role, way in _WAYS.items() if issubclass(method, role))


def run(method: Any, world: World, **arguments: Any) -> Any:
    """The result of a method in a world."""
    way = _way(type(method))
    return getattr(method, way.call)(world.defender, **{**way.arguments(method, world), **arguments})


def _answer(result: Any) -> str:
    """All of a result but its cost, as text, so that NaN equals NaN."""

    def text(value: Any) -> Any:
        if isinstance(value, torch.nn.Module):
            return {name: array.tolist() for name, array in value.state_dict().items()}
        if isinstance(value, torch.Tensor):
            return value.tolist()
        if hasattr(value, "__dataclass_fields__"):
            return {name: text(getattr(value, name)) for name in value.__dataclass_fields__ if name != "provenance"}
        if isinstance(value, dict):
            return {key: text(inner) for key, inner in value.items()}
        return [text(inner) for inner in value] if isinstance(value, list | tuple) else value

    return repr([text(result), dict(result.provenance.counts)])


def _with_hook(method: type[Any], hook: Callable[[Any, Defender, Run], Any]) -> type[Any]:
    """The same method with another hook."""
    return type(method.__name__, (method,), {_way(method).hook: hook, "__doc__": method.__doc__})


def _hook(method: type[Any]) -> Callable[[Any, Defender, Run], Any]:
    hook: Callable[[Any, Defender, Run], Any] = getattr(method, _way(method).hook)
    return hook


class _Planned(Exception):
    """Raised inside a hook on purpose."""


def same_seed_same_answer(method: type[Any], world: World) -> None:
    """The answer depends on the seed and not on the caller's random state."""
    answers = []
    for callers_seed in (1, 2):
        with isolated_rng(callers_seed):
            answers.append(_answer(run(quick(method), world, seed=5)))
    require(answers[0] == answers[1], "two runs with one seed give different answers")


def caller_is_left_alone(method: type[Any], world: World) -> None:
    """Weights, mode, hooks, gradients, images and global random states are as they were, whatever mode was set."""
    for training in (True, False):
        assert world.defender.model is not None
        other = World(replace(world.defender, model=copy.deepcopy(world.defender.model).train(training)), world.samples)
        before = Snapshot(other)
        run(quick(method), other)
        before.require_unchanged("by a run")


def caller_is_left_alone_after_an_exception(method: type[Any], world: World) -> None:
    """The same when the hook does its work and then fails; the exception reaches the caller."""
    hook = _hook(method)

    def fails(self: Any, defender: Defender, run: Run) -> Any:
        hook(self, defender, run)
        raise _Planned

    before = Snapshot(world)
    try:
        run(quick(_with_hook(method, fails)), world)
    except _Planned:
        before.require_unchanged("by a run that fails")
    else:
        raise AssertionError("an exception inside the hook does not reach the caller")


def missing_needs_are_refused_by_name(method: type[Any], world: World) -> None:
    """Without something that the card declares the run is refused, and the message says what is missing."""
    defender = world.defender
    assert defender.clean is not None
    assert defender.training_set is not None
    without = {
        Needs.MODEL: (replace(defender, model=None), "model"),
        Needs.CLEAN: (replace(defender, clean=None), "clean"),
        Needs.CLEAN_LABELS: (replace(defender, clean=defender.clean.without_labels()), "labels"),
        Needs.TRAINING_SET: (replace(defender, training_set=None), "training"),
        Needs.SOURCES: (replace(defender, training_set=replace(defender.training_set, sources=None)), "sources"),
        Needs.TRIGGERS: (replace(defender, triggers=None), "triggers"),
    }
    for need, (poorer, word) in without.items():
        if need in method.card.needs:
            try:
                getattr(quick(method), _way(method).call)(poorer)
            except NotHeld as error:
                require(word in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
            else:
                raise AssertionError(f"runs without {need}, which its card declares")


def undeclared_things_are_unreachable(method: type[Any], world: World) -> None:
    """The hook sees what the card declares and nothing else, and of the model a copy."""
    seen: list[Defender] = []
    hook = _hook(method)

    def looks(self: Any, defender: Defender, run: Run) -> Any:
        seen.append(defender)
        return hook(self, defender, run)

    run(quick(_with_hook(method, looks)), world)
    require(len(seen) == 1, "the hook is not called once")
    held, needs = seen[0], method.card.needs | method.card.uses
    require(Needs.CLEAN in needs or held.clean is None, "sees clean images, which its card does not declare")
    require(Needs.TRAINING_SET in needs or held.training_set is None, "sees the training set undeclared")
    require(Needs.TRIGGERS in needs or held.triggers is None, "sees triggers undeclared")
    labels = None if held.clean is None else held.clean.labels
    require(Needs.CLEAN_LABELS in needs or labels is None, "sees the clean images' labels undeclared")
    sources = None if held.training_set is None else held.training_set.sources
    require(Needs.SOURCES in needs or sources is None, "sees the sources of the training set undeclared")
    require(Needs.MODEL in needs or held.model is None, "sees the model undeclared")
    require(held.model is not world.defender.model or held.model is None, "holds the caller's own model")


def what_it_uses_can_be_missing(method: type[Any], world: World) -> None:
    """It runs without what its card says it uses and does not need."""
    defender = world.defender
    if Needs.CLEAN_LABELS in method.card.uses and defender.clean is not None:
        defender = replace(defender, clean=defender.clean.without_labels())
    if Needs.CLEAN in method.card.uses:
        defender = replace(defender, clean=None)
    if Needs.TRIGGERS in method.card.uses:
        defender = replace(defender, triggers=None)
    run(quick(method), replace(world, defender=defender))


def nothing_is_printed(method: type[Any], world: World) -> None:
    """A run writes neither to standard output nor to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        run(quick(method), world)
    printed = out.getvalue() + err.getvalue()
    require(not printed, f"prints {printed[:60]!r}")


def provenance_tells_how(method: type[Any], world: World) -> None:
    """The result names the method, its version, every parameter, the seed, and what the method assumes."""
    made = quick(method)
    provenance = run(made, world, seed=7).provenance
    told = provenance.method, provenance.version, dict(provenance.parameters), provenance.seed, provenance.assumes
    card = method.card
    require(told == (card.name, card.version, asdict(made), 7, card.assumes), f"the provenance says {told}")


def progress_is_a_share(method: type[Any], world: World) -> None:
    """Progress is told as shares between 0 and 1 that do not fall, with some words."""
    told: list[tuple[float, str]] = []
    run(quick(method), world, progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    require(all(0 <= share <= 1 for share in shares) and shares == sorted(shares), f"progress goes {shares}")
    require(all(text for _, text in told), "progress without words")


def tiny_budget_still_gives_an_answer(method: type[Any], world: World) -> None:
    """When time is up at once, the best answer so far comes back."""
    require(hasattr(run(quick(method), world, budget=1e-9), "provenance"), "no result when time runs out")


CHECKS: tuple[Check, ...] = (
    same_seed_same_answer,
    caller_is_left_alone,
    caller_is_left_alone_after_an_exception,
    missing_needs_are_refused_by_name,
    undeclared_things_are_unreachable,
    what_it_uses_can_be_missing,
    nothing_is_printed,
    provenance_tells_how,
    progress_is_a_share,
    tiny_budget_still_gives_an_answer,
)
