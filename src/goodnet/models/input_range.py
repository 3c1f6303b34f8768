"""What a network expects of its input: told by a name, or guessed from how it answers images."""

from goodnet.core.classifier import Preprocessing
from goodnet.errors import ParameterError

# from images in [0, 1]: scale, then mean and standard deviation per channel (one number: the same for every channel)
_RANGES: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "0..1": (1.0, (), ()),
    "0..255": (255.0, (), ()),
    "-1..1": (1.0, (0.5,), (0.5,)),
    "cifar10": (1.0, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
INPUT_RANGES = tuple(_RANGES)


def preprocessing_for(input_range: str, channels: int) -> Preprocessing:
    """The preprocessing that a name in ``INPUT_RANGES`` stands for, for images of so many channels.

    Raises:
        ParameterError: no such name, or it is for colors and the images are grey.
    """
    if input_range not in _RANGES:
        raise ParameterError(f"input_range must be one of {', '.join(INPUT_RANGES)}, got {input_range!r}")
    scale, mean, std = _RANGES[input_range]
    if len(mean) > 1 and len(mean) != channels:
        raise ParameterError(f"input_range {input_range!r} is for {len(mean)} channels, the network takes {channels}")
    times = channels if len(mean) == 1 else 1
    return Preprocessing(scale=scale, mean=mean * times, std=std * times)
