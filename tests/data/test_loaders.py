"""Loaders: which rows come when is a function of (seed, epoch), and nothing is stored for it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader, epoch_order, view_of
from understudy.data.views import Crop, Views

quickly = settings(max_examples=40, deadline=None)
ROWS = 200


def loader(positions=None, **changes):
    """A loader whose row `i` holds `i`, has label `i + 1000` and id `i + 5000`."""
    options = {
        "inputs": torch.arange(ROWS)[:, None],
        "labels": torch.arange(ROWS) + 1000,
        "ids": torch.arange(ROWS) + 5000,
        "positions": np.arange(50) if positions is None else positions,
        "batch_size": 8,
        "seed": 3,
    }
    return MemoryLoader(**(options | changes))


def rows_of(made, epoch=0):
    """The positions of an epoch, batch by batch."""
    made.set_epoch(epoch)
    return [batch.inputs[:, 0].tolist() for batch in made]


def flat(batches):
    return [row for batch in batches for row in batch]


# --- an epoch ------------------------------------------------------------------------------------


@quickly
@given(count=st.integers(1, 60), size=st.integers(1, 20), seed=st.integers(0, 2**40),
       epoch=st.integers(0, 500))  # fmt: skip
def test_every_row_comes_exactly_once_but_a_last_one_alone(count, size, seed, epoch):
    positions = np.random.default_rng(count).permutation(ROWS)[:count]
    made = loader(positions, batch_size=size, seed=seed)
    batches = rows_of(made, epoch)
    assert len(batches) == len(made)
    alone = count % size == 1 and count > size and size > 1
    assert len(flat(batches)) == len(set(flat(batches))) == count - alone
    assert set(flat(batches)) <= set(positions.tolist())
    assert all(len(batch) == size for batch in batches[:-1])


def test_a_batch_of_one_is_kept_where_it_is_all_there_is_or_what_was_asked_for():
    assert rows_of(loader(np.array([7]))) == [[7]]
    assert len(flat(rows_of(loader(np.arange(9), batch_size=1)))) == 9
    assert len(flat(rows_of(loader(np.arange(9), seed=None)))) == 9  # nothing is learned from it


def test_what_comes_belongs_together():
    for batch in loader():
        assert isinstance(batch, Batch)
        assert torch.equal(batch.labels, batch.inputs[:, 0] + 1000)
        assert torch.equal(batch.ids, batch.inputs[:, 0] + 5000)
        assert batch.views is None
        assert batch.inputs.is_contiguous()


def test_labels_may_be_missing():
    assert all(batch.labels is None for batch in loader(labels=None))


def test_a_batch_belongs_to_the_caller():
    inputs = torch.zeros(ROWS, 2)
    for batch in loader(inputs=inputs):
        batch.inputs.fill_(7)
    assert (inputs == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_rows_keep_their_type(dtype):
    assert next(iter(loader(inputs=torch.zeros(ROWS, 2, dtype=dtype)))).inputs.dtype == dtype


# --- the order -----------------------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_and_epoch():
    first, second = loader(), loader()
    rows_of(second, 9)  # whatever came before
    torch.manual_seed(4)
    np.random.default_rng(4)
    assert rows_of(first, 2) == rows_of(second, 2)
    assert rows_of(first, 2) == rows_of(first, 2)
    assert rows_of(first, 2) != rows_of(first, 3)
    assert rows_of(first, 2) != rows_of(loader(seed=4), 2)


def test_going_on_at_an_epoch_needs_no_stored_state():
    whole = [rows_of(loader(), epoch) for epoch in range(5)]
    later = loader()
    assert [rows_of(later, epoch) for epoch in (3, 4)] == whole[3:]


def test_an_epoch_that_was_begun_and_left_is_the_same_again():
    made = loader()
    made.set_epoch(1)
    next(iter(made))
    assert rows_of(made, 1) == rows_of(loader(), 1)


def test_the_batch_size_does_not_change_the_order():
    small, large = loader(batch_size=5), loader(batch_size=25)
    assert flat(rows_of(small, 1)) == flat(rows_of(large, 1))


def test_every_row_is_as_likely_anywhere():
    from scipy import stats

    counts = np.zeros((10, 10))
    for epoch in range(1000):
        counts[np.arange(10), epoch_order(np.arange(10), seed=1, epoch=epoch)] += 1
    assert min(stats.chisquare(row).pvalue for row in counts) > 1e-4


def test_without_a_seed_rows_come_as_they_were_given():
    positions = np.array([5, 3, 9, 0, 7])
    made = loader(positions, seed=None, batch_size=2)
    assert rows_of(made, 0) == rows_of(made, 1) == [[5, 3], [9, 0], [7]]


def test_lightning_finds_whom_to_tell_the_epoch():
    made = loader()
    made.sampler.set_epoch(4)
    assert made.epoch == 4


# --- another length ------------------------------------------------------------------------------


@quickly
@given(count=st.integers(1, 20), length=st.integers(1, 120), seed=st.integers(0, 100))
def test_few_rows_come_round_and_round_until_the_length_is_reached(count, length, seed):
    positions = np.arange(count) + 3
    order = epoch_order(positions, seed=seed, epoch=2, length=length)
    assert len(order) == length
    for start in range(0, length, count):
        part = order[start : start + count].tolist()
        assert len(set(part)) == len(part)
        assert set(part) <= set(positions.tolist())
    times = np.bincount(order, minlength=count + 3)[3:]
    assert times.max() - times.min() <= 1


def test_a_control_takes_as_many_steps_as_its_student():
    student = loader(np.arange(100))
    control = loader(np.arange(13), length=100)
    assert len(control) == len(student)
    assert [len(b) for b in rows_of(control)] == [len(b) for b in rows_of(student)]
    assert set(flat(rows_of(control))) == set(range(13))


def test_with_all_rows_labelled_control_and_student_see_the_same_batches():
    assert rows_of(loader(np.arange(100)), 3) == rows_of(loader(np.arange(100), length=100), 3)


def test_rounds_of_an_epoch_are_shuffled_anew():
    order = epoch_order(np.arange(30), seed=1, epoch=0, length=60)
    assert order[:30].tolist() != order[30:].tolist()
    assert order[:30].tolist() == epoch_order(np.arange(30), seed=1, epoch=0).tolist()


def test_fewer_rows_than_there_are_can_be_asked_for():
    assert len(set(epoch_order(np.arange(30), seed=1, epoch=0, length=12).tolist())) == 12


@pytest.mark.parametrize("length", [None, 0, 50])
def test_of_no_rows_there_is_no_batch(length):
    made = loader(np.arange(0), length=length)
    assert len(made) == 0
    assert list(made) == []


# --- several processes ---------------------------------------------------------------------------


@quickly
@given(count=st.integers(2, 60), ranks=st.integers(2, 5), size=st.integers(2, 9),
       epoch=st.integers(0, 50))  # fmt: skip
def test_processes_share_an_epoch_without_overlap_and_take_as_many_steps(count, ranks, size, epoch):
    parts = [loader(np.arange(count), rank=r, ranks=ranks, batch_size=size) for r in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    seen = [flat(rows_of(part, epoch)) for part in parts]
    assert len({len(rows) for rows in seen}) == 1
    every = flat(seen)
    assert len(set(every)) == len(every)
    share = count // ranks
    lost = 1 if share % size == 1 and share > size else 0
    assert len(every) == (share - lost) * ranks


def test_processes_together_see_what_one_would_see():
    one = flat(rows_of(loader(np.arange(48)), 2))
    two = [flat(rows_of(loader(np.arange(48), rank=r, ranks=2), 2)) for r in (0, 1)]
    assert one == [row for pair in zip(*two, strict=True) for row in pair]


# --- views ---------------------------------------------------------------------------------------


def test_the_view_is_the_epoch_and_never_0():
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), dtype=torch.uint8)
    views = Views([Crop(padding=2)], seed=7)
    made = loader(inputs=inputs, views=views)
    for epoch in (0, 4):
        made.set_epoch(epoch)
        batch = next(iter(made))
        assert batch.views.tolist() == [epoch + 1] * 8
        positions = batch.ids - 5000
        assert torch.equal(batch.inputs, views(inputs[positions], batch.ids, batch.views))


def test_student_and_control_see_a_row_in_the_same_view():
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), dtype=torch.uint8)

    def seen(**changes):
        views = Views([Crop(padding=2)], seed=7)
        made = loader(inputs=inputs, views=views, **changes)
        return {int(i): x for batch in made for i, x in zip(batch.ids, batch.inputs, strict=True)}

    student, control = seen(), seen(positions=np.arange(10), batch_size=5)
    assert all(torch.equal(student[i], control[i]) for i in control)


def test_no_row_ever_comes_twice_in_one_view():
    inputs = torch.zeros(ROWS, 6, 6, 1, dtype=torch.uint8)
    made = loader(np.arange(7), length=50, inputs=inputs, views=Views([Crop(padding=2)]))
    seen = []
    for epoch in range(4):
        made.set_epoch(epoch)
        seen += [pair for b in made for pair in zip(b.ids.tolist(), b.views.tolist(), strict=True)]
    assert len(set(seen)) == len(seen) == 200
    assert min(view for _, view in seen) == 1


def test_views_come_round_after_a_cycle():
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), dtype=torch.uint8)
    options = {"inputs": inputs, "views": Views([Crop(padding=2)], seed=7)}
    cycled, endless = loader(cycle=3, **options), loader(**options)
    for epoch in range(7):
        cycled.set_epoch(epoch)
        batch = next(iter(cycled))
        assert batch.views.tolist() == [1 + epoch % 3] * 8
        positions = batch.ids.numpy() - 5000
        expected = endless.batch(positions, np.full(8, 1 + epoch % 3))
        assert torch.equal(batch.inputs, expected.inputs)


@quickly
@given(count=st.integers(1, 9), length=st.integers(1, 40), cycle=st.integers(1, 7))
def test_the_pth_presentation_of_a_row_is_its_view_in_the_cycle(count, length, cycle):
    inputs = torch.zeros(ROWS, 6, 6, 1, dtype=torch.uint8)
    options = {"length": length, "inputs": inputs, "views": Views([Crop(padding=2)])}
    parts = [loader(np.arange(count), **options, cycle=c) for c in (cycle, None)]
    for epoch in range(3):
        for part in parts:
            part.set_epoch(epoch)
        for batch, other in zip(*parts, strict=True):
            assert torch.equal(batch.ids, other.ids)
            assert torch.equal(batch.views, 1 + (other.views - 1) % cycle)


def test_a_cycle_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`cycle` must be at least 1 view, but got 0: use None"):
        loader(cycle=0)
    assert view_of(np.array([1, 2, 3]), cycle=2).tolist() == [1, 2, 1]


def test_a_teacher_is_shown_any_rows_in_any_views():
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), dtype=torch.uint8)
    views = Views([Crop(padding=2)], seed=7)
    made = loader(inputs=inputs, views=views)
    positions, numbers = np.array([4, 4, 30, 180]), np.array([1, 2, 0, 5])
    batch = made.batch(positions, numbers)
    assert batch.views.tolist() == [1, 2, 0, 5]
    assert torch.equal(batch.inputs[2], inputs[30])
    assert torch.equal(batch.inputs, views(inputs[positions], batch.ids, batch.views))


# --- batch statistics ----------------------------------------------------------------------------


def test_batch_statistics_exist_for_every_training_batch():
    network = nn.BatchNorm1d(1)
    for batch in loader(np.arange(17), inputs=torch.randn(ROWS, 1)):
        network(batch.inputs)
