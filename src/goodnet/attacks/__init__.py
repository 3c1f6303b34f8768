"""Attacks: what defenses are tested against."""

from goodnet.attacks._base import Attack, Backdoored, Poisoned, attacks
from goodnet.attacks._files import load_attack, save_attack

__all__ = ["Attack", "Backdoored", "Poisoned", "attacks", "load_attack", "save_attack"]
