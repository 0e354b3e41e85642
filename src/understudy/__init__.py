"""Understudy turns a large model into a small one that can replace it, and proves that it can."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.pipeline import distill as distill
    from understudy.pipeline import run as run

__version__ = "0.1.0"

# PEP 562: `import understudy` loads no torch; a name is fetched when it is first asked for.
_LAZY = {"run": "understudy.pipeline", "distill": "understudy.pipeline"}
_ROOMS = ("losses", "models", "evaluate", "deployed")

__all__ = ["__version__", "distill", "run"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _ROOMS:
        return import_module(f"understudy.{name}")
    raise AttributeError(f"module 'understudy' has no attribute '{name}'")
