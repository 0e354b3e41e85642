"""What torchao logs while it is imported, though nothing is wrong; transformers and peft import it.

It tries every library of kernels that it has, those for other Pythons and devices too, and
registers its enumerations in a way that torch warns of. A person can do nothing about either.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

# By logger, whose own records alone are looked at.
_NOTES: Final[Mapping[str, re.Pattern[str]]] = MappingProxyType(
    {
        "torchao": re.compile(r"Failed to load \S*[/\\]_C\w*\."),
        "torch.utils._pytree": re.compile(r"%s is an Enum subclass and is now natively"),
    }
)


@contextmanager
def without_load_notes() -> Iterator[None]:
    """Leave these notes out for as long as it lasts; everything else is told."""
    loggers = [logging.getLogger(name) for name in _NOTES]

    def worth_telling(record: logging.LogRecord) -> bool:
        return _NOTES[record.name].match(str(record.msg)) is None

    for logger in loggers:
        logger.addFilter(worth_telling)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(worth_telling)
