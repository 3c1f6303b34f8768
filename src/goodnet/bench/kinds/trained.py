"""A "model" cell: a net is trained, poisoned or clean, saved, and measured on all test images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from goodnet.attacks import save_attack
from goodnet.bench.datasets import DataSpec, open_data
from goodnet.bench.kinds._common import attack_of
from goodnet.core.params import make
from goodnet.evaluation import measure
from goodnet.models.save import save_model
from goodnet.models.untrained import untrained
from goodnet.training import Recipe, fit


def train(parameters: Mapping[str, Any], folder: Path, data: Path | None) -> dict[str, JsonValue]:
    """The net and its attack are saved in ``folder``.

    Where the row's defender owns the training set, an attack that would run the training has to leave it to the victim.
    """
    train, test = open_data(DataSpec.model_validate(parameters["data"]), data)
    seed, recipe = parameters["seed"], make(Recipe, parameters["recipe"])
    net, attack = untrained(parameters["architecture"], train, seed), attack_of(parameters["attack"], data)
    if attack is None:
        model = fit(net, train, recipe, seed=seed)
    elif parameters.get("trainer") == "victim":
        poisoned = attack.poison(train, seed=seed)
        model, attack = fit(net, poisoned.samples, recipe, seed=seed), poisoned.attack
        save_attack(attack, folder / "attack")
    else:
        made = attack.train(net, train, recipe, seed=seed)
        model, attack = made.model, made.attack
        save_attack(attack, folder / "attack")
    save_model(model, folder / "model")
    return {"train_images": len(train), "test_images": len(test), **measure(model, test, attack).as_json()}
