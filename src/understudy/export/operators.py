"""The exporter's table of operators, read once per process instead of at every export.

Making it parses the source of 500 functions, which takes longer than exporting a small network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TABLES: dict[Any, Any] = {}


@contextmanager
def operators_once() -> Iterator[None]:
    """Inside, an exporter whose table was read before does not read it again.

    The table is only looked up. It is an inner part of torch: where another version has none of
    that name, exports take as long as they do.
    """
    try:
        from torch.onnx._internal.exporter import _registration
    except ImportError:
        yield
        return
    registry: Any = getattr(_registration, "ONNXRegistry", None)
    usual = vars(registry).get("from_torchlib") if registry is not None else None
    if not isinstance(usual, classmethod):
        yield
        return

    def once(cls: Any, *given: Any, **named: Any) -> Any:
        mark = (given, tuple(sorted(named.items())))
        if mark not in _TABLES:
            _TABLES[mark] = usual.__func__(cls, *given, **named)
        return _TABLES[mark]

    registry.from_torchlib = classmethod(once)
    try:
        yield
    finally:
        registry.from_torchlib = usual
