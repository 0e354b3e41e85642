"""What the constructors of the reference networks refuse, in one wording."""

from collections.abc import Sequence

from torch import Tensor


def check_sizes(**sizes: int) -> None:
    """Refuse a size below 1.

    Raises:
        ValueError: naming the first size that is too small.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name} >= 1` must hold, but got {name}={size}")


def check_layers(name: str, sizes: Sequence[int]) -> None:
    """Refuse a list of layer sizes in which one is below 1.

    Raises:
        ValueError: showing the whole list.
    """
    if any(size < 1 for size in sizes):
        raise ValueError(f"every `{name} >= 1` must hold, but got {name}={list(sizes)}")


def check_dropout(dropout: float) -> None:
    """Refuse a share of dropped activations outside 0 to 1.

    Raises:
        ValueError: showing the share.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"`0 <= dropout < 1` must hold, but got {dropout=}: usual is 0 to 0.5")


def check_rows(inputs: Tensor, expected: tuple[int, ...]) -> None:
    """Refuse rows of another shape than the network was built for.

    Raises:
        ValueError: naming both shapes.
    """
    if tuple(inputs.shape[1:]) != expected:
        raise ValueError(
            f"every row must have the shape {expected}, as the network was built, but got inputs "
            f"of shape {tuple(inputs.shape)}"
        )
