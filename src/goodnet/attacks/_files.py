"""Attacks on disk: parameters as JSON, what was learned as safetensors; nothing in them is ever executed."""

import json
import os
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from goodnet.attacks._base import Attack, attacks
from goodnet.core.params import make, parameters_of
from goodnet.errors import ParameterError, UnreadableFile

_DESCRIPTION, _ARRAYS = "attack.json", "attack.safetensors"


def save_attack(attack: Attack, folder: str | os.PathLike[str]) -> None:
    """Write ``attack.json`` and, where a trigger was learned, ``attack.safetensors`` into ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if attack.learned:
        save_file({name: value.detach().cpu().contiguous() for name, value in attack.learned.items()}, folder / _ARRAYS)
    record = {
        "schema": 1,
        "name": attack.card.name,
        "version": attack.card.version,
        "parameters": parameters_of(attack),
        "learned": bool(attack.learned),
    }
    (folder / _DESCRIPTION).write_text(json.dumps(record, indent=1) + "\n")


def load_attack(path: str | os.PathLike[str]) -> Attack:
    """The attack of a folder that ``save_attack`` wrote, or of its ``attack.json``.

    Raises:
        UnreadableFile: it is none, or damaged.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == _DESCRIPTION else folder
    try:
        record = json.loads((folder / _DESCRIPTION).read_text())
        attack = make(attacks[record["name"]], record["parameters"], record["name"])
        if record["learned"]:
            attack = replace(attack, learned=load_file(folder / _ARRAYS))
    except OSError as error:
        raise UnreadableFile(f"{folder} holds no attack that can be read: {error.strerror}: {error.filename}") from None
    except (ValueError, TypeError, KeyError, SafetensorError, ParameterError) as error:
        raise UnreadableFile(f"{folder / _DESCRIPTION} is damaged: {error}") from None
    return attack
