"""Attacks: what defenses are tested against."""

from goodnet.attacks._base import Attack, Backdoored, Poisoned, attacks
from goodnet.attacks._files import attack_called, load_attack, save_attack, save_poisoned

__all__ = [
    "Attack",
    "Backdoored",
    "Poisoned",
    "attack_called",
    "attacks",
    "load_attack",
    "save_attack",
    "save_poisoned",
]
