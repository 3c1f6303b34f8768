"""The contract that every registered method keeps, as checks that anyone may run on a method of their own::

    from goodnet.testing import broken_promises, small_world

    assert not broken_promises(MyAuditor, small_world())

A check takes a method's class and a World, and raises AssertionError with a sentence when the method breaks it. A
method that knows that it breaks one says so, with the reason, in its card's ``known_failures`` under the check's name.
"""

import ast
import contextlib
import copy
import io
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from goodnet.attacks._base import Attack, to_bytes
from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import Auditor, Inspection, Verdict
from goodnet.core.classifier import Classifier
from goodnet.core.defender import Defender
from goodnet.core.registry import Needs
from goodnet.core.rng import isolated_rng
from goodnet.core.run import Run
from goodnet.core.samples import Samples
from goodnet.errors import GoodnetError, NotHeld, ParameterError
from goodnet.models import architectures

_SECTIONS: dict[type, tuple[str, ...]] = {
    Auditor: ("What it does:", "Needs:", "Limits:", "Source:"),
    Attack: ("Source:",),
}


@dataclass(frozen=True)
class World:
    """What methods are tried on: a defender who holds everything, and labeled samples to poison."""

    defender: Defender
    samples: Samples


Check = Callable[[type[Any], World], None]


def small_world(seed: int = 0) -> World:
    """An untrained network of ten labels and forty random grey images of 16x16 pixels: every method runs, fast."""
    shape, classes = (1, 16, 16), 10
    with isolated_rng(seed) as generator:
        images = torch.randint(256, (40, *shape), generator=generator, dtype=torch.uint8)
        net = architectures.build("small_cnn", num_classes=classes, input_shape=shape, width=4)
    model = Classifier(net, input_shape=shape, num_classes=classes, architecture="small_cnn").train()
    samples = Samples(images=images, labels=torch.arange(40) % classes)
    return World(Defender(model=model, clean=samples, training_set=samples), samples)


def checks_for(method: type[Any]) -> tuple[Check, ...]:
    """The checks that apply to the role of ``method``."""
    return _EVERY_METHOD + tuple(
        check for role, checks in _ROLES.items() if issubclass(method, role) for check in checks
    )


def broken_promises(method: type[Any], world: World) -> dict[str, str]:
    """Check name -> what is wrong, for every check that ``method`` fails and its card does not admit to."""
    broken = {}
    for check in checks_for(method):
        if check.__name__ not in method.card.known_failures:
            try:
                check(method, world)
            except AssertionError as error:
                broken[check.__name__] = str(error)
    return broken


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


def _quick(method: type[Any], **changes: Any) -> Any:
    """The method with the fast arguments of its card."""
    return method(**{**method.card.quick, **changes})


# --- every method ---


def repr_gives_the_method_back(method: type[Any], world: World) -> None:
    """``repr`` is the call that makes an equal object."""
    made = _quick(method)
    call = ast.parse(repr(made), mode="eval").body
    _require(isinstance(call, ast.Call) and not call.args, f"repr is not a call with keywords: {made!r}")
    assert isinstance(call, ast.Call)
    arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    _require(method(**arguments) == made, f"repr gives another object back: {made!r}")


def out_of_range_parameters_are_named(method: type[Any], world: World) -> None:
    """Every bound is enforced with a ParameterError that names the field; NaN is refused where there is a bound."""
    for parameter in fields(method):
        limits = parameter.metadata
        low, high = limits.get("low"), limits.get("high")
        wrong: list[Any] = [] if low is None else [low - 1]
        wrong += [] if high is None else [high + 1]
        wrong += [float("nan")] if wrong else []
        wrong += ["no such choice"] if limits.get("choices") else []
        for value in wrong:
            try:
                _quick(method, **{parameter.name: value})
            except ParameterError as error:
                _require(parameter.name in str(error), f"the message does not name {parameter.name}: {error}")
            else:
                raise AssertionError(f"{parameter.name} = {value!r} is accepted")


