"""The next batches are prepared while a model works on this one."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Goes through an iterable in a thread of its own, at most `depth` items ahead of its reader.

    A thread and no process: what it is for, decoding images, indexing and views, lets other
    threads run, and the rows need not be copied from one process to another. Items come in their
    order, and an error of the source comes where the item would have come. However the reader
    stops, by the end, `break`, an error or an interrupt, the thread ends with it; an item that is
    being made is finished first. A generator is closed in the thread that ran it.

    Args:
        iterable: the source; every iteration goes through it anew, as far as it can be.
        depth: how many items may wait, the one that is being made among them; each takes its
            memory.

    Raises:
        ValueError: `depth` is below 1.

    Example:
        >>> [number * number for number in Ahead(range(4))]
        [0, 1, 4, 9]
    """

    def __init__(self, iterable: Iterable[T], depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"`depth >= 1` must hold, but got {depth=}: use 2")
        self._iterable, self._depth = iterable, depth

    def __iter__(self) -> Iterator[T]:
        line: _Line[T] = _Line(depth=self._depth)
        # A daemon, so that a source that never comes back cannot keep a process alive.
        thread = threading.Thread(
            target=line.fill, args=(self._iterable,), name="understudy-ahead", daemon=True
        )
        try:
            thread.start()
            while True:
                place = line.ready.get()
                line.free.release()
                if isinstance(place, _End):
                    if place.error is not None:
                        raise place.error
                    return
                yield place.item
                # While the reader waits for the next one, this one must not be kept alive.
                del place
        finally:
            line.stop.set()
            line.free.release()
            if thread.ident is not None:
                thread.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Item(Generic[T]):
    item: T


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    error: BaseException | None = None


class _Line(Generic[T]):
    """What stands between the thread and its reader: items that are ready, and free places."""

    def __init__(self, *, depth: int) -> None:
        self.ready: SimpleQueue[_Item[T] | _End] = SimpleQueue()
        self.free = threading.Semaphore(depth)
        self.stop = threading.Event()

    def fill(self, iterable: Iterable[T]) -> None:
        """Put items into free places until there are no more, or the reader has stopped."""
        try:
            source = iter(iterable)
            try:
                self._copy(source)
            finally:
                close = getattr(source, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # it is raised again where the reader waits
            self.ready.put(_End(error=error))
        else:
            self.ready.put(_End())

    def _copy(self, source: Iterator[T]) -> None:
        while True:
            self.free.acquire()
            if self.stop.is_set():
                return
            try:
                item = next(source)
            except StopIteration:
                return
            self.ready.put(_Item(item=item))
            del item
