"""Splits: without a row in common, class by class, the same everywhere, and never a leak."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from understudy.data import Rows, digits
from understudy.data.draws import shares
from understudy.data.splits import Splits, split
from understudy.errors import DataError


def table(labels, **changes):
    count = len(labels)
    rows = Rows(
        inputs=np.arange(count * 2, dtype=np.float32).reshape(count, 2),
        labels=np.asarray(labels, np.int64),
        ids=np.arange(count),
        form="table",
        classes=tuple("abcdefgh"[: max(labels, default=0) + 1]),
    )
    return dataclasses.replace(rows, **changes)


def classes_of(sizes):
    return [number for number, size in enumerate(sizes) for _ in range(size)]


def shuffled(labels, seed=0):
    return np.random.default_rng(seed).permutation(labels).tolist()


def counts(rows, positions):
    return np.bincount(rows.labels[positions], minlength=len(rows.classes))


def parts(splits):
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def refused(*laws, **options):
    rows = options.pop("rows")
    with pytest.raises(DataError) as caught:
        split(rows, **{"seed": 0, "test": 0.25, "validation": 0.25, **options})
    for law in laws:
        assert law in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=2, max_size=6),
    test=st.floats(0.2, 0.5),
    validation=st.floats(0.2, 0.5),
    seed=st.integers(0, 2**31),
)
def test_splits_share_no_row_leave_none_out_and_keep_the_shares_of_classes(
    sizes, test, validation, seed
):
    rows = table(shuffled(classes_of(sizes), seed))
    splits = split(rows, seed=seed, test=test, validation=validation)
    every = np.concatenate(list(parts(splits).values()))
    assert sorted(every.tolist()) == list(range(len(rows)))
    assert all(part.dtype == np.int64 for part in parts(splits).values())
    assert all((np.diff(part) > 0).all() for part in parts(splits).values())
    total = counts(rows, np.arange(len(rows)))
    exact = total * len(splits.test) / len(rows)
    assert (np.abs(counts(rows, splits.test) - exact) < 1).all()
    assert abs(len(splits.test) - test * len(rows)) <= 0.5
    left = total - counts(rows, splits.test)
    exact = left * len(splits.validation) / left.sum()
    assert (np.abs(counts(rows, splits.validation) - exact) < 1).all()
    assert splits.labelled.all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.integers(0, 2**31))
def test_which_rows_are_drawn_depends_on_their_ids_and_not_on_their_order(seed, order):
    rows = table(classes_of([20, 30, 10]), ids=np.arange(60) * 7 + 3)
    turn = np.random.default_rng(order).permutation(60)
    turned = dataclasses.replace(
        rows, inputs=rows.inputs[turn], labels=rows.labels[turn], ids=rows.ids[turn]
    )
    options = {"seed": seed, "test": 0.3, "validation": 9, "rows_limit": 35, "labelled": 10}
    one, other = split(rows, **options), split(turned, **options)
    for name, part in parts(one).items():
        assert sorted(rows.ids[part]) == sorted(turned.ids[parts(other)[name]])
    assert sorted(rows.ids[one.train_labelled]) == sorted(turned.ids[other.train_labelled])


def test_a_split_is_the_same_for_ever():
    rows = table([0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1])
    splits = split(rows, seed=5, test=0.25, validation=0.2, labelled=4)
    assert splits.test.tolist() == [3, 5, 6, 9, 11]
    assert splits.validation.tolist() == [7, 12, 16]
    assert splits.train_labelled.tolist() == [0, 13, 14, 19]


def test_another_seed_draws_other_rows():
    rows = digits()
    one, other = (split(rows, seed=seed, test=0.2, validation=0.1).test for seed in (0, 1))
    assert len(np.intersect1d(one, other)) < 0.3 * len(one)


def test_rows_are_drawn_evenly():
    rows = table([0, 1] * 50)
    hits = np.zeros(100)
    for seed in range(400):
        hits[split(rows, seed=seed, test=0.2, validation=0.1).test] += 1
    assert hits.min() > 45
    assert hits.max() < 120  # 80 are expected, with a standard deviation of 8


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any),
    data=st.data(),
    at_least=st.integers(0, 2),
)
def test_shares_are_exact_to_the_row(sizes, data, at_least):
    sizes = np.array(sizes)
    least = int(np.minimum(at_least, sizes).sum())
    count = data.draw(st.integers(least, int(sizes.sum())))
    found = shares(sizes, count, at_least=at_least)
    assert found.sum() == count
    assert (found <= sizes).all()
    assert (found >= np.minimum(at_least, sizes)).all()
    if not at_least:
        assert (np.abs(found - sizes * count / sizes.sum()) < 1).all()


def test_no_shares_of_nothing():
    assert shares(np.zeros(2, np.int64), 0).tolist() == [0, 0]


def test_numbers_and_shares_mean_rows():
    rows = table(shuffled(classes_of([50, 50])))
    splits = split(rows, seed=0, test=20, validation=0.25)
    assert [len(part) for part in parts(splits).values()] == [60, 20, 20]


def test_a_limit_keeps_some_rows_of_each_class_and_all_test_rows():
    rows = table(shuffled(classes_of([60, 40])))
    splits = split(rows, seed=0, test=0.2, validation=0.2, rows_limit=40)
    assert [len(part) for part in parts(splits).values()] == [32, 8, 20]
    assert counts(rows, np.concatenate([splits.train, splits.validation])).tolist() == [24, 16]
    same = split(rows, seed=0, test=0.2, validation=0.2, rows_limit=1000)
    assert len(same.train) == 64
    np.testing.assert_array_equal(same.test, splits.test)


def test_hidden_labels_are_those_of_training_rows_and_every_class_keeps_one():
    rows = table(shuffled(classes_of([90, 30, 4])))
    splits = split(rows, seed=0, test=0.25, validation=0.25, labelled=3)
    assert counts(rows, splits.train_labelled).tolist() == [1, 1, 1]
    shown = splits.visible(rows.labels)
    assert (
        np.flatnonzero(shown[splits.train] >= 0).tolist()
        == np.flatnonzero(splits.labelled).tolist()
    )
    for part in (splits.validation, splits.test):
        np.testing.assert_array_equal(shown[part], rows.labels[part])
    assert (rows.labels >= 0).all()  # the caller's own are as they were
    tenth = split(rows, seed=0, test=0.25, validation=0.25, labelled=0.1)
    assert tenth.labelled.sum() == round(0.1 * len(tenth.train))
    np.testing.assert_array_equal(tenth.train, splits.train)
    for everything in (1.0, 10_000, None):
        assert split(rows, seed=0, test=0.25, validation=0.25, labelled=everything).labelled.all()


def test_unlabelled_rows_are_only_trained_on():
    labels = np.array(shuffled(classes_of([40, 40])))
    labels[::4] = -1
    rows = Rows(
        inputs=np.zeros((80, 2), np.float32),
        labels=labels,
        ids=np.arange(80),
        form="table",
        classes=("a", "b"),
    )
    splits = split(rows, seed=0, test=0.25, validation=10)
    assert len(splits.test) == 15  # of 60 labelled rows
    assert np.isin(np.flatnonzero(labels < 0), splits.train).all()
    np.testing.assert_array_equal(splits.labelled, labels[splits.train] >= 0)


@pytest.mark.parametrize("labels", [None, np.full(20, -1)], ids=["none", "all unlabelled"])
def test_rows_without_any_label_are_split_too(labels):
    rows = dataclasses.replace(table([0, 1] * 10), labels=labels)
    splits = split(rows, seed=0, test=0.25, validation=0.2)
    assert [len(part) for part in parts(splits).values()] == [12, 3, 5]
    assert not splits.labelled.any()


def test_a_regression_is_split_by_tenths_of_its_target():
    values = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32)
    values[:20] = np.nan
    rows = Rows(inputs=values, labels=values, ids=np.arange(200), form="table")
    splits = split(rows, seed=0, test=0.2, validation=0.25, labelled=0.5)
    assert not np.isnan(values[splits.test]).any()
    known = np.sort(values[~np.isnan(values)])
    tenths = np.searchsorted(known[18::18], values[splits.test, 0], side="right")
    assert set(np.bincount(tenths, minlength=10)) <= {3, 4}  # 36 rows among ten
    shown = splits.visible(rows.labels)
    assert np.isnan(shown[splits.train[~splits.labelled]]).all()
    assert not np.isnan(shown[splits.train_labelled]).any()


def given_test(**changes):
    rows = table(shuffled(classes_of([30, 30])), test_rows=np.arange(60) >= 40)
    return dataclasses.replace(rows, **changes)


def test_the_sources_own_test_rows_are_taken_as_they_are():
    splits = split(given_test(), seed=0, test="given", validation=0.1)
    assert splits.test.tolist() == list(range(40, 60))
    assert len(splits.validation) == 4


def test_rows_that_a_source_declares_as_test_are_never_trained_on():
    refused(
        "declares 20 rows as test, but `test: 0.25` would", "say `test: given`", rows=given_test()
    )


def test_given_test_rows_must_be_there_and_labelled():
    refused("this one declares none", rows=table([0, 1] * 10), test="given")
    nothing = given_test(test_rows=np.ones(60, np.bool_))
    refused("every row is a test row", rows=nothing, test="given")
    labels = given_test().labels.copy()
    labels[50:52] = -1
    refused("but 2 of 20 have none (ids 50, 51)", rows=given_test(labels=labels), test="given")


def test_copies_of_given_test_rows_leave_training():
    inputs = given_test().inputs.copy()
    inputs[3], inputs[7] = inputs[50], inputs[44]
    rows = given_test(inputs=inputs)
    splits = split(rows, seed=0, test="given", validation=0.1)
    assert splits.dropped == 2
    assert not np.isin([3, 7], np.concatenate([splits.train, splits.validation])).any()
    assert np.isin([44, 50], splits.test).all()
    refused(
        "2 of 40 are (training id = test id: 3 = 50, 7 = 44)",
        "`overlap: drop`",
        rows=rows,
        test="given",
        overlap="error",
    )
    allowed = split(rows, seed=0, test="given", validation=0.1, overlap="allow")
    assert allowed.dropped == 0
    assert len(allowed.train) + len(allowed.validation) == 40


def test_so_many_copies_that_the_training_rows_would_change_are_an_error():
    rows = given_test(inputs=np.zeros((60, 2), np.float32))
    refused("40 of 40", "too many to drop unasked", "`overlap: allow`", rows=rows, test="given")


def test_copies_are_found_among_images_that_are_drawn_but_not_among_ordinary_rows():
    rows = digits()
    inputs = rows.inputs.copy()
    inputs[1:40] = inputs[0]
    copied = dataclasses.replace(rows, inputs=inputs)
    splits = split(copied, seed=0, test=0.2, validation=0.1)
    assert 0 < splits.dropped < 40
    kept = np.concatenate([splits.train, splits.validation])
    assert not (kept < 40).any()
    equal = dataclasses.replace(table([0, 1] * 50), inputs=np.zeros((100, 2), np.float32))
    assert split(equal, seed=0, test=0.2, validation=0.1).dropped == 0


def test_doubled_ids_are_always_an_error():
    ids = np.arange(60)
    ids[59] = 0
    refused("1 stand for several rows (0)", rows=given_test(ids=ids), test="given", overlap="allow")


def test_a_class_that_a_split_lacks_is_named_with_the_split():
    refused(
        "2 problems",
        "validation (15 rows) has no row of class `c`",
        "test (20 rows) has no row of class `c`",
        "take larger splits",
        rows=table(classes_of([40, 38, 1])),
    )
    refused("has no row of class `b`", rows=table([0] * 20, classes=("a", "b")))


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"test": 1.0}, "`test` must be a share between 0 and 1 or a number of rows, but got 1.0"),
        ({"test": 0}, "but got 0"),
        ({"validation": -0.5}, "`validation` must be a share"),
        ({"test": 40}, "`test: 40` must leave rows on both sides, but takes 40 of 40 rows"),
        ({"test": 0.001}, "takes 0 of 40 rows"),
        ({"validation": 30}, "takes 30 of 30 rows"),
        ({"rows_limit": 1}, "`rows` must be at least 2, but got 1"),
        ({"labelled": 1}, "at least one label per class, but keeps 1 for 2 classes: keep 2"),
        ({"labelled": 0.0}, "`labelled` must be a share"),
    ],
    ids=str,
)
def test_numbers_out_of_reach_are_refused(options, law):
    refused(law, rows=table([0, 1] * 20), **options)


def test_splits_are_written_and_read_again(tmp_path):
    splits = split(table([0, 1] * 20), seed=0, test=0.25, validation=0.25, labelled=6)
    splits = dataclasses.replace(splits, dropped=3)
    splits.save(tmp_path / "splits.safetensors")
    again = Splits.load(tmp_path / "splits.safetensors")
    for field in dataclasses.fields(Splits):
        one, other = getattr(splits, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(one, other)
        assert field.name == "dropped" or one.dtype == other.dtype
    assert [item.name for item in tmp_path.iterdir()] == ["splits.safetensors"]


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"test": np.array([0, 1])}, "no row may be in two splits"),
        ({"train": np.array([-1, 3])}, "no row may be in two splits"),
        ({"train": np.array([1.0, 3.0])}, "every split must be int64 positions"),
        ({"labelled": np.array([True])}, "`labelled` must have one entry per training row"),
        ({"more": np.array([1])}, "splits must hold dropped, labelled, test, train, validation"),
    ],
    ids=str,
)
def test_a_file_that_holds_no_splits_is_refused(tmp_path, change, law):
    good = {
        "train": np.array([1, 3]),
        "validation": np.array([0]),
        "test": np.array([2]),
        "labelled": np.array([True, False]),
        "dropped": np.array([0]),
    }
    save_file(good, tmp_path / "s")
    Splits.load(tmp_path / "s")
    save_file(good | change, tmp_path / "s")
    with pytest.raises(DataError) as caught:
        Splits.load(tmp_path / "s")
    assert law in str(caught.value)


def test_a_damaged_or_absent_file_is_refused(tmp_path):
    (tmp_path / "s").write_bytes(b"no tensors")
    for name in ("s", "absent"):
        with pytest.raises(DataError, match="cannot be read as splits"):
            Splits.load(tmp_path / name)
