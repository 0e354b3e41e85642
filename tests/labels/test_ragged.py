"""Sequences of different lengths, listed outcomes, constants and views in a store."""

from pathlib import Path

import numpy as np
import pytest
import torch

from labels.conftest import FakeTeacher, record_ids
from understudy.contracts import Batch, Knowledge, Outcomes, Ragged
from understudy.errors import StoreError
from understudy.labels import codecs
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore

CLASSES = 300


def length(number):
    return int(number * 7 % 5)  # some sequences are empty


def sequence(number, view=0):
    """The logits of one example, `[length, classes]`, a function of its id and view."""
    draw = np.random.default_rng([int(number), int(view)])
    return (draw.standard_normal((length(number), CLASSES)) * 3).astype(np.float32)


class Writes:
    """A language model: random numbers by id stand in for one."""

    offers = frozenset({"logits"})

    def __call__(self, batch):
        views = torch.zeros_like(batch.ids) if batch.views is None else batch.views
        found = [sequence(i, v) for i, v in zip(batch.ids, views, strict=True)]
        values = torch.from_numpy(np.concatenate(found))
        lengths = torch.tensor([len(one) for one in found])
        return Knowledge(fields={"logits": Ragged(values=values, lengths=lengths)})


def store_of(folder, kind, parameters, **options):
    codec = codecs.make(kind, parameters, {})
    keep = {"logits": Keep(codec=codec, reads="logits")}
    record_ids(folder, teacher=Writes(), ids=np.arange(100, 140), keep=keep, **options)
    return LabelStore(folder), codec


ORDERS = [[103], [139, 100, 117], [105, 105, 110], list(range(100, 140)), [100, 120], []]
KINDS = [("dense", {}), ("int8", {}), ("top_k", {"k": 5}), ("top_p", {"k": 20}),
         ("sampled", {"draws": 30}), ("sampled", {"draws": 20, "exact": 4})]  # fmt: skip


@pytest.mark.parametrize(("kind", "parameters"), KINDS)
@pytest.mark.parametrize("views", [1, 3])
def test_every_codec_keeps_sequences_and_gives_any_rows_in_any_order(
    tmp_path, kind, parameters, views
):
    if kind not in codecs.CATALOGUE:
        pytest.skip("the codec is not there")
    store, _ = store_of(tmp_path / "store", kind, parameters, views=views)
    view = 0 if views == 1 else 2
    alone = {i: one(store, i, view) for i in range(100, 140)}
    for ids in ORDERS:
        wanted = torch.tensor(ids, dtype=torch.int64)
        found = store.read(wanted, torch.full_like(wanted, view))["logits"]
        assert found.lengths.tolist() == [length(i) for i in ids]
        start = 0
        for number in ids:
            rows = slice(start, start + length(number))
            same(found.values, rows, alone[number])
            start += length(number)


def one(store, number, view):
    return store.read(torch.tensor([number]), torch.tensor([view]))["logits"].values


def same(values, rows, expected):
    if isinstance(values, torch.Tensor):
        assert torch.equal(values[rows], expected)
        return
    dense = to_dense(values)[rows]
    torch.testing.assert_close(dense, to_dense(expected), atol=1e-6, rtol=1e-5)


def to_dense(outcomes: Outcomes):
    """Masses `[positions, classes]`: padding differs with what is read beside a row."""
    found = torch.zeros(len(outcomes), CLASSES)
    ids = outcomes.ids.clamp_min(0)
    return found.scatter_add(1, ids, outcomes.log_mass.exp() * (outcomes.ids >= 0))


def test_dense_sequences_come_back_as_they_were(tmp_path):
    store, _ = store_of(tmp_path / "store", "dense", {})
    found = store.read(torch.tensor([113, 101]))["logits"]
    expected = np.concatenate([sequence(113), sequence(101)])
    assert found.values.numpy().tobytes() == expected.tobytes()


def test_what_is_listed_is_known_without_reading_a_row(tmp_path):
    assert store_of(tmp_path / "a", "top_k", {"k": 5})[0].listed == {"logits"}
    assert store_of(tmp_path / "b", "int8", {})[0].listed == frozenset()


def test_k_larger_than_the_classes_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(StoreError, match=r"k.*300"):
        store_of(tmp_path / "store", "top_k", {"k": 300})
    assert not list((tmp_path / "store").glob("shard-*"))


def test_the_view_that_is_asked_for_is_the_one_that_is_read(tmp_path):
    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(11), views=4)
    store = LabelStore(tmp_path / "store")
    assert list(store.views) == [1, 2, 3, 4]
    ids, views = torch.tensor([3, 3, 9, 0]), torch.tensor([4, 1, 2, 3])
    found = store.read(ids, views)["logits"][:, 1]
    torch.testing.assert_close(found, (ids.double().cos() + views).float())


