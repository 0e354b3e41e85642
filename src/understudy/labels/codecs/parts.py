"""What most codecs do with their arguments: take a part of the form it was written in."""

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from understudy.errors import StoreError, did_you_mean
from understudy.labels.codecs.form import Parts, Stream


def array(parts: Parts, name: str) -> NDArray[Any]:
    """A part with equally many numbers per position.

    Raises:
        StoreError: it is not there, or of another form.
    """
    found = parts.get(name)
    if found is None or isinstance(found, Stream):
        raise StoreError(_unlike(parts, name, "an array"))
    return found


def stream(parts: Parts, name: str) -> Stream:
    """A part with bytes of different number per position.

    Raises:
        StoreError: it is not there, or of another form.
    """
    found = parts.get(name)
    if not isinstance(found, Stream):
        raise StoreError(_unlike(parts, name, "a stream"))
    return found


def check_precision(precision: str, known: Iterable[str]) -> None:
    """Refuse a precision that a codec does not have.

    Raises:
        ValueError: what there is.
    """
    names = list(known)
    if precision not in names:
        raise ValueError(
            f"`precision` must be one of {', '.join(names)}, but got {precision!r}: "
            f"{did_you_mean(precision, names)}"
        )


def _unlike(parts: Parts, name: str, form: str) -> str:
    return (
        f"`{name}` must be {form}, but the shard has {', '.join(sorted(parts)) or 'no parts'}: "
        "it was written by another codec; label again"
    )
