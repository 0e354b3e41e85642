"""What a cut is asked for must be numbers, before anything is compared with them."""

import operator
from numbers import Real
from typing import Any

from understudy.errors import ModelError


def check_whole(name: str, value: Any, *, usual: int) -> None:
    """Refuse what is no whole number.

    Args:
        name: of the argument.
        value: of any type; NumPy's and PyTorch's whole numbers will do.
        usual: what the message proposes.

    Raises:
        ModelError: the argument, its value, and what is usual.
    """
    if not is_whole(value):
        raise ModelError(
            f"`{name}` must be a whole number, but got {value!r}: write it as {name}={usual}"
        )


def check_number(name: str, value: Any, *, usual: float | int) -> None:
    """Refuse what is neither a whole number nor a fraction; NaN passes.

    Raises:
        ModelError: the argument, its value, and what is usual.
    """
    if isinstance(value, bool) or not (isinstance(value, Real) or is_whole(value)):
        raise ModelError(
            f"`{name}` must be a number, but got {value!r}: write it as {name}={usual}"
        )


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of any kind, and no truth value."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
