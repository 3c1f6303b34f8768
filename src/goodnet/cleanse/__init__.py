"""Cleansers: from a training set to a score for each of its samples. One file per method; see ``_base``."""
