"""goodnet list: what there is to choose from, with the cards of the methods."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.cli._values import written
from goodnet.core.registry import unknown_name
from goodnet.errors import UnknownName

Role = Annotated[
    str | None,
    typer.Argument(
        metavar="[ROLE]",
        help="auditors, cleansers, learners, repairers, guards, attacks, architectures, data, suites; else all.",
    ),
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one of the role.")]


def listing(role: Role = None, name: Name = None, as_json: _options.Json = False) -> int:
    """Show methods, architectures, data layouts and suites, and what --set takes with default and range.

    \b
    Examples:
      goodnet list
      goodnet list attacks badnets
      goodnet list auditors --json
    """
    makers = {
        "auditors": _auditors,
        "cleansers": _cleansers,
        "learners": _learners,
        "repairers": _repairers,
        "guards": _guards,
        "attacks": _attacks,
        "architectures": _architectures,
        "data": _data,
        "suites": _suites,
    }
    if role is not None and role not in makers:
        raise UnknownName(unknown_name("role", role, tuple(makers)))
    lists = {title: make() for title, make in makers.items() if role in (None, title)}
    if role is not None and name is not None:
        lists[role] = _only(name, role, lists[role])
    typer.echo(
        json.dumps({"schema": 1, **lists}, indent=1) if as_json else "\n\n".join(map(_shown, lists, lists.values()))
    )
    return _outcome.NOTHING_FOUND


def _only(name: str, role: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    chosen = [row for row in rows if row["name"] == name]
    if not chosen:
        raise UnknownName(unknown_name(f"name among the {role}", name, tuple(row["name"] for row in rows)))
    return chosen


def _auditors() -> list[dict[str, Any]]:
    from goodnet.audit._base import auditors

    return _methods(auditors)


def _cleansers() -> list[dict[str, Any]]:
    from goodnet.cleanse._base import cleansers

    return _methods(cleansers)


def _learners() -> list[dict[str, Any]]:
    from goodnet.learn._base import learners

    return _methods(learners)


def _repairers() -> list[dict[str, Any]]:
    from goodnet.repair._base import repairers

    return _methods(repairers)


def _guards() -> list[dict[str, Any]]:
    from goodnet.guard._base import guards

    return _methods(guards)


def _attacks() -> list[dict[str, Any]]:
    from goodnet.attacks._base import attacks

    return _methods(attacks)


def _methods(registry: Iterable[type[Any]]) -> list[dict[str, Any]]:
    """The cards of a role, with the parameters that --set takes."""
    return [
        {
            "name": method.card.name,
            "summary": method.card.summary,
            "version": method.card.version,
            "needs": [need.name.lower().replace("_", " ") for need in method.card.needs],
            "assumes": list(method.card.assumes),
            "source": method.card.source,
            "parameters": [_parameter(field) for field in dataclasses.fields(method) if "doc" in field.metadata],
        }
        for method in registry
    ]


def _parameter(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    limits = field.metadata
    return {
        "name": field.name,
        "default": field.default,
        "low": limits.get("low"),
        "high": limits.get("high"),
        "choices": list(limits.get("choices", ())),
        "summary": limits.get("doc", ""),
    }


def _architectures() -> list[dict[str, Any]]:
    from goodnet.models.architectures._base import all_architectures

    return [
        {
            "name": architecture.name,
            "summary": (architecture.__doc__ or "").strip().split("\n")[0],
            "input_shape": list(architecture.default_input_shape),
            "options": list(architecture.options()),
        }
        for architecture in all_architectures()
    ]


def _data() -> list[dict[str, Any]]:
    from goodnet.data._layout import layouts

    return [{"name": layout.name, "summary": layout.description, "where": layout.where} for layout in layouts()]


def _suites() -> list[dict[str, Any]]:
    from goodnet.bench import open_suite, shipped_suites

    suites = [open_suite(name) for name in shipped_suites()]
    return [
        {
            "name": suite.name,
            "summary": suite.summary,
            "sizes": sorted({"full", *suite.sizes}),
            "rows": len(suite.rows()),
        }
        for suite in suites
    ]


def _shown(role: str, rows: list[dict[str, Any]]) -> str:
    """One paragraph per role: a line for each name, and below it what can be set."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = [role]
    for row in rows:
        lines.append(f"  {row['name']:<{width}}  {row['summary']}")
        if "needs" in row:
            lines.append(f"  {'':<{width}}  {row['source']}; needs {', '.join(row['needs']) or 'nothing'}")
        if "sizes" in row:
            lines.append(f"  {'':<{width}}  {row['rows']} rows; sizes {', '.join(row['sizes'])}")
        for parameter in row.get("parameters", ()):
            lines.append(f"  {'':<{width}}    {_setting(parameter)}")
    return "\n".join(lines)


def _setting(parameter: dict[str, Any]) -> str:
    """A parameter with its default as one would type it, what it is, and what it may be."""
    default = " (not set)" if parameter["default"] is None else f"={written(parameter['default'])}"
    allowed = ", ".join(map(str, parameter["choices"])) or _range(parameter["low"], parameter["high"])
    return f"{parameter['name']}{default}  {parameter['summary']}{f' ({allowed})' if allowed else ''}"


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""
    return f"{low:g} to {high:g}"
