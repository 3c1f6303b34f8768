"""The checks of every method, whatever its role."""

import ast
from dataclasses import fields
from typing import Any

from goodnet.attacks._base import Attack
from goodnet.audit._base import Auditor
from goodnet.cleanse._base import Cleanser
from goodnet.errors import ParameterError
from goodnet.guard._base import Guard
from goodnet.learn._base import Learner
from goodnet.repair._base import Repairer
from goodnet.testing._common import Check, quick, require
from goodnet.testing._world import World

_SECTIONS: dict[type, tuple[str, ...]] = {
    Auditor: ("What it does:", "Needs:", "Limits:", "Source:"),
    Cleanser: ("What it does:", "Needs:", "Limits:", "Source:"),
    Guard: ("What it does:", "Needs:", "Limits:", "Source:"),
    Repairer: ("What it does:", "Needs:", "Limits:", "Source:"),
    Learner: ("What it does:", "Needs:", "Limits:", "Source:"),
    Attack: ("Source:",),
}


def repr_gives_the_method_back(method: type[Any], world: World) -> None:
    """``repr`` is the call that makes an equal object."""
    made = quick(method)
    call = ast.parse(repr(made), mode="eval").body
    require(isinstance(call, ast.Call) and not call.args, f"repr is not a call with keywords: {made!r}")
    assert isinstance(call, ast.Call)
    arguments = {
        str(keyword.arg): _value(keyword.value, getattr(made, str(keyword.arg), None)) for keyword in call.keywords
    }
    require(method(**arguments) == made, f"repr gives another object back: {made!r}")


def _value(node: ast.expr, like: Any) -> Any:
    """What a word of a ``repr`` means: a literal, or a call with literals that makes another one of ``like``."""
    if isinstance(node, ast.Call):
        return type(like)(**{str(one.arg): ast.literal_eval(one.value) for one in node.keywords})
    return ast.literal_eval(node)


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
                quick(method, **{parameter.name: value})
            except ParameterError as error:
                require(parameter.name in str(error), f"the message does not name {parameter.name}: {error}")
            else:
                raise AssertionError(f"{parameter.name} = {value!r} is accepted")


def docstring_says_what_it_must(method: type[Any], world: World) -> None:
    """The docstring has the sections of its role."""
    wanted = next((sections for role, sections in _SECTIONS.items() if issubclass(method, role)), ("Source:",))
    missing = [section for section in wanted if section not in (method.__dict__.get("__doc__") or "")]
    require(not missing, f"the docstring lacks {', '.join(missing)}")


CHECKS: tuple[Check, ...] = (
    repr_gives_the_method_back,
    out_of_range_parameters_are_named,
    docstring_says_what_it_must,
)
