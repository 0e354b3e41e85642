"""Batches of texts: as long as their longest row, of like lengths, in an order of their own."""

import numpy as np
import pytest
import torch

from understudy.data.lengths import by_length, shortest_first, trimmed
from understudy.data.loaders import MemoryLoader
from understudy.data.views import CATALOGUE, Views
from understudy.deployed.lengths import lengths, padded, rounded

PAD = 0


def rows(count=100, longest=64, seed=0):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, longest + 1, count)
    found = np.zeros((count, longest), np.int32)
    for row, size in zip(found, sizes, strict=True):
        row[:size] = generator.integers(1, 50, size)
    return torch.from_numpy(found), sizes


def loader(inputs, **more):
    count = len(inputs)
    return MemoryLoader(
        inputs=inputs,
        labels=torch.arange(count),
        ids=torch.arange(count),
        positions=np.arange(count),
        **{"batch_size": 10, "seed": 3, "pad": PAD, **more},
    )


def test_lengths_count_to_the_last_real_token():
    assert lengths(np.array([[5, 0, 5, 0], [0, 0, 0, 0], [1, 2, 3, 4]]), 0).tolist() == [3, 0, 4]
    assert [rounded(n) for n in (0, 4, 5, 8, 9)] == [4, 8, 8, 8, 16]
    assert rounded(9, 12) == 12
    assert padded([np.array([1, 2], np.int32), np.array([], np.int32)], pad=9).tolist() == [
        [1, 2, 9, 9, 9, 9, 9, 9],
        [9] * 8,
    ]


def test_a_batch_is_as_long_as_its_longest_row_and_holds_the_same_rows():
    inputs, sizes = rows()
    for batch in loader(inputs):
        longest = sizes[batch.ids.numpy()].max()
        assert batch.inputs.shape[1] == rounded(int(longest), 64)
        assert torch.equal(batch.inputs, inputs[batch.ids][:, : batch.inputs.shape[1]])
        assert torch.equal(batch.labels, batch.ids)
    assert trimmed(torch.zeros(2, 64), PAD).shape == (2, 4)
    assert trimmed(torch.zeros(0, 64), PAD).shape == (0, 64)


def test_rows_of_like_length_meet_and_less_is_computed():
    inputs, _ = rows(1000)
    sorted_ = sum(batch.inputs.numel() for batch in loader(inputs))
    plain = sum(batch.inputs.numel() for batch in loader(inputs, pad=None))
    assert sorted_ < 0.65 * plain


@pytest.mark.parametrize("count", [100, 101, 105])
def test_an_epoch_holds_every_row_once_and_is_a_function_of_seed_and_epoch(count):
    inputs, _ = rows(count)
    one, two = loader(inputs), loader(inputs)
    two.set_epoch(1)
    list(two)
    two.set_epoch(0)  # what came before does not matter
    orders = [torch.cat([batch.ids for batch in each]) for each in (one, two)]
    assert torch.equal(*orders)
    expected = count - (count % 10 == 1)
    assert len(orders[0]) == expected == len(orders[0].unique())
    two.set_epoch(1)
    assert not torch.equal(torch.cat([batch.ids for batch in two]), orders[0])


def test_two_processes_share_an_epoch():
    inputs, _ = rows(200)
    parts = [
        torch.cat([batch.ids for batch in loader(inputs, rank=rank, ranks=2)]) for rank in (0, 1)
    ]
    assert len(torch.cat(parts).unique()) == 200


def test_a_row_that_comes_twice_an_epoch_is_in_another_view_each_time():
    inputs, _ = rows(20)
    view = CATALOGUE["token_dropout"](share=0.5).told(pad=PAD, mask=1, special=(PAD, 1))
    twice = loader(inputs, length=40, views=Views([view]))
    seen = {}
    for batch in twice:
        for at, number in zip(batch.ids.tolist(), batch.views.tolist(), strict=True):
            seen.setdefault(at, []).append(number)
    assert all(sorted(numbers) == [1, 2] for numbers in seen.values())


def test_batches_come_in_random_order_and_the_rest_last():
    sizes = np.arange(95)
    order = by_length(sizes, batch_size=10, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(95))
    assert order[90:].tolist() == list(range(90, 95))
    starts = order[:90].reshape(9, 10)[:, 0]
    assert sorted(starts.tolist()) == list(range(0, 90, 10))
    assert starts.tolist() != sorted(starts.tolist())
    assert by_length(sizes[:7], batch_size=10, seed=0, epoch=0).tolist() == list(range(7))


def test_evaluation_goes_from_the_shortest_to_the_longest():
    inputs, sizes = rows(30)
    positions = np.array([3, 9, 1, 20])
    order = shortest_first(inputs, positions, PAD)
    assert (np.diff(sizes[positions[order]]) >= 0).all()
    assert shortest_first(inputs, positions, None).tolist() == [0, 1, 2, 3]