def docstring_says_what_it_must(method: type[Any], world: World) -> None:
    """The docstring has the sections of its role."""
    wanted = next((sections for role, sections in _SECTIONS.items() if issubclass(method, role)), ("Source:",))
    missing = [section for section in wanted if section not in (method.__dict__.get("__doc__") or "")]
    _require(not missing, f"the docstring lacks {', '.join(missing)}")


_EVERY_METHOD: tuple[Check, ...] = (
    repr_gives_the_method_back,
    out_of_range_parameters_are_named,
    docstring_says_what_it_must,
)


# --- what must be left alone ---


def _global_state() -> str:
    numpy_state = np.random.get_state(legacy=False)
    return repr(
        (
            random.getstate(),
            [(name, value.tolist() if isinstance(value, np.ndarray) else value) for name, value in _flat(numpy_state)],
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        )
    )


def _flat(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(nested, dict):
        for key, value in nested.items():
            yield from _flat(value, f"{name}.{key}")
    else:
        yield name, nested


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class _Snapshot:
    """The caller's things as they were."""

    world: World
    model: dict[str, torch.Tensor] = field(init=False)
    modes: list[object] = field(init=False)
    samples: list[torch.Tensor] = field(init=False)
    state: str = field(init=False)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self._model().state_dict())
        self.modes, self.samples, self.state = self._modes(), self._tensors(), _global_state()

    def _model(self) -> Classifier:
        assert self.world.defender.model is not None
        return self.world.defender.model

    def _modes(self) -> list[object]:
        modules = [(one.training, [len(getattr(one, hooks)) for hooks in _HOOKS]) for one in self._model().modules()]
        return [modules, [(one.requires_grad, one.grad is None) for one in self._model().parameters()]]

    def _tensors(self) -> list[torch.Tensor]:
        held = (self.world.samples, self.world.defender.clean, self.world.defender.training_set)
        values = [getattr(samples, name) for samples in held for name in ("images", "labels", "ids", "sources")]
        return [value.clone() for value in values if value is not None]

    def require_unchanged(self, when: str) -> None:
        now = self._model().state_dict()
        same = now.keys() == self.model.keys() and all(torch.equal(now[name], self.model[name]) for name in now)
        _require(same, f"the caller's weights change {when}")
        _require(self._modes() == self.modes, f"the caller's mode, hooks, gradients or requires_grad change {when}")
        unchanged = all(torch.equal(one, other) for one, other in zip(self._tensors(), self.samples, strict=True))
        _require(unchanged, f"the caller's images, labels or ids change {when}")
        _require(_global_state() == self.state, f"a global random state or torch setting changes {when}")


# --- auditors ---


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
            answers.append(_answer(_audit(_quick(method), world, seed=5)))
    _require(answers[0] == answers[1], "two runs with one seed give different answers")


def caller_is_left_alone(method: type[Auditor], world: World) -> None:
    """Weights, mode, hooks, gradients, images and global random states are as they were, whatever mode was set."""
    for training in (True, False):
        assert world.defender.model is not None
        other = World(replace(world.defender, model=copy.deepcopy(world.defender.model).train(training)), world.samples)
        before = _Snapshot(other)
        _audit(_quick(method), other)
        before.require_unchanged("by a run")


def caller_is_left_alone_after_an_exception(method: type[Auditor], world: World) -> None:
    """The same when the hook does its work and then fails; the exception reaches the caller."""

    def fails(self: Any, defender: Defender, run: Run) -> Inspection:
        method._inspect(self, defender, run)
        raise _Planned

    before = _Snapshot(world)
    try:
        _audit(_quick(_with_hook(method, fails)), world)
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
                _quick(method).run(poorer, bank=CleanBank(()))
            except NotHeld as error:
                _require(word in str(error) and method.card.name in str(error), f"the message is unclear: {error}")
            else:
                raise AssertionError(f"runs without {need}, which its card declares")


