"""The workers themselves: processes on this machine, or actors of Ray."""

import json
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch

from understudy import errors
from understudy.blockwise.workers import Crew, Pair, distil_pair
from understudy.errors import MissingExtraError, RunError, UnderstudyError
from understudy.labels.ray_session import session

_OBJECT_STORE = 200_000_000


class Processes:
    """Processes that are started afresh, so that they have no threads or locks of this one.

    A context manager; at the end, however it comes, no worker is left.
    """

    def __init__(self, workers: int, threads: int) -> None:
        """Set the size of the crew."""
        self._threads = threads
        self._begin = multiprocessing.get_context("spawn")
        self._crew: dict[int, tuple[Any, Connection]] = {}
        self._workers = workers

    def __enter__(self) -> "Processes":
        for number in range(self._workers):
            self._start(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, line in self._crew.values():
            line.close()
            process.kill() if kind is not None else process.join(10)
            if process.is_alive():
                process.kill()
            process.join()

    def _start(self, number: int) -> None:
        here, there = self._begin.Pipe()
        process = self._begin.Process(target=_serve, args=(there, self._threads), daemon=True)
        # OpenMP reads this once, when a process begins.
        with _variable("OMP_NUM_THREADS", str(self._threads)):
            process.start()
        # Else its death would not close the line.
        there.close()
        self._crew[number] = process, here

    def give(self, worker: int, pair: Pair) -> None:
        """A pair for an idle worker.

        Raises:
            RunError: it cannot be sent to another process.
        """
        data = _packed(pair)
        try:
            self._crew[worker][1].send_bytes(data)
        except OSError:
            # It died while it was idle; `hear` finds the line closed.
            return

    def hear(self) -> tuple[int, str | None]:
        """Which worker has ended its pair, and what it says; None: it died, and is there anew.

        Raises:
            UnderstudyError: what it raised.
            RuntimeError: a defect, with its traceback.
        """
        lines = {line: number for number, (_, line) in self._crew.items()}
        for line in wait(list(lines)):
            assert isinstance(line, Connection)
            number = lines[line]
            try:
                return number, _understood(line.recv_bytes().decode())
            except (EOFError, OSError):
                process, _ = self._crew[number]
                line.close()
                process.join()
                self._start(number)
                return number, None
        raise RunError("no worker can be heard")


def _serve(line: Connection, threads: int) -> None:
    # Ctrl-C is for the process that waits for this one, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    while True:
        try:
            data = line.recv_bytes()
        except (EOFError, OSError):
            return
        line.send_bytes(answer(data).encode())


def answer(data: bytes) -> str:
    """Work at a packed pair, and say how it went, as JSON."""
    try:
        pair: Pair = pickle.loads(data)
        return json.dumps({"done": distil_pair(pair)})
    except UnderstudyError as error:
        # Of a user's own subclass the nearest that the other side knows.
        known = [kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__]
        return json.dumps({"error": known[0].__name__, "text": str(error)})
    except Exception:  # a defect: it is shown where somebody can see it
        return json.dumps({"defect": traceback.format_exc()})


def _understood(text: str) -> str:
    """The summary in what a worker says, or the error that it met."""
    said = json.loads(text)
    if "error" in said:
        kind: type[UnderstudyError] = getattr(errors, said["error"])
        # Some take other arguments than their text.
        error = kind.__new__(kind, said["text"])
        error.args = (said["text"],)
        raise error
    if "defect" in said:
        raise RuntimeError(f"a worker met a defect:\n{said['defect']}")
    return json.dumps(said["done"])


def _packed(pair: Pair) -> bytes:
    try:
        return pickle.dumps(pair)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise RunError(
            f"`{pair.name}` cannot be sent to another process ({error}): give its `open` as a "
            "function of a module, not as a lambda or a local one, or use the engine `serial`"
        ) from error


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Actor:
    """One process of a Ray."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def work(self, data: bytes) -> str:
        """See `answer`."""
        return answer(data)


class _Actors:
    """Actors of Ray, which may be on other machines."""

    def __init__(self, workers: int, threads: int) -> None:
        import ray

        self._kind = ray.remote(num_cpus=threads, max_restarts=0)(_Actor)
        self._threads = threads
        self._crew: dict[int, Any] = {n: self._kind.remote(threads) for n in range(workers)}
        self._told: dict[Any, int] = {}

    def give(self, worker: int, pair: Pair) -> None:
        """A pair for an idle worker."""
        import ray.cloudpickle

        # It takes along what the other side cannot import, as functions of a notebook.
        told = self._crew[worker].work.remote(ray.cloudpickle.dumps(pair))
        self._told[told] = worker

    def hear(self) -> tuple[int, str | None]:
        """As of `Processes`."""
        import ray
        from ray.exceptions import RayActorError

        (told,), _ = ray.wait(list(self._told), num_returns=1)
        worker = self._told.pop(told)
        try:
            return worker, _understood(ray.get(told))
        except RayActorError:
            self._crew[worker] = self._kind.remote(self._threads)
            return worker, None

    def end(self) -> None:
        """Let all go."""
        import ray

        for actor in self._crew.values():
            ray.kill(actor)


@contextmanager
def ray_crew(workers: int, threads: int) -> Iterator[Crew]:
    """Actors of the Ray that runs, or of one that is started for them.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: it cannot be started or reached, or has no machine with so many threads.
    """
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")
    import ray

    with session(cpus=workers * threads, object_store=_OBJECT_STORE):
        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if most < threads:
            raise RunError(
                f"a worker needs {threads} threads, but no machine of this Ray has more than "
                f"{most:g} CPUs: use fewer threads"
            )
        crew = _Actors(workers, threads)
        try:
            yield crew
        finally:
            crew.end()
