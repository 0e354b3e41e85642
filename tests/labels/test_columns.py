"""A store as columns that other trainers read."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from labels.conftest import FakeTeacher, record_ids
from labels.test_ragged import Writes, length, sequence
from understudy.errors import StoreError
from understudy.labels import codecs, columns
from understudy.labels.columns import export_columns
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore


def keep(kind, **parameters):
    return {"logits": Keep(codec=codecs.make(kind, parameters, {}), reads="logits")}


def table_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_every_row_and_view_is_a_row_of_the_table(tmp_path, suffix):
    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(20), views=2,
               needs=("logits", "hidden"))  # fmt: skip
    store, path = LabelStore(tmp_path / "store"), tmp_path / f"out{suffix}"
    found = export_columns(store, path, rows=7)
    assert (found.rows, found.partial, found.skipped, found.left_out) == (40, 0, 0, 0)
    table = table_of(path)
    assert table.column_names == ["id", "view", "hidden", "logits"]
    ids, views = (torch.tensor(table[name].to_pylist()) for name in ("id", "view"))
    found = store.read(ids, views)
    np.testing.assert_array_equal(table["logits"].to_pylist(), found["logits"].numpy())
    np.testing.assert_array_equal(table["hidden"].to_pylist(), found["hidden"].numpy())


def test_listed_outcomes_are_three_columns_the_likeliest_first(tmp_path):
    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(6), keep=keep("top_k", k=2))
    export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.parquet")
    table = table_of(tmp_path / "out.parquet")
    assert table.column_names == ["id", "view", "logits_ids", "logits_logprobs", "logits_rest"]
    for number in range(6):
        logits = torch.tensor([np.sin(number), np.cos(number), float(number)])
        expected = logits.log_softmax(dim=0).sort(descending=True)
        row = {name: table[name][number].as_py() for name in table.column_names}
        assert row["logits_ids"] == expected.indices[:2].tolist()
        np.testing.assert_allclose(row["logits_logprobs"], expected.values[:2], atol=1e-6)
        np.testing.assert_allclose(row["logits_rest"], expected.values[2], atol=1e-6)


def test_sequences_are_lists_with_one_entry_per_position(tmp_path):
    record_ids(
        tmp_path / "store", teacher=Writes(), ids=np.arange(100, 108), keep=keep("top_k", k=3)
    )
    export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.parquet")
    table = table_of(tmp_path / "out.parquet")
    for row, number in enumerate(range(100, 108)):
        ids = table["logits_ids"][row].as_py()
        assert len(ids) == length(number) == len(table["logits_rest"][row].as_py())
        expected = np.argsort(-sequence(number), axis=1)[:, :3]
        np.testing.assert_array_equal(np.array(ids).reshape(-1, 3), expected)


def test_sampled_weights_sum_to_one(tmp_path):
    record_ids(tmp_path / "store", teacher=Writes(), ids=np.arange(101, 104),
               keep=keep("sampled", draws=9))  # fmt: skip
    export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.parquet")
    table = table_of(tmp_path / "out.parquet")
    for weights in table["logits_weights"].to_pylist():
        np.testing.assert_allclose([sum(one) for one in weights], 1, atol=1e-5)
    assert "logits_entropy" in table.column_names


class Silent(FakeTeacher):
    """Has no answer to some ids, to one of them in its second view only."""

    def __call__(self, batch):
        told = super().__call__(batch)
        bad = (batch.ids == 3) | (batch.ids == 7) | ((batch.ids == 11) & (batch.views == 2))
        told["logits"][bad] = torch.nan
        return told


def test_rows_that_are_left_out_are_counted(tmp_path):
    record_ids(tmp_path / "store", teacher=Silent(), ids=np.arange(20), views=2,
               on_bad_rows="skip")  # fmt: skip
    found = export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.parquet")
    # Ids 3 and 7 twice and 11 once were never stored; 11 in its first view is there alone.
    assert (found.rows, found.skipped, found.partial, found.left_out) == (34, 5, 1, 6)
    table = table_of(tmp_path / "out.parquet")
    assert table.num_rows == 34
    assert not {3, 7, 11} & set(table["id"].to_pylist())


def test_a_store_without_any_whole_id_is_refused(tmp_path):
    class Second(FakeTeacher):
        def __call__(self, batch):
            told = super().__call__(batch)
            told["logits"][(batch.views == 1) == (batch.ids > 5)] = torch.nan
            return told

    record_ids(tmp_path / "store", teacher=Second(), ids=np.arange(10), views=2,
               on_bad_rows="skip")  # fmt: skip
    with pytest.raises(StoreError, match=r"no id of .* has all its 2 views"):
        export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_another_kind_of_file_is_refused_and_nothing_is_written(tmp_path):
    record_ids(tmp_path / "store", teacher=FakeTeacher(), ids=np.arange(6))
    with pytest.raises(StoreError, match=r"ends in .parquet or .arrow, but got"):
        export_columns(LabelStore(tmp_path / "store"), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_large_rows_are_written_few_at_a_time(tmp_path, monkeypatch):
    record_ids(tmp_path / "store", teacher=Writes(), ids=np.arange(100, 160), keep=keep("dense"))
    store = LabelStore(tmp_path / "store")
    export_columns(store, tmp_path / "whole.parquet")
    most, asked, read = 500, [], store.read
    monkeypatch.setattr(columns, "AT_ONCE", most)
    monkeypatch.setattr(
        store, "read", lambda ids, views: asked.append(len(ids)) or read(ids, views)
    )
    export_columns(store, tmp_path / "parts.parquet")
    assert sum(asked) == 60
    assert asked[0] == columns.FIRST
    assert max(asked[1:]) < columns.FIRST
    assert table_of(tmp_path / "parts.parquet").equals(table_of(tmp_path / "whole.parquet"))
