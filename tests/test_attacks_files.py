"""Attacks on disk: what comes back is what was saved, and damage is named."""

import json
from dataclasses import replace

import pytest
import torch

from goodnet.attacks import attacks, load_attack, save_attack
from goodnet.attacks.badnets import BadNets
from goodnet.core.params import make, parameters_of
from goodnet.errors import ParameterError, UnknownName, UnreadableFile


@pytest.mark.parametrize("method", list(attacks), ids=lambda method: method.card.name)
def test_an_attack_comes_back_as_it_was(method, tmp_path):
    attack = replace(method(), learned={"pattern": torch.rand(1, 4, 4)})
    save_attack(attack, tmp_path)
    loaded = load_attack(tmp_path / "attack.json")
    assert loaded == attack
    assert loaded.learned.keys() == {"pattern"}
    assert torch.equal(loaded.learned["pattern"], attack.learned["pattern"])


def test_parameters_come_as_toml_has_them():
    made = make(BadNets, {"color": [1, 0.5, 0], "poisoning_rate": 1, "size": 2})
    assert made == BadNets(color=(1.0, 0.5, 0.0), poisoning_rate=1.0, size=2)
    assert type(made.poisoning_rate) is float
    assert make(BadNets, json.loads(json.dumps(parameters_of(made)))) == made


def test_unknown_and_wrong_parameters_are_named():
    with pytest.raises(UnknownName, match="colour.*color"):
        make(BadNets, {"colour": 1}, "badnets")
    with pytest.raises(ParameterError, match="size"):
        make(BadNets, {"size": 0})


def test_damage_is_named(tmp_path):
    with pytest.raises(UnreadableFile, match="no attack"):
        load_attack(tmp_path)
    save_attack(replace(BadNets(), learned={"pattern": torch.rand(3)}), tmp_path)
    (tmp_path / "attack.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnreadableFile, match="damaged"):
        load_attack(tmp_path)
    (tmp_path / "attack.json").write_text("{")
    with pytest.raises(UnreadableFile, match="damaged"):
        load_attack(tmp_path)