class TestBadRows:
    class Sick:
        """Has no finite answer for some rows."""

        offers = frozenset({"logits"})

        def __call__(self, batch):
            logits = torch.stack([batch.ids.float(), -batch.ids.float()], dim=1)
            logits[batch.ids == 7, 0] = torch.nan
            logits[batch.ids == 12, 1] = torch.inf
            return Knowledge(fields={"logits": logits})

    def test_they_are_an_error_that_names_them(self, tmp_path):
        with pytest.raises(StoreError, match=r"logits must be finite.*1 of 4.*ids 7.*skip"):
            record_ids(tmp_path / "store", teacher=self.Sick(), ids=np.arange(20))

    def test_they_are_left_out_where_that_is_wanted(self, tmp_path, content):
        folder = tmp_path / "store"
        manifest = record_ids(folder, teacher=self.Sick(), ids=np.arange(20), on_bad_rows="skip")
        store = LabelStore(folder)
        assert (manifest.rows, manifest.skipped) == (18, 2)
        assert sorted(set(range(20)) - set(store.ids().tolist())) == [7, 12]
        good = torch.tensor([11, 13, 6])
        assert torch.equal(store.read(good)["logits"][:, 0], good.float())
        with pytest.raises(StoreError, match="ids 7"):
            store.read(torch.tensor([6, 7]))

    def test_a_teacher_of_bad_rows_alone_leaves_nothing(self, tmp_path):
        with pytest.raises(StoreError, match="no row is left"):
            record_ids(
                tmp_path / "store", teacher=self.Sick(), ids=np.array([7]), on_bad_rows="skip"
            )


def test_a_shape_that_changes_is_refused(tmp_path):
    class Moody:
        offers = frozenset({"logits"})

        def __call__(self, batch):
            width = 2 if int(batch.ids[0]) < 8 else 3
            return Knowledge(fields={"logits": torch.zeros(len(batch), width)})

    for shard_rows in (8, 100):
        with pytest.raises(StoreError, match=r"must have one shape.*\[2\].*\[3\]"):
            record_ids(
                tmp_path / f"{shard_rows}", teacher=Moody(), ids=np.arange(16),
                shard_rows=shard_rows,
            )  # fmt: skip


def test_a_hidden_state_and_a_shared_head_give_the_logits(tmp_path):
    if "hidden" not in codecs.CATALOGUE:
        pytest.skip("the codec is not there")
    draw = np.random.default_rng(0)
    head = draw.standard_normal((CLASSES, 16)).astype(np.float32)
    states = draw.standard_normal((20, 16)).astype(np.float32)

    class Thinks:
        offers = frozenset({"hidden"})

        def __call__(self, batch):
            return Knowledge(fields={"hidden": torch.from_numpy(states[batch.ids.numpy()])})

    codec = codecs.make("hidden", {}, {"weight": head})
    keep = {"logits": Keep(codec=codec, reads="hidden")}
    record_ids(tmp_path / "store", teacher=Thinks(), ids=np.arange(20), keep=keep)
    store = LabelStore(tmp_path / "store")
    found = store.read(torch.tensor([5, 19, 0]))["logits"]
    torch.testing.assert_close(found, torch.from_numpy(states[[5, 19, 0]] @ head.T))
    store.verify()
    path = tmp_path / "store" / "constants-logits.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"constants-logits.safetensors is damaged"):
        LabelStore(tmp_path / "store").read(torch.tensor([1]))


def test_two_processes_may_read_what_one_of_them_opened(tmp_path):
    import pickle

    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(30))
    store = LabelStore(tmp_path / "store")
    store.read(torch.arange(3))
    other = pickle.loads(pickle.dumps(store))
    assert torch.equal(
        other.read(torch.arange(30))["logits"], store.read(torch.arange(30))["logits"]
    )


def test_batches_without_rows_are_no_rows():
    with pytest.raises(StoreError, match="no row to label"):
        record_ids(Path("nowhere"), teacher=FakeTeacher(), ids=np.arange(0))


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    from understudy.errors import RunError
    from understudy.folders import Lock

    with Lock(tmp_path / "store"), pytest.raises(RunError, match="held by process"):
        record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(8))


def test_rows_are_asked_for_in_batches_that_end_with_the_shard():
    from understudy.labels.portions import cut

    asked = []

    def batches(start, stop):
        asked.append((start, stop))
        return [Batch(inputs=torch.zeros(stop - start, 1))]

    portions = cut(batches, rows=50, batch_size=4, shard_rows=15)
    assert portions.rows == (16, 16, 16, 2)
    assert len(portions) == 4
    portions.batches(3)
    assert asked == [(48, 50)]


def test_an_index_that_leads_to_another_view_is_found_when_it_is_read(tmp_path):
    folder = tmp_path / "store"

    class SickOnce:
        offers = frozenset({"logits"})

        def __call__(self, batch):
            logits = torch.stack([batch.ids.float(), batch.views.float()], dim=1)
            logits[(batch.ids == 7) & (batch.views == 1)] = torch.nan
            return Knowledge(fields={"logits": logits})

    record_ids(folder, teacher=SickOnce(), ids=np.arange(20), views=2, on_bad_rows="skip")
    path = folder / "index.safetensors"
    content = path.read_bytes()
    rows = len(LabelStore(folder)._index.rows)
    table = np.frombuffer(content[-16 * rows :], np.int64).reshape(rows, 2).copy()
    table[3] = table[3, ::-1]
    path.write_bytes(content[: -16 * rows] + table.tobytes())
    store = LabelStore(folder)
    assert store.read(torch.tensor([4]), torch.tensor([2]))
    with pytest.raises(StoreError, match=r"index of .* is damaged"):
        store.read(torch.tensor([3]), torch.tensor([2]))
