"""Attacks: what defenses are tested against."""
