"""Transforms of the user's own: replayed whatever they draw from, or refused."""

import random
import re

import numpy as np
import pytest
import torch

from understudy.data.views import Crop, Flip, Own, Views
from understudy.data.views.own import _generators_kept
from understudy.errors import DataError

SLOW = np.random.default_rng(7)  # a generator that nobody seeds again


def by_torch(image):
    return image + torch.randint(0, 50, image.shape, dtype=image.dtype)


def by_numpy(image):
    return image + torch.from_numpy(np.random.randint(0, 50, image.shape).astype(np.uint8))  # noqa: NPY002


def by_random(image):
    return image.roll(random.randrange(64), 0) + random.randrange(200)


def by_all(image):
    return by_torch(by_numpy(by_random(image)))


def by_dropout(image):
    return torch.nn.functional.dropout(image.float(), 0.3).to(image.dtype)


def as_array(image):
    return image.numpy()[:, ::-1] if random.random() < 0.5 else image.numpy()


DRAWING = [by_torch, by_numpy, by_random, by_all, by_dropout, as_array]


def pictures(count=12, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 100, (count, 64, 6, 3), generator=generator).to(dtype)


def look(views, rows, ids, number=1):
    return views(rows, ids, torch.full_like(ids, number))


def states():
    """Not of `random`: the checks of signatures, which run under test only, draw from it."""
    kept = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), [*kept[1].tolist(), *kept[2:]]


@pytest.mark.parametrize("transform", DRAWING)
def test_a_row_looks_the_same_in_any_order_and_batch_and_after_anything(transform):
    rows, ids = pictures(), torch.arange(12) * 31
    together = look(Views([Own(transform)], seed=3), rows, ids)
    assert together.dtype == rows.dtype
    assert len(together.flatten(1).unique(dim=0)) > (2 if transform is as_array else 11)
    views = Views([Own(transform)], seed=3)
    torch.manual_seed(99), np.random.seed(99), random.seed(99)  # noqa: NPY002
    for row in (7, 3, 11):
        one = slice(row, row + 1)
        assert torch.equal(look(views, rows[one], ids[one]), together[one])
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    assert torch.equal(look(views, rows.flip(0), ids.flip(0)).flip(0), together)


@pytest.mark.parametrize("transform", DRAWING)
@pytest.mark.parametrize("what", ["view", "id", "seed", "place"])
def test_another_view_id_seed_or_place_is_another_picture(transform, what):
    ids, rows = torch.arange(30), pictures(1).expand(30, -1, -1, -1).contiguous()
    first = look(Views([Own(transform)], seed=3), rows, ids)
    if what == "view":
        second = look(Views([Own(transform)], seed=3), rows, ids, 2)
    elif what == "id":
        second = look(Views([Own(transform)], seed=3), rows, ids + 30)
    elif what == "seed":
        second = look(Views([Own(transform)], seed=4), rows, ids)
    else:
        still = Own(torch.clone)
        second = look(Views([still, Own(transform)], seed=3), rows, ids)
    same = (first == second).flatten(1).all(dim=1).float().mean()
    assert same < (0.9 if transform is as_array else 0.1)


@pytest.mark.parametrize("transform", DRAWING)
def test_generators_go_on_as_if_nothing_had_happened(transform):
    before = states()
    look(Views([Own(transform)]), pictures(), torch.arange(12))
    assert states() == before


def test_all_three_generators_are_put_back():
    before = (*states(), random.getstate())
    with _generators_kept():
        by_all(pictures()[0])
        assert all(now != then for now, then in zip(states(), before, strict=False))
    assert (*states(), random.getstate()) == before


def test_generators_go_on_after_a_failure_too():
    def fails(image):
        by_all(image)
        raise KeyError("no such thing\nat all")

    before = states()
    law = r"`.*fails` must take uint8 \[64, 6, 3\], but it fails there: KeyError: 'no such thing"
    with pytest.raises(DataError, match=law) as found:
        look(Views([Own(fails)]), pictures(), torch.arange(12))
    assert isinstance(found.value.__cause__, KeyError)
    assert states() == before


def test_a_table_is_transformed_row_by_row():
    def noisy(row):
        assert row.shape == (5,)
        return row + torch.randn(5)

    rows = torch.zeros(400, 5)
    found = look(Views([Own(noisy)]), rows, torch.arange(400))
    assert found.dtype == torch.float32
    assert abs(float(found.mean())) < 0.1
    assert 0.9 < float(found.std()) < 1.1


