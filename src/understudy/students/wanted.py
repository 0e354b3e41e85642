"""What a cut is asked for must be numbers, before anything is compared with them."""

import operator
from numbers import Real
from typing import Any

from understudy.errors import ModelError


def check_whole(name: str, value: Any) -> None:
    """Refuse what is no whole number.

    Args:
        name: of the argument.
        value: of any type; NumPy's and PyTorch's whole numbers will do.

    Raises:
        ModelError: the argument and its value.
    """
    if not _whole(value):
        raise ModelError(f"`{name}` must be a whole number, but got {value!r}")


def check_number(name: str, value: Any) -> None:
    """Refuse what is neither a whole number nor a fraction; NaN passes.

    Raises:
        ModelError: the argument and its value.
    """
    if isinstance(value, bool) or not (isinstance(value, Real) or _whole(value)):
        raise ModelError(f"`{name}` must be a number, but got {value!r}")


def _whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