def undeclared_things_are_unreachable(method: type[Auditor], world: World) -> None:
    """The hook sees what the card declares and nothing else, and a copy of the model in eval mode without gradients."""
    seen: list[Defender] = []

    def looks(self: Any, defender: Defender, run: Run) -> Inspection:
        seen.append(defender)
        return method._inspect(self, defender, run)

    _audit(_quick(_with_hook(method, looks)), world)
    _require(len(seen) == 1, "the hook is not called once")
    held, needs = seen[0], method.card.needs
    _require(Needs.CLEAN in needs or held.clean is None, "sees clean images, which its card does not declare")
    _require(Needs.TRAINING_SET in needs or held.training_set is None, "sees the training set undeclared")
    labels = None if held.clean is None else held.clean.labels
    _require(Needs.CLEAN_LABELS in needs or labels is None, "sees the clean images' labels undeclared")
    _require(held.model is not None and held.model is not world.defender.model, "holds the caller's own model")


def nothing_is_printed(method: type[Auditor], world: World) -> None:
    """A run writes neither to standard output nor to standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        _audit(_quick(method), world)
    printed = out.getvalue() + err.getvalue()
    _require(not printed, f"prints {printed[:60]!r}")


def verdict_is_well_formed(method: type[Auditor], world: World) -> None:
    """Every number is in its range and every trigger has the model's shape."""
    verdict, model = _audit(_quick(method), world), world.defender.model
    assert model is not None
    labels = set(range(model.num_classes))
    _require(not math.isnan(verdict.score), "the score is not a number")
    _require(verdict.p_value is None or 0 < verdict.p_value <= 1, f"p-value {verdict.p_value}")
    _require(verdict.num_classes == model.num_classes, "num_classes is not the model's")
    _require(set(verdict.targets) <= labels and bool(verdict.flagged) == bool(verdict.targets), "wrong targets")
    found = [finding.label for finding in verdict.per_class]
    _require(set(found) <= labels and len(set(found)) == len(found), "labels twice, or labels that do not exist")
    _require(not any(math.isnan(finding.score) for finding in verdict.per_class), "a label's score is not a number")
    for trigger in verdict.triggers:
        shapes = tuple(trigger.mask.shape), tuple(trigger.pattern.shape)
        _require(shapes == (model.input_shape[1:], model.input_shape), f"mask and pattern have the shapes {shapes}")
        for name, value in (("mask", trigger.mask), ("pattern", trigger.pattern)):
            _require(bool(((value >= 0) & (value <= 1)).all()), f"a trigger's {name} leaves [0, 1]")
        _require(trigger.target in labels and 0 <= trigger.success_rate <= 1, "a trigger's target or success is wrong")


def verdict_survives_json(method: type[Auditor], world: World) -> None:
    """Evidence and counts are JSON values, and the report's record of the verdict is strict JSON."""
    from goodnet.report.json import verdict_to_dict  # here: it takes the report's dependencies with it

    verdict = _audit(_quick(method), world)
    try:
        json.dumps([dict(verdict.evidence), dict(verdict.provenance.counts)])
        record = verdict_to_dict(verdict, file="model.pt", sha256="")
        _require(json.loads(json.dumps(record, allow_nan=False)) == record, "the record changes on the way")
    except (TypeError, ValueError, GoodnetError) as error:
        raise AssertionError(f"not JSON: {error}") from None


def provenance_tells_how(method: type[Auditor], world: World) -> None:
    """The result names the method, its version, every parameter and the seed."""
    auditor = _quick(method)
    provenance = _audit(auditor, world, seed=7).provenance
    told = provenance.method, provenance.version, dict(provenance.parameters), provenance.seed
    _require(told == (method.card.name, method.card.version, asdict(auditor), 7), f"the provenance says {told}")


