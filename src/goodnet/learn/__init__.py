"""Learners: a model from a training set that may be poisoned. One file per method."""
