"""What people type about an attack, as the table that plans and TOML files have."""

from collections.abc import Mapping, Sequence
from typing import Any

from goodnet.cli._values import settings
from goodnet.errors import UsageError


def attack_table(
    called: str | None, written: Sequence[str], *, option: str = "--attack-set", table: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """``name`` and parameters of an attack; what was typed stands over the ``table`` of a file.

    Args:
        called: a method or the path of an attack; "none" for none; None for that of the table.
        written: "name=value" words, of a method only.
        option: where they stood, for messages.
        table: parameters in it are kept if it names the same attack.

    Returns:
        None when no attack is named anywhere.

    Raises:
        UsageError: parameters without a method, or wrong ones.
    """
    from goodnet.attacks import attacks
    from goodnet.attacks._files import on_disk

    from_file = dict(table or {})
    name = called if called is not None else from_file.get("name")
    if not written and (called == "none" or (name is None and not from_file)):
        return None
    kept = from_file if name == from_file.get("name") else {"name": name}
    if not written:
        return kept
    if not isinstance(name, str):
        raise UsageError(f"{option} goes with --attack NAME, or with a name in the table of the file")
    if on_disk(name):
        raise UsageError(f"{option} goes with a method of goodnet list attacks; {name} has all of its parameters")
    return {**kept, **settings(attacks[name], written, option=option)}
