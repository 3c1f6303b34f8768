"""The one training loop."""

from goodnet.training.fit import Augmentation, accuracy, fit

__all__ = ["Augmentation", "accuracy", "fit"]