def progress_is_a_share(method: type[Auditor], world: World) -> None:
    """Progress is told as shares between 0 and 1 that do not fall, with some words."""
    told: list[tuple[float, str]] = []
    _audit(_quick(method), world, progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    _require(all(0 <= share <= 1 for share in shares) and shares == sorted(shares), f"progress goes {shares}")
    _require(all(text for _, text in told), "progress without words")


def tiny_budget_still_gives_a_verdict(method: type[Auditor], world: World) -> None:
    """When time is up at once, the best answer so far comes back, and the caller is left alone."""
    _require(isinstance(_audit(_quick(method), world, budget=1e-9), Verdict), "no verdict when time runs out")


_AUDITORS: tuple[Check, ...] = (
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


# --- attacks ---


def poisoning_leaves_the_caller_alone(method: type[Attack], world: World) -> None:
    """The clean samples and the global random states are as they were."""
    before = _Snapshot(world)
    _quick(method).poison(world.samples)
    before.require_unchanged("by poisoning")


def same_seed_same_poison(method: type[Attack], world: World) -> None:
    """The poison depends on the seed and not on the caller's random state."""
    made = []
    for callers_seed in (1, 2):
        with isolated_rng(callers_seed):
            made.append(_quick(method).poison(world.samples, seed=3))
    same = torch.equal(made[0].mask, made[1].mask) and torch.equal(made[0].samples.images, made[1].samples.images)
    _require(same, "two poisonings with one seed differ")


def mask_marks_what_was_poisoned(method: type[Attack], world: World) -> None:
    """Labels change exactly where the mask is, to the target, and the images there are the stamped ones, at 8 bits."""
    attack, clean = _quick(method, poisoning_rate=0.3), world.samples
    poisoned = attack.poison(clean)
    assert clean.labels is not None
    changed = poisoned.samples.labels != clean.labels
    _require(torch.equal(changed, poisoned.mask), "the mask is not where labels changed")
    _require(bool((poisoned.samples.labels[changed] == attack.target).all()), "a label changed to something else")
    stamped = to_bytes(attack.stamp(clean.images[changed].float() / 255))
    _require(torch.equal(poisoned.samples.images[changed], stamped), "a poisoned image is not the stamped one")
    assert poisoned.samples.ids is not None
    assert clean.ids is not None
    _require(torch.equal(poisoned.samples.ids, clean.ids), "the ids do not say where the samples came from")


def poisoning_rate_is_met(method: type[Attack], world: World) -> None:
    """The poisoned share of the whole set is the one asked for; none at all when it is zero."""
    for rate in (0.0, 0.1, 0.3):
        share = float(_quick(method, poisoning_rate=rate).poison(world.samples).mask.float().mean())
        _require(abs(share - rate) <= 0.5 / len(world.samples) + 1e-6, f"{share:.3f} poisoned, {rate} wanted")


def stamped_images_are_images(method: type[Attack], world: World) -> None:
    """Stamping keeps the shape and [0, 1], changes something, and leaves the images that it was given alone."""
    attack = _quick(method)
    images = world.samples.floats()
    images[0], images[1] = 0, 1
    before = images.clone()
    stamped = attack.stamp(images)
    _require(stamped.shape == images.shape, f"the shape becomes {tuple(stamped.shape)}")
    _require(float(stamped.min()) >= 0 and float(stamped.max()) <= 1, "stamped images leave [0, 1]")
    _require(torch.equal(images, before), "stamping changes the images that it was given")
    _require(not torch.equal(stamped, images), "stamping changes nothing")


_ATTACKS: tuple[Check, ...] = (
    poisoning_leaves_the_caller_alone,
    same_seed_same_poison,
    mask_marks_what_was_poisoned,
    poisoning_rate_is_met,
    stamped_images_are_images,
)

_ROLES: dict[type, Sequence[Check]] = {Auditor: _AUDITORS, Attack: _ATTACKS}
