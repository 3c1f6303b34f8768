"""What attacks keep in ``learned``: arrays by name, and whole networks as arrays."""

from collections.abc import Mapping

from torch import Tensor, nn

from goodnet.attacks._base import Attack
from goodnet.errors import NotHeld, ParameterError


def learned(attack: Attack, name: str) -> Tensor:
    """The array that ``attack`` has learned under this name.

    Raises:
        NotHeld: it has not.
    """
    if name not in attack.learned:
        raise NotHeld(f"{attack.card.name} learns its trigger from data: stamp with poison(samples).attack")
    return attack.learned[name]


def arrays_of(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The arrays of a network for ``learned``, with ``prefix`` and a dot before their names."""
    return {f"{prefix}.{name}": value.detach().cpu().clone() for name, value in net.state_dict().items()}


def restore(net: nn.Module, arrays: Mapping[str, Tensor], prefix: str) -> None:
    """Put the arrays of ``arrays_of`` into a network of the same make.

    Raises:
        ParameterError: they do not fit it.
    """
    mine = {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}
    try:
        net.load_state_dict(mine)
    except RuntimeError as error:
        raise ParameterError(f"what was learned does not fit these images or parameters: {error}") from None
