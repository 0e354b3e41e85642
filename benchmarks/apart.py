"""Baselines in a process of their own, as people run them.

Our engine sets something for the whole process that it runs in: how the allocator keeps memory. A
baseline in the same process would have it too, and would be another than the one it is named for.
It is made once, waits while others take their turn, and works when it is asked to.
"""

import traceback
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self


class Apart:
    """Functions by name, in another process that does nothing until one is called.

    Args:
        make: gives the functions; of a module's top level, since the other process imports it.
        args: what `make` takes.
    """

    def __init__(self, make: Callable[..., Mapping[str, Callable[[], Any]]], *args: Any) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Loaders in there have workers, which a daemon may not have.
        self._process = context.Process(target=_serve, args=(theirs, make, args), daemon=False)
        self._process.start()
        theirs.close()
        self._answer()

    def function(self, name: str) -> Callable[[], Any]:
        """One of the functions: called there, what it gives comes back."""
        return lambda: self(name)

    def __call__(self, name: str) -> Any:
        """What the function of this name gives.

        Raises:
            RuntimeError: it failed there.
        """
        self._pipe.send(name)
        return self._answer()

    def _answer(self) -> Any:
        good, told = self._pipe.recv()
        if not good:
            raise RuntimeError(told)
        return told

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()


def _serve(pipe: Connection, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    functions: Mapping[str, Callable[[], Any]] = {}
    try:
        functions = make(*args)
        pipe.send((True, None))
        while True:
            name = pipe.recv()
            pipe.send((True, functions[name]()))
    except EOFError:
        return
    except BaseException:
        pipe.send((False, traceback.format_exc()))
