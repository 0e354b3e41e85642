"""Batches that are prepared ahead: in order, overlapped, and with no thread left behind."""

import gc
import threading
import time
import weakref

import pytest

from understudy.data.prefetch import Ahead


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not left


class Source:
    """Counts up, and remembers what it made, in which thread, and that it was closed."""

    def __init__(self, length=100, *, seconds=0.0, fails_at=None, error=None):
        self.length, self.seconds = length, seconds
        self.fails_at, self.error = fails_at, error
        self.made, self.threads, self.closed = [], set(), 0

    def __iter__(self):
        try:
            for number in range(self.length):
                if number == self.fails_at:
                    raise self.error
                time.sleep(self.seconds)
                self.threads.add(threading.get_ident())
                self.made.append(number)
                yield number
        finally:
            self.closed += 1


def settled(source, count):
    """Wait until the source has made so many, and then a little for one too many."""
    end = time.monotonic() + 5
    while len(source.made) < count and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.03)
    return list(source.made)


@pytest.mark.parametrize("depth", [1, 2, 50])
@pytest.mark.parametrize("length", [0, 1, 7])
def test_everything_comes_in_order(depth, length):
    source = Source(length)
    assert list(Ahead(source, depth)) == list(range(length))
    assert source.closed == 1
    assert threading.get_ident() not in source.threads


def test_every_iteration_begins_anew():
    ahead = Ahead(Source(3))
    assert list(ahead) == list(ahead) == [0, 1, 2]


def test_two_iterations_do_not_meddle():
    ahead = Ahead([0, 1, 2])
    assert list(zip(ahead, ahead, strict=True)) == [(0, 0), (1, 1), (2, 2)]


def test_preparing_and_working_overlap():
    """Ten items, 20 ms to make and 20 ms to use: 0.4 s in turns, 0.22 s at best."""
    started = time.perf_counter()
    for _ in Ahead(Source(10, seconds=0.02)):
        time.sleep(0.02)
    assert time.perf_counter() - started < 0.36


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_wait(depth):
    source = Source()
    reader = iter(Ahead(source, depth))
    assert next(reader) == 0
    assert settled(source, 1 + depth) == list(range(1 + depth))
    assert next(reader) == 1
    assert settled(source, 2 + depth) == list(range(2 + depth))
    reader.close()


def test_nothing_is_made_before_it_is_asked_for():
    source = Source()
    iter(Ahead(source))
    assert settled(source, 0) == []


@pytest.mark.parametrize("error", [ValueError("row 3"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_of_the_source_comes_in_its_place(error):
    source = Source(fails_at=3, error=error)
    seen = []
    with pytest.raises(type(error)) as found:
        seen.extend(Ahead(source))  # which keeps what came before an error
    assert found.value is error
    assert seen == [0, 1, 2]
    assert source.closed == 1


def test_a_source_that_cannot_even_begin_says_so():
    with pytest.raises(TypeError, match="not iterable"):
        list(Ahead(BadStart()))


class BadStart:
    def __iter__(self):
        raise TypeError("not iterable today")


def test_a_break_stops_the_source():
    source = Source()
    for number in Ahead(source):
        if number == 4:
            break
    assert source.closed == 1
    assert len(source.made) <= 5 + 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_of_the_reader_stops_the_source(error):
    source = Source()

    def read():
        for number in Ahead(source):
            if number == 4:
                raise error

    with pytest.raises(error):
        read()
    assert source.closed == 1


def test_an_interrupt_while_it_waits_stops_the_source():
    """Thrown into the generator where it hands out an item, as a signal would be."""
    source = Source()
    reader = iter(Ahead(source))
    next(reader)
    with pytest.raises(KeyboardInterrupt):
        reader.throw(KeyboardInterrupt())
    assert source.closed == 1


def test_what_was_handed_out_is_kept_alive_by_the_reader_alone():
    class Item:
        pass

    reader = iter(Ahead(Item() for _ in range(3)))
    item = next(reader)
    gone = weakref.ref(item)
    del item
    kept = next(reader)
    gc.collect()
    assert gone() is None
    assert isinstance(kept, Item)
    reader.close()


@pytest.mark.parametrize("depth", [0, -1])
def test_one_must_wait_at_least(depth):
    with pytest.raises(ValueError, match=r"`depth >= 1` must hold, but got depth="):
        Ahead([1], depth)
