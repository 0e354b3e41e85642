"""The dataset for people's own loops: whole batches, the pictures of our own loader."""

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from understudy.contracts import Batch
from understudy.data.dataset import RowsDataset
from understudy.data.loaders import MemoryLoader
from understudy.data.views import Crop, Flip, Mixup, Own, Views

ROWS = 60


def noisy(image):
    return image + torch.randint(0, 9, image.shape, dtype=image.dtype)


def views():
    return Views([Crop(padding=2), Own(noisy), Flip(), Mixup(alpha=1.0)], seed=4)


def arrays():
    generator = torch.Generator().manual_seed(0)
    return {
        "inputs": torch.randint(0, 200, (ROWS, 6, 6, 3), generator=generator, dtype=torch.uint8),
        "labels": torch.arange(ROWS) + 1000,
        "ids": torch.arange(ROWS) * 7 + 5,
    }


def dataset(**changes):
    return RowsDataset(**(arrays() | {"views": views()} | changes))


def by_id(batches):
    """What was told of each row."""
    found = {}
    for batch in batches:
        for row, identity in enumerate(batch.ids.tolist()):
            parts = (batch.inputs, batch.labels, batch.views, batch.partners, batch.shares)
            found[identity] = [part[row].tolist() for part in parts]
    return found


def ours(epoch):
    loader = MemoryLoader(
        **arrays(), positions=np.arange(ROWS), batch_size=9, views=views(), seed=1
    )
    loader.set_epoch(epoch)
    return by_id(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_feeds_a_loader_whole_batches_with_the_pictures_of_ours(workers):
    made = dataset()
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(
        made,
        batch_size=8,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=RowsDataset.collate,
        generator=generator,
    )
    for epoch in (0, 3):
        made.set_epoch(epoch)
        batches = list(loader)
        assert all(isinstance(batch, Batch) for batch in batches)
        assert [len(batch) for batch in batches] == [8] * 7 + [4]
        assert by_id(batches) == ours(epoch)


def test_it_feeds_a_loader_by_a_sampler_of_batches():
    made = dataset()
    sampler = BatchSampler(RandomSampler(made), batch_size=8, drop_last=True)
    batched = DataLoader(made, batch_sampler=sampler, collate_fn=RowsDataset.collate)
    plain = DataLoader(made, sampler=sampler, batch_size=None)
    expected = ours(0)
    for loader in (batched, plain):
        found = by_id(loader)
        assert len(found) == 56
        assert all(found[identity] == expected[identity] for identity in found)


def test_one_row_is_a_batch_of_one():
    made = dataset()
    one = made[3]
    assert isinstance(one, Batch)
    assert one.ids.tolist() == [26]
    assert torch.equal(one.inputs, made.__getitems__([9, 3]).inputs[1:])
    assert len(made) == ROWS
    with pytest.raises(IndexError):
        made[ROWS]


def test_it_may_have_some_of_the_rows_and_mix_with_others():
    positions, pool = np.array([5, 9, 40]), np.arange(20, 30)
    made = dataset(positions=positions, pool=pool)
    assert len(made) == 3
    batch = made[[0, 1, 2]]
    assert batch.labels.tolist() == [1005, 1009, 1040]
    assert set(batch.partners.tolist()) <= {7 * p + 5 for p in range(20, 30)}


def test_views_come_round_after_a_cycle():
    made = dataset(cycle=2)
    seen = []
    for epoch in range(4):
        made.set_epoch(epoch)
        seen.append(made[[1, 2]])
    assert [batch.views.tolist() for batch in seen] == [[1, 1], [2, 2], [1, 1], [2, 2]]
    assert torch.equal(seen[0].inputs, seen[2].inputs)
    assert not torch.equal(seen[0].inputs, seen[1].inputs)


def test_without_views_rows_are_as_they_are():
    made = RowsDataset(**arrays())
    batch = made[[4, 2]]
    assert torch.equal(batch.inputs, arrays()["inputs"][[4, 2]])
    assert batch.views is None
    assert batch.partners is None


def test_a_cycle_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`cycle` must be at least 1 view, but got 0"):
        dataset(cycle=0)
