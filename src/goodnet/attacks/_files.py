"""Attacks on disk: parameters as JSON, what was learned as safetensors; nothing in them is ever executed."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from goodnet.attacks._base import Attack, Poisoned, attacks
from goodnet.core.params import make, parameters_of
from goodnet.core.samples import Samples
from goodnet.errors import NotHeld, ParameterError, UnreadableFile, UsageError

POISONED, TRUTH = "poisoned.npz", "truth.npz"
_DESCRIPTION, _ARRAYS = "attack.json", "attack.safetensors"


def save_attack(attack: Attack, folder: str | os.PathLike[str]) -> None:
    """Write ``attack.json`` and, where a trigger was learned, ``attack.safetensors`` into ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if attack.learned:
        save_file({name: value.detach().cpu().contiguous() for name, value in attack.learned.items()}, folder / _ARRAYS)
    (folder / _DESCRIPTION).write_text(json.dumps(described(attack), indent=1) + "\n")


def described(attack: Attack) -> dict[str, Any]:
    """What ``attack.json`` holds."""
    return {
        "schema": 1,
        "name": attack.card.name,
        "version": attack.card.version,
        "parameters": parameters_of(attack),
        "learned": bool(attack.learned),
    }


def attack_called(called: str, parameters: Mapping[str, Any]) -> Attack:
    """The method of this name with these parameters, or the attack that lies in this folder.

    Args:
        called: a name of ``attacks``, or a path that ``load_attack`` reads; "./badnets" for a folder of that name.
        parameters: for a method only; an attack on disk has its own.

    Raises:
        UsageError: parameters for an attack on disk, or wrong ones.
        UnknownName: neither a method nor a path.
        UnreadableFile: as ``load_attack``.
    """
    if not on_disk(called):
        return make(attacks[called], parameters, called)
    if parameters:
        raise UsageError(f"{called} is an attack with all of its parameters; change none, or name the method instead")
    return load_attack(called)


def on_disk(called: str) -> bool:
    """Whether ``attack_called`` takes this for a path."""
    return called not in attacks.names() and (os.sep in called or Path(called).exists())


def save_poisoned(poisoned: Poisoned, clean: Samples, folder: str | os.PathLike[str]) -> None:
    """Write what a victim gets into ``folder``, and the truth about it beside that.

    ``poisoned.npz`` has ``images`` uint8 (N, C, H, W) and ``labels``; ``goodnet.load_data`` reads it. ``truth.npz`` has
    ``mask`` and ``covers`` bool (N,), ``original_labels`` and ``ids`` int64 (N,): for evaluation only, no defense may
    see it. The attack is there as ``save_attack`` writes it.

    Args:
        poisoned: what ``Attack.poison`` gave.
        clean: what it was given.
        folder: made if need be.

    Raises:
        NotHeld: there are no labels.
    """
    if clean.labels is None or poisoned.samples.labels is None:
        raise NotHeld("a poisoned set is written with its labels, and these samples have none")
    assert clean.ids is not None
    folder = Path(folder)
    save_attack(poisoned.attack, folder)
    # not compressed: images hardly shrink, and what is mostly one color would look like a bomb to a careful reader
    np.savez(folder / POISONED, images=poisoned.samples.images.numpy(), labels=poisoned.samples.labels.numpy())
    np.savez(
        folder / TRUTH,
        mask=poisoned.mask.numpy(),
        covers=poisoned.covers.numpy(),
        original_labels=clean.labels.numpy(),
        ids=clean.ids.numpy(),
    )


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
