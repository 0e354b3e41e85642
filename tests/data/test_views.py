"""Views: a view is a function of (seed, id, number), and its random numbers are random."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data.views import (
    CATALOGUE,
    MIXING,
    Colour,
    Crop,
    CutMix,
    Erase,
    Flip,
    Mixing,
    Mixup,
    Own,
    View,
    Views,
)

quickly = settings(max_examples=25, deadline=None)
PICTURES = "7427ace2e43126b33859aac9d65f5cb53f3cef3ed06264f92b1f01556e90206e"


def pictures(count, *, dtype=torch.uint8, size=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size + 1, channels)
    whole = torch.randint(1, 256, shape, generator=generator)
    return whole.to(dtype) if dtype == torch.uint8 else (whole / 255).to(dtype)


def all_views(seed=3):
    return Views([Crop(padding=2), Flip(), Erase(share=0.9), Colour()], seed=seed)


def look(views, rows, ids, number):
    return views(rows, ids, torch.full_like(ids, number))


# --- replay --------------------------------------------------------------------------------------


def printed():
    """The checksum of pictures through every operation, of rows that arithmetic makes."""
    size = 6 * 9 * 8 * 3
    rows = ((torch.arange(size) * 2654435761 >> 7) % 256).to(torch.uint8).view(6, 9, 8, 3)
    ids, numbers = torch.arange(6) * 7919, torch.arange(6) // 2 + 1
    digest = hashlib.sha256()
    for last in (Mixup(), CutMix()):
        views = Views([Crop(), Flip(), Erase(), Colour(), last], seed=11)
        partners = views.partners(ids, numbers, count=6)
        own = views(rows, ids, numbers)
        other = views(rows[partners], ids[partners], numbers)
        mixed, shares = views.mixed(own, other, ids, numbers)
        for part in (partners, own, mixed, shares):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def test_another_process_sees_the_same_and_so_did_this_version_ever():
    """A change of this number makes every stored view wrong: raise the version in `describe`."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "import test_views; print(test_views.printed())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert Views().describe()["version"] == 1
    assert done.stdout.strip() == printed() == PICTURES


def test_a_row_that_is_not_alone_in_memory_looks_the_same():
    rows, ids = pictures(6, size=9), torch.arange(6)
    parts = rows.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not parts.is_contiguous()
    assert torch.equal(look(all_views(), parts, ids, 2), look(all_views(), rows, ids, 2))


@pytest.mark.parametrize("operation", [Crop(), Flip(), Erase(), Colour()])
def test_the_rows_that_were_given_stay_as_they_are(operation):
    rows = pictures(30)
    before = rows.clone()
    look(Views([operation]), rows, torch.arange(30), 1).fill_(3)
    assert torch.equal(rows, before)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.int32]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_type_and_shape_stay(dtype, channels):
    rows = pictures(5, dtype=dtype, channels=channels)
    found = look(all_views(), rows, torch.arange(5), 1)
    assert found.dtype == dtype
    assert found.shape == rows.shape
    assert found.is_contiguous()


@pytest.mark.parametrize("operation", [Colour(), Mixup()], ids=["colour", "mixup"])
def test_true_and_false_have_no_shades(operation):
    views, rows = Views([operation]), pictures(4) > 100
    ids, numbers = torch.arange(4), torch.ones(4, dtype=torch.long)
    with pytest.raises(ValueError, match="they are true or false"):
        views.mixed(views(rows, ids, numbers), rows, ids, numbers)


def test_view_0_is_the_row_as_it_is():
    rows, ids = pictures(8), torch.arange(8)
    numbers = torch.tensor([0, 1] * 4)
    found = all_views()(rows, ids, numbers)
    assert torch.equal(found[::2], rows[::2])
    assert torch.equal(found[1::2], look(all_views(), rows, ids, 1)[1::2])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing(threads):
    kept = torch.get_num_threads()
    rows, ids = pictures(2, size=200, dtype=torch.float32), torch.arange(2)
    torch.set_num_threads(1)
    expected = torch.cat([look(all_views(), rows[i : i + 1], ids[i : i + 1], 1) for i in (0, 1)])
    torch.set_num_threads(threads)
    try:
        assert torch.equal(look(all_views(), rows, ids, 1), expected)
        alone = [look(all_views(), rows[i : i + 1], ids[i : i + 1], 1) for i in (0, 1)]
        assert torch.equal(torch.cat(alone), expected)
    finally:
        torch.set_num_threads(kept)


@quickly
@given(seed=st.integers(0, 2**31), ids=st.lists(st.integers(0, 10**6), min_size=1, max_size=12),
       number=st.integers(1, 1000))  # fmt: skip
