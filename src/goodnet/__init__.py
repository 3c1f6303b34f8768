"""goodnet: is there a backdoor in this image classifier, and can it be made safe?

The public names load lazily, so that ``import goodnet`` and ``goodnet --help`` do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goodnet.attacks import load_attack, save_attack
    from goodnet.core.classifier import Classifier
    from goodnet.core.defender import Defender
    from goodnet.core.samples import Samples
    from goodnet.data.load import load_data
    from goodnet.evaluation.evaluate import evaluate, measure
    from goodnet.guard.calibration import fit_goodnet
    from goodnet.guard.files import load_goodnet, load_guard, load_judging, save_goodnet, save_guard
    from goodnet.guard.goodnet import GoodNet
    from goodnet.models.load import load_model
    from goodnet.models.save import save_model
    from goodnet.models.untrained import untrained
    from goodnet.training.fit import fit
    from goodnet.training.recipe import Recipe

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "goodnet.core.classifier",
    "Defender": "goodnet.core.defender",
    "GoodNet": "goodnet.guard.goodnet",
    "Recipe": "goodnet.training.recipe",
    "Samples": "goodnet.core.samples",
    "evaluate": "goodnet.evaluation.evaluate",
    "fit": "goodnet.training.fit",
    "fit_goodnet": "goodnet.guard.calibration",
    "load_attack": "goodnet.attacks",
    "load_data": "goodnet.data.load",
    "load_goodnet": "goodnet.guard.files",
    "load_guard": "goodnet.guard.files",
    "load_judging": "goodnet.guard.files",
    "load_model": "goodnet.models.load",
    "measure": "goodnet.evaluation.evaluate",
    "save_attack": "goodnet.attacks",
    "save_goodnet": "goodnet.guard.files",
    "save_guard": "goodnet.guard.files",
    "save_model": "goodnet.models.save",
    "untrained": "goodnet.models.untrained",
}

__all__ = [
    "Classifier",
    "Defender",
    "GoodNet",
    "Recipe",
    "Samples",
    "__version__",
    "evaluate",
    "fit",
    "fit_goodnet",
    "load_attack",
    "load_data",
    "load_goodnet",
    "load_guard",
    "load_judging",
    "load_model",
    "measure",
    "save_attack",
    "save_goodnet",
    "save_guard",
    "save_model",
    "untrained",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'goodnet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
