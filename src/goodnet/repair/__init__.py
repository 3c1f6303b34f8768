"""Repairers: from a suspect and what the defender holds to a new model. One file per method; see ``_base``."""