def test_a_row_looks_the_same_in_any_batch(seed, ids, number):
    ids = torch.tensor(ids)
    rows = pictures(len(ids))
    views = all_views(seed)
    together = look(views, rows, ids, number)
    turned = look(views, rows.flip(0), ids.flip(0), number).flip(0)
    assert torch.equal(turned, together)
    for row in range(len(ids)):
        one = slice(row, row + 1)
        assert torch.equal(look(views, rows[one], ids[one], number), together[one])


def test_views_of_one_batch_may_differ():
    rows, ids = pictures(6), torch.arange(6)
    numbers = torch.tensor([1, 2, 3, 1, 2, 3])
    mixed = all_views()(rows, ids, numbers)
    for number in (1, 2, 3):
        expected = look(all_views(), rows, ids, number)
        assert torch.equal(mixed[numbers == number], expected[numbers == number])


@pytest.mark.parametrize("what", ["view", "id", "seed"])
def test_another_view_id_or_seed_is_another_picture(what):
    rows = pictures(1).expand(200, -1, -1, -1).contiguous()
    ids = torch.arange(200)
    first = look(all_views(), rows, ids, 1)
    if what == "view":
        second = look(all_views(), rows, ids, 2)
    elif what == "id":
        second = look(all_views(), rows, ids + 1000, 1)
    else:
        second = look(all_views(seed=4), rows, ids, 1)
    same = (first == second).flatten(1).all(dim=1).float().mean()
    assert same < 0.1


def test_rows_are_left_as_they_are():
    rows = pictures(4)
    before = rows.clone()
    look(all_views(), rows, torch.arange(4), 1)
    assert torch.equal(rows, before)


def test_without_operations_nothing_is_random():
    rows = pictures(3)
    assert not Views().random
    assert all_views().random
    assert look(Views(), rows, torch.arange(3), 7) is rows


# --- chains --------------------------------------------------------------------------------------


def test_operations_follow_each_other_and_have_their_own_numbers():
    rows, ids = pictures(300), torch.arange(300)
    both = look(Views([Crop(padding=2), Crop(padding=2)], seed=1), rows, ids, 1)
    first = look(Views([Crop(padding=2)], seed=1), rows, ids, 1)
    twice = look(Views([Crop(padding=2)], seed=1), first, ids, 1)
    assert not torch.equal(both, twice)


def test_an_operation_more_leaves_those_before_it_as_they_were():
    class Keep:
        def __call__(self, rows, draws):
            draws()
            return rows

    rows, ids = pictures(20), torch.arange(20)
    longer = look(Views([Crop(), Keep()], seed=1), rows, ids, 1)
    assert torch.equal(longer, look(Views([Crop()], seed=1), rows, ids, 1))


def test_the_catalogue_holds_views():
    images = {"crop", "flip", "erase", "colour", "mixup", "cutmix"}
    assert set(CATALOGUE) == images | {"token_dropout", "token_crop"}
    for kind, make in CATALOGUE.items():
        made = make()
        if kind.startswith("token_"):
            made = made.told(pad=0, mask=1, special=(0, 1))
        assert isinstance(made, Mixing if kind in MIXING else View)
        assert not isinstance(made, View if kind in MIXING else Mixing)


@pytest.mark.parametrize("operations", [[Mixup(), Crop()], [CutMix(), Flip(), Erase()]])
def test_what_mixes_must_be_last(operations):
    law = f"must be the last one, but got it as number 1 of {len(operations)}: move it to the end"
    with pytest.raises(ValueError, match=law):
        Views(operations)


def test_only_one_may_mix():
    with pytest.raises(ValueError, match="at most one view may mix rows, but got 2: keep one"):
        Views([Crop(), Mixup(), CutMix()])


def test_a_chain_describes_itself_in_plain_data():
    views = Views([Crop(padding=2), Flip(), Own(np.negative), Mixup(alpha=0.3)], seed=5)
    described = views.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["seed"] == 5
    assert described["operations"] == [
        {"kind": "crop", "padding": 2},
        {"kind": "flip", "share": 0.5},
        {"kind": "custom", "transform": "numpy.negative", "batched": False},
        {"kind": "mixup", "alpha": 0.3},
    ]


@pytest.mark.parametrize("other", [Views([Crop()]), Views([Crop(padding=2)], seed=1), Views()])
def test_other_chains_describe_themselves_otherwise(other):
    assert other.describe() != Views([Crop(padding=2)]).describe()
    assert Views([Crop(padding=2)]).describe() == Views([Crop(padding=2)]).describe()


def test_an_operation_from_elsewhere_is_described_by_its_name():
    class Keep:
        def __call__(self, rows, draws):
            return rows

    (described,) = Views([Keep()]).describe()["operations"]
    assert set(described) == {"kind"}
    assert described["kind"].endswith("Keep")
