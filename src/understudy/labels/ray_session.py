"""A Ray to work with: the one that runs, or one that comes and goes without a trace."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from understudy.errors import RunError

# It tells nobody of itself, and what goes wrong comes out as an error.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextmanager
def session(*, cpus: int, object_store: int) -> Iterator[None]:
    """Use the Ray of this process, or that of RAY_ADDRESS, or start one on this machine.

    What is started or joined here is left at the end; variables and signals are as before.

    Args:
        cpus: of a Ray that is started.
        object_store: bytes of its shared memory.

    Raises:
        RunError: it cannot be started or reached.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        with _quiet():
            yield
        return
    with _kept(QUIET):
        with _without(b"RAY_BACKEND_LOG_LEVEL"):
            _start(cpus, object_store)
        try:
            with _quiet():
                yield
        finally:
            ray.shutdown()


def _start(cpus: int, object_store: int) -> None:
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
            return
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=object_store,
            **quiet,
        )
    except (ConnectionError, OSError, RuntimeError, TimeoutError, ValueError) as error:
        raise RunError(
            f"Ray cannot be started ({error}): set RAY_ADDRESS to a cluster that runs, or use "
            "`labels: {engine: serial}`"
        ) from error


@contextmanager
def _kept(settings: Mapping[str, str]) -> Iterator[None]:
    """Set variables where nobody has; take away what Ray adds, and its hand on SIGTERM."""
    before, handler = set(os.environ), signal.getsignal(signal.SIGTERM)
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            if name.startswith(("RAY_", "PYTHONBREAKPOINT")):
                del os.environ[name]
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _without(text: bytes) -> Iterator[None]:
    """Standard error without lines that hold this text, for what is written by C++."""
    error = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(error, 2)
            os.close(error)
            caught.seek(0)
            os.write(2, b"".join(line for line in caught if text not in line))


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data writes to its log files only."""
    handlers = [h for h in logging.getLogger("ray.data").handlers if hasattr(h, "stream")]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
