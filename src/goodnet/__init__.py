"""goodnet: is there a backdoor in this image classifier, and can it be made safe?

The public names load lazily, so that ``import goodnet`` and ``goodnet --help`` do not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goodnet.core.classifier import Classifier
    from goodnet.core.defender import Defender
    from goodnet.core.samples import Samples
    from goodnet.data.load import load_data
    from goodnet.models.load import load_model
    from goodnet.models.save import save_model

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "goodnet.core.classifier",
    "Defender": "goodnet.core.defender",
    "Samples": "goodnet.core.samples",
    "load_data": "goodnet.data.load",
    "load_model": "goodnet.models.load",
    "save_model": "goodnet.models.save",
}

__all__ = ["Classifier", "Defender", "Samples", "__version__", "load_data", "load_model", "save_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'goodnet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
