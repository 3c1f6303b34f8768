"""goodnet list: what there is to choose from, with the cards of the methods."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from goodnet.cli import _options, _outcome
from goodnet.core.registry import unknown_name
from goodnet.errors import UnknownName

Role = Annotated[
    str | None, typer.Argument(metavar="[ROLE]", help="auditors, attacks, architectures or data; else all.")
]


@_outcome.ends_in_words
def listing(role: Role = None, as_json: _options.Json = False) -> int:
    """Show auditors, attacks, architectures and data layouts.

    \b
    Examples:
      goodnet list
      goodnet list auditors --json
    """
    makers = {"auditors": _auditors, "attacks": _attacks, "architectures": _architectures, "data": _data}
    if role is not None and role not in makers:
        raise UnknownName(unknown_name("role", role, tuple(makers)))
    lists = {name: make() for name, make in makers.items() if role in (None, name)}
    typer.echo(
        json.dumps({"schema": 1, **lists}, indent=1) if as_json else "\n\n".join(map(_shown, lists, lists.values()))
    )
    return _outcome.NOTHING_FOUND


def _auditors() -> list[dict[str, Any]]:
    from goodnet.audit._base import auditors

    return _methods(auditors)


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
            "parameters": [_parameter(field) for field in dataclasses.fields(method)],
        }
        for method in registry
    ]


def _parameter(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    limits = field.metadata
    return {
        "name": field.name,
        "default": None if field.default is dataclasses.MISSING else field.default,
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


def _shown(role: str, rows: list[dict[str, Any]]) -> str:
    """One paragraph per role: a line for each name, and below it what can be set."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = [role]
    for row in rows:
        lines.append(f"  {row['name']:<{width}}  {row['summary']}")
        if "needs" in row:
            lines.append(f"  {'':<{width}}  {row['source']}; needs {', '.join(row['needs']) or 'nothing'}")
        for parameter in row.get("parameters", ()):
            lines.append(f"  {'':<{width}}    {parameter['name']}={parameter['default']}: {parameter['summary']}")
    return "\n".join(lines)
