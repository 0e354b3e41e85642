"""Constants of losses: those that mean nothing are refused in one voice, and some have none."""

import math

from torch import nn


class NoConstants(nn.Module):
    """A loss without constants; abstract."""

    # Spelt out, as nn.Module's own signature would seem to take anything.
    def __init__(self) -> None:
        super().__init__()


def check_not_negative(name: str, value: float, *, usual: str) -> None:
    """Refuse a share or weight below 0, NaN or infinity.

    Raises:
        ValueError: the value is negative or not finite; the message says what is `usual`.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"`{name} >= 0` must hold, but got {name}={value}: usual is {usual}")


def check_between(name: str, value: float, *, usual: str) -> None:
    """Refuse what is not strictly between 0 and 1.

    Raises:
        ValueError: the value is 0 or less, 1 or more, or NaN; the message says what is `usual`.
    """
    if not 0 < value < 1:
        raise ValueError(f"`0 < {name} < 1` must hold, but got {name}={value}: usual is {usual}")


def check_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices.

    Raises:
        ValueError: it is none of them; all are listed.
    """
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}, but got {name}={value!r}: "
            f"`{choices[0]}` is the default"
        )