def test_one_that_changes_its_row_in_place_does_not_change_the_data():
    rows = pictures()
    copy = rows.clone()
    look(Views([Own(lambda image: image.fill_(random.randrange(255)))]), rows, torch.arange(12))
    assert torch.equal(rows, copy)


def test_one_may_stand_anywhere_in_a_chain():
    rows, ids = pictures(), torch.arange(12)
    views = Views([Crop(), Own(by_torch), Flip()], seed=5)
    found = look(views, rows, ids)
    assert torch.equal(look(views, rows[3:4], ids[3:4]), found[3:4])


def test_no_rows_are_no_pictures():
    def never(image):
        raise AssertionError

    found = look(Views([Own(never)]), pictures()[:0], torch.arange(0))
    assert found.shape == (0, 64, 6, 3)


# --- what is refused -----------------------------------------------------------------------------


def unseeded(image):
    return image + int(np.random.default_rng().integers(0, 100))


def of_its_own(image):
    return image + int(SLOW.integers(0, 100))


def sometimes(image):
    return image.flip(0) if SLOW.random() < 0.5 else image


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return image + self.calls % 100


class Remembering:
    """Gives what it made of the row before."""

    last = torch.zeros(64, 6, 3, dtype=torch.uint8)

    def __call__(self, image):
        made, self.last = self.last, image
        return made


@pytest.mark.parametrize(
    "transform",
    [unseeded, of_its_own, sometimes, Counting(), Remembering()],
    ids=["unseeded", "of_its_own", "sometimes", "counting", "remembering"],
)
def test_what_cannot_be_replayed_is_refused(transform):
    name = getattr(transform, "__name__", type(transform).__name__)
    law = rf"a row in one view must be one picture, but `.*{name}` made two of the same row"
    with pytest.raises(DataError, match=law) as found:
        look(Views([Own(transform)]), pictures(), torch.arange(12))
    assert "`np.random.default_rng()` without a seed" in str(found.value)


def test_it_is_tried_on_the_first_batch_only():
    calls = []

    def counted(image):
        calls.append(1)
        return image

    views = Views([Own(counted)])
    look(views, pictures(40), torch.arange(40))
    assert len(calls) == 40 + 16
    look(views, pictures(40), torch.arange(40), 2)
    assert len(calls) == 40 + 16 + 40


@pytest.mark.parametrize(
    ("transform", "law"),
    [
        (lambda image: image[:-1], "made uint8 [63, 6, 3] of uint8 [64, 6, 3]"),
        (lambda image: image / 255, "made float32 [64, 6, 3] of uint8 [64, 6, 3]"),
        (lambda image: image.permute(2, 0, 1), "must keep shape and type of its row, but"),
        (lambda image: image.numpy().astype(np.float64), "made float64 [64, 6, 3]"),
        (lambda image: None, "returned NoneType: convert it at its end"),
        (lambda image: image.tolist(), "must return a tensor or a NumPy array, but"),
    ],
)
def test_a_result_that_is_no_such_row_is_refused(transform, law):
    with pytest.raises(DataError, match=re.escape(law)):
        look(Views([Own(transform)]), pictures(), torch.arange(12))


# --- whole batches -------------------------------------------------------------------------------


def shifted(rows, seeds):
    moves = (seeds % 50).to(rows.dtype)
    return rows + moves.view(-1, *[1] * (rows.ndim - 1))


def test_a_batched_transform_gets_a_seed_for_each_row():
    rows, ids = pictures(), torch.arange(12)
    views = Views([Own(shifted, batched=True)], seed=3)
    together = look(views, rows, ids)
    assert len((together - rows)[:, 0, 0, 0].unique()) > 5
    assert torch.equal(look(views, rows.flip(0), ids.flip(0)).flip(0), together)
    assert torch.equal(look(views, rows[4:5], ids[4:5]), together[4:5])


def by_generator(rows, seeds):
    return rows + torch.randint(0, 50, (len(rows), 1, 1, 1), dtype=rows.dtype)


def once_per_batch(rows, seeds):
    return rows + random.randrange(100)


def by_first(rows, seeds):
    return shifted(rows, seeds[:1].expand(len(rows)))


@pytest.mark.parametrize("transform", [by_generator, once_per_batch, by_first])
def test_a_batched_one_that_draws_for_the_batch_is_refused(transform):
    views = Views([Own(transform, batched=True)])
    look(views, pictures(1), torch.arange(1))  # one row shows nothing
    law = f"but the batched `.*{transform.__name__}` made two of the same row and seed"
    with pytest.raises(DataError, match=law):
        look(views, pictures(), torch.arange(12))
