"""Mixed batches: who is mixed with whom is a function of seed, id, view and pool alone."""

import numpy as np
import pytest
import torch

from understudy.data.loaders import MemoryLoader
from understudy.data.views import Crop, CutMix, Flip, Mixup, Views

ROWS = 200


def loader(**changes):
    """A loader whose row `i` has label `i + 1000` and id `i + 5000`."""
    options = {
        "inputs": torch.arange(ROWS)[:, None],
        "labels": torch.arange(ROWS) + 1000,
        "ids": torch.arange(ROWS) + 5000,
        "positions": np.arange(50),
        "batch_size": 8,
        "seed": 3,
    }
    return MemoryLoader(**(options | changes))


MIXING = [Mixup(alpha=1.0), CutMix()]


def mixing(operation, **changes):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), generator=generator, dtype=torch.uint8)
    views = Views([Crop(padding=2), Flip(), operation], seed=7)
    return loader(**({"inputs": inputs, "views": views} | changes))


def told(batches):
    """What was told of each (id, view), bit for bit."""
    found = {}
    for batch in batches:
        for row in range(len(batch)):
            parts = [batch.partners, batch.partner_labels, batch.shares, batch.inputs]
            key = int(batch.ids[row]), int(batch.views[row])
            assert key not in found
            found[key] = [part[row].tolist() for part in parts]
    return found


@pytest.mark.parametrize("operation", MIXING)
def test_a_mixed_batch_says_who_was_mixed_and_how_much(operation):
    made = mixing(operation)
    made.set_epoch(2)
    inputs, views = made.batch(np.arange(ROWS)).inputs, Views([Crop(padding=2), Flip()], seed=7)
    for batch in made:
        assert torch.equal(batch.labels, batch.ids - 4000)
        assert torch.equal(batch.partner_labels, batch.partners - 4000)
        assert batch.partners.dtype == torch.int64
        assert batch.shares.dtype == torch.float32
        assert set(batch.partners.tolist()) <= set(range(5000, 5050))
        # The partner is in its own view of the same number.
        own = views(inputs[batch.ids - 5000], batch.ids, batch.views)
        other = views(inputs[batch.partners - 5000], batch.partners, batch.views)
        if isinstance(operation, Mixup):
            shares = batch.shares[:, None, None, None]
            expected = (shares * own + (1 - shares) * other).round().to(torch.uint8)
            assert torch.equal(batch.inputs, expected)
        else:
            assert ((batch.inputs == own) | (batch.inputs == other)).all()
            for row, share in enumerate(batch.shares.tolist()):
                taken = int((batch.inputs[row] != own[row]).sum())
                assert taken <= round((1 - share) * 36)


@pytest.mark.parametrize("operation", MIXING)
def test_a_mixed_row_is_the_same_in_any_order_batch_and_process(operation):
    expected = told(mixing(operation))
    assert told(mixing(operation, seed=9, batch_size=5)) == expected
    assert told(mixing(operation, positions=np.arange(50)[::-1].copy())) == expected
    shuffled = np.random.default_rng(0).permutation(50)
    assert told(mixing(operation, positions=shuffled, seed=None)) == expected
    parts = [mixing(operation, positions=shuffled[:25], pool=shuffled, seed=None),
             mixing(operation, positions=shuffled[25:], pool=np.arange(50), seed=None)]  # fmt: skip
    assert told(parts[0]) | told(parts[1]) == {(i, v): row for (i, v), row in expected.items()}
    ranks = [mixing(operation, positions=shuffled, batch_size=5, rank=r, ranks=2) for r in (0, 1)]
    assert told(ranks[0]) | told(ranks[1]) == expected


@pytest.mark.parametrize("operation", MIXING)
def test_the_teacher_sees_what_the_student_will_see(operation):
    student = mixing(operation, cycle=2)
    teacher = mixing(operation, positions=np.arange(50), seed=None, batch_size=7)
    stored = told(
        teacher.batch(np.arange(start, min(start + 13, 50)), np.full(min(13, 50 - start), view))
        for view in (1, 2)
        for start in range(0, 50, 13)
    )
    for epoch in range(5):
        student.set_epoch(epoch)
        seen = told(student)
        assert len(seen) == 50
        assert all(stored[key] == row for key, row in seen.items())


def test_other_rows_in_the_pool_are_other_partners():
    whole, fewer = told(mixing(Mixup())), told(mixing(Mixup(), pool=np.arange(10)))
    assert {row[0] for row in fewer.values()} <= set(range(5000, 5010))
    assert whole.keys() == fewer.keys()
    # The share is the row's own, whoever is there to be mixed with.
    assert [row[2] for row in whole.values()] == [fewer[key][2] for key in whole]


def test_ids_of_the_pool_decide_and_not_their_places():
    inputs = torch.randint(0, 256, (ROWS, 6, 6, 1), dtype=torch.uint8)
    turned = {"inputs": inputs.flip(0), "labels": torch.arange(ROWS).flip(0) + 1000,
              "ids": torch.arange(ROWS).flip(0) + 5000}  # fmt: skip
    here = told(mixing(Mixup(), inputs=inputs))
    there = told(mixing(Mixup(), positions=np.arange(ROWS - 50, ROWS), **turned))
    assert here == there


def test_rows_as_they_are_have_no_partner():
    made = mixing(Mixup(alpha=1.0))
    plain = made.batch(np.arange(5))
    assert plain.partners is None
    assert plain.partner_labels is None
    assert plain.shares is None
    batch = made.batch(np.arange(5), np.array([0, 1, 0, 1, 1]))
    assert torch.equal(batch.inputs[[0, 2]], plain.inputs[[0, 2]])
    assert batch.partners[[0, 2]].tolist() == [5000, 5002]
    assert batch.shares[[0, 2]].tolist() == [1.0, 1.0]


def test_mixed_rows_may_have_no_labels_or_several():
    assert mixing(Mixup(), labels=None).batch(np.arange(3), np.ones(3, np.int64)).labels is None
    assert next(iter(mixing(Mixup(), labels=None))).partner_labels is None
    labels = torch.arange(ROWS)[:, None] * torch.tensor([1.0, 10.0])
    batch = next(iter(mixing(Mixup(), labels=labels)))
    assert torch.equal(batch.partner_labels, labels[batch.partners - 5000])


def test_tables_can_be_mixed():
    rows = torch.randn(ROWS, 4)
    batch = next(iter(loader(inputs=rows, views=Views([Mixup(alpha=1.0)]))))
    shares = batch.shares[:, None]
    own, other = rows[batch.ids - 5000], rows[batch.partners - 5000]
    assert torch.allclose(batch.inputs, shares * own + (1 - shares) * other)


def test_of_no_rows_nothing_is_mixed():
    made = mixing(Mixup(), positions=np.arange(0))
    assert list(made) == []
    assert len(made.batch(np.arange(0), np.arange(0))) == 0
