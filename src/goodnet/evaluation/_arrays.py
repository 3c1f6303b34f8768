"""What metrics accept: torch tensors or numpy arrays of one dimension; checked, they are numpy arrays."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goodnet.errors import ParameterError

Values = Tensor | NDArray[Any]


def labels_of(name: str, values: Values) -> NDArray[np.int64]:
    """Classes, one whole number for each sample."""
    return _one_dimension(name, values, kinds="iu", wanted="whole numbers (classes, not logits)").astype(np.int64)


def scores_of(name: str, values: Values) -> NDArray[np.float64]:
    """Real numbers, infinities included; NaN cannot be compared and is refused."""
    array = _one_dimension(name, values, kinds="fiu", wanted="real numbers").astype(np.float64)
    if np.isnan(array).any():
        raise ParameterError(f"{name} hold NaN {int(np.isnan(array).sum())} times; every sample needs a score")
    return array


def mask_of(name: str, values: Values) -> NDArray[np.bool_]:
    """True or False for each sample; 0 and 1 are refused, because they also could be positions."""
    return _one_dimension(name, values, kinds="b", wanted="True or False").astype(np.bool_)


def same_length(**arrays: NDArray[Any]) -> None:
    """Raise ParameterError, with all lengths, unless they are equal."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ParameterError(f"these must be of the same samples, but their lengths differ: {told}")


def scores_and_truth(scores: Values, truth: Values) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Suspicion of samples and whether they carry the backdoor."""
    suspicion, backdoored = scores_of("scores", scores), mask_of("truth", truth)
    same_length(scores=suspicion, truth=backdoored)
    return suspicion, backdoored


def _one_dimension(name: str, values: Values, kinds: str, wanted: str) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        array = (values.double() if values.dtype == torch.bfloat16 else values).numpy()  # numpy has no bfloat16
    else:
        array = np.asarray(values)
    if array.ndim != 1:
        raise ParameterError(f"{name} must have one dimension, one entry per sample; got shape {array.shape}")
    if array.size and array.dtype.kind not in kinds:  # an empty array is often of a type that nobody chose
        raise ParameterError(f"{name} must be {wanted}, got {array.dtype}")
    return array
