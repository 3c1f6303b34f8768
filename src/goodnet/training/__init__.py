"""The one training loop."""

from goodnet.training.augmentation import Augmentation
from goodnet.training.fit import Loss, accuracy, cross_entropy, fit
from goodnet.training.recipe import Recipe
from goodnet.training.transfer import transfer

__all__ = ["Augmentation", "Loss", "Recipe", "accuracy", "cross_entropy", "fit", "transfer"]
