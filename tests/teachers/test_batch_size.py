"""How many rows are asked at once; paces and memory are made here, by sleeping and allocating."""

import time

import pytest
import torch

from understudy.contracts import Batch, Knowledge
from understudy.errors import DataError, ModelError
from understudy.teachers import batch_size
from understudy.teachers.batch_size import find_batch_size

MEGABYTE = 2**20
PLENTY = 2**50


class Made:
    """A teacher whose time and memory are functions of the number of rows."""

    def __init__(self, *, seconds=lambda rows: 0.0, megabytes=lambda rows: 0, error=None, at=None):
        self.seconds, self.megabytes = seconds, megabytes
        self.error, self.at = error, at
        self.offers = frozenset({"logits"})
        self.asked = []

    def __call__(self, batch):
        rows = len(batch)
        self.asked.append(rows)
        if self.at is not None and rows >= self.at:
            raise self.error
        held = bytearray(self.megabytes(rows) * MEGABYTE)
        held[::4096] = b"x" * len(held[::4096])  # a page that nobody writes to takes no memory
        time.sleep(self.seconds(rows))
        return Knowledge(fields={"logits": batch.inputs})


def make_batch(rows):
    return Batch(inputs=torch.zeros(rows, 2))


def find(teacher, **options):
    return find_batch_size(teacher, make_batch, **({"ceiling_bytes": PLENTY} | options))


@pytest.fixture
def known_pace(monkeypatch):
    """Lets a test give the seconds of a call instead of measuring them."""

    def say(seconds):
        def known(call, *, device):
            call()
            return seconds(len(call.args[0]))

        monkeypatch.setattr(batch_size, "seconds_of", known)

    return say


def test_it_doubles_while_there_is_something_to_gain(known_pace):
    known_pace(lambda rows: 1.0 + max(rows - 64, 0) / 64)  # flat up to 64 rows, then per row
    assert find(Made(), start=4) == 64


def test_a_gain_of_5_percent_is_none(known_pace):
    known_pace(lambda rows: rows**0.95)
    assert find(Made(), start=8) == 8
    known_pace(lambda rows: rows**0.9)
    assert find(Made(), start=8, largest=64) == 64


def test_real_time_is_measured():
    teacher = Made(seconds=lambda rows: 0.02 if rows <= 8 else 0.02 * (rows / 8) ** 2)
    assert find(teacher, start=2) == 8


@pytest.mark.parametrize(("start", "first"), [(1, 1), (16, 16), (24, 16), (100, 64)])
def test_sizes_are_powers_of_two(known_pace, start, first):
    known_pace(lambda rows: 1.0 if rows == first else 100.0 * rows)
    teacher = Made()
    assert find(teacher, start=start) == first
    assert min(teacher.asked) == first


def test_none_above_the_largest_is_tried(known_pace):
    known_pace(lambda rows: 1.0)
    teacher = Made()
    assert find(teacher, largest=100) == 64
    assert max(teacher.asked) == 64


@pytest.fixture
def known_memory(monkeypatch):
    """Lets a test give the bytes that a call holds instead of measuring them."""
    held = []
    monkeypatch.setattr(batch_size._Meter, "reset", lambda self: held.clear())
    monkeypatch.setattr(batch_size._Meter, "_peak", lambda self: max(held, default=0))
    return held


def test_memory_ends_the_search_before_it_is_passed(known_pace, known_memory):
    """2 MB per row under 128 MB: after 32 rows, twice 64 MB still fit, and twice 128 do not."""
    known_pace(lambda rows: 1.0)
    teacher = Made(seconds=lambda rows: known_memory.append(2 * rows * MEGABYTE) or 0.0)
    assert find(teacher, start=8, ceiling_bytes=128 * MEGABYTE) == 64
    assert max(teacher.asked) == 64
    assert find(teacher, start=8, ceiling_bytes=128 * MEGABYTE - 1) == 32


def test_a_start_far_above_the_ceiling_is_halved_until_it_fits(known_pace, known_memory):
    known_pace(lambda rows: 1.0)
    teacher = Made(seconds=lambda rows: known_memory.append(4 * rows * MEGABYTE) or 0.0)
    assert find(teacher, start=64, ceiling_bytes=100 * MEGABYTE) == 16
    assert list(dict.fromkeys(teacher.asked)) == [64, 32, 16]


def test_the_memory_of_the_process_is_measured_and_a_start_above_the_ceiling_halved(known_pace):
    """8 MB per row under 200: of 32 rows 256 do not fit, of 16 are 72 left.

    The system may take pages back and bring others in while this is measured.
    """
    known_pace(lambda rows: 1.0)
    teacher = Made(megabytes=lambda rows: 8 * rows)
    assert find(teacher, start=32, ceiling_bytes=200 * MEGABYTE) == 16
    assert set(teacher.asked) == {32, 16}


def out_of_memory():
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error


def of_a_session():
    error = DataError("the file refuses these rows")
    error.__cause__ = Exception("Failed to allocate memory for requested buffer of size 123")
    return error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), out_of_memory(), of_a_session()],
    ids=["Python", "CUDA", "CPU", "ONNX Runtime"],
)
def test_running_out_of_memory_ends_the_search(known_pace, error):
    known_pace(lambda rows: 1.0)
    assert find(Made(error=error, at=64)) == 32


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), DataError("not your rows"), KeyError("x")]
)
def test_other_errors_are_not_taken_for_it(known_pace, error):
    known_pace(lambda rows: 1.0)
    with pytest.raises(type(error)) as found:
        find(Made(error=error, at=64))
    assert found.value is error


def test_a_row_that_does_not_fit_is_refused(known_pace):
    known_pace(lambda rows: 1.0)
    with pytest.raises(
        ModelError, match=r"within 10 MB, but it needs [3-5][0-9] MB: allow it more"
    ):
        find(Made(megabytes=lambda rows: 40), start=4, ceiling_bytes=10_000_000)
    with pytest.raises(ModelError, match="needs more than there is"):
        find(Made(error=MemoryError(), at=1), start=4)


def test_memory_of_earlier_days_does_not_count(known_pace):
    """A peak before the search, as training leaves one.

    32 rows are 256 MB, and twice that passes 400; what the system does beside it is far less than
    what is left on either side. With the peak, 64 rows or 8 would be found.
    """
    known_pace(lambda rows: 1.0)
    peak = bytearray(300 * MEGABYTE)
    peak[::4096] = b"x" * len(peak[::4096])
    del peak
    teacher = Made(megabytes=lambda rows: 8 * rows)
    assert find(teacher, start=8, largest=1024, ceiling_bytes=400 * MEGABYTE) == 32


def test_where_peaks_cannot_be_forgotten_only_what_passes_them_counts(
    known_pace, monkeypatch, tmp_path
):
    known_pace(lambda rows: 1.0)
    monkeypatch.setattr(batch_size, "_PROC", tmp_path / "none")
    teacher = Made(megabytes=lambda rows: 1)
    assert find(teacher, largest=64, ceiling_bytes=100 * MEGABYTE) == 64


@pytest.mark.parametrize(
    "options", [{"start": 0}, {"start": 32, "largest": 16}, {"ceiling_bytes": 0}]
)
def test_sizes_must_make_sense(options):
    with pytest.raises(ValueError, match="`1 <= start <= largest` and `ceiling_bytes >= 1`"):
        find(Made(), **options)
