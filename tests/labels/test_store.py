"""A label store: the laws, then what is refused when it is opened or read."""

import json
import pickle

import numpy as np
import pytest
import torch

from conformance.store import StoreCase, StoreLaws
from labels.conftest import FakeTeacher, record_ids
from understudy.contracts import Batch, Knowledge
from understudy.errors import RunError, StoreError
from understudy.labels.codecs import Dense, Hidden
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore, read_manifest


def write_store(folder, ids, fields, fingerprints):
    class Says:
        offers = frozenset(fields)

        def __call__(self, batch):
            at = [int(np.flatnonzero(ids == i)[0]) for i in batch.ids]
            return Knowledge(fields={n: torch.from_numpy(v[at]) for n, v in fields.items()})

    return record_ids(folder, teacher=Says(), ids=ids, needs=fields, fingerprints=fingerprints)


class TestLabelStore(StoreLaws):
    @pytest.fixture
    def case(self):
        return StoreCase(write=write_store, open=LabelStore)


@pytest.fixture
def folder(write, tmp_path):
    """A store of 30 rows in four shards."""
    write(needs=("logits", "hidden"))
    return tmp_path / "store"


def changed_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_whole_store_is_verified(folder):
    store = LabelStore(folder)
    store.verify()
    assert len(store) == 30


def test_a_folder_that_is_no_store_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"is no label store: it has no manifest.json"):
        LabelStore(tmp_path)


def test_an_unfinished_store_is_refused_with_the_remedy(folder):
    changed_manifest(folder, complete=False)
    with pytest.raises(StoreError, match="is not finished: run the same command again"):
        LabelStore(folder)


def test_a_missing_shard_is_named(folder):
    (folder / "shard-00002.safetensors").unlink()
    with pytest.raises(StoreError, match=r"shard-00002.safetensors is missing.*labels again"):
        LabelStore(folder).verify()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_shard_that_was_cut_off_is_named_with_both_sizes(folder, share):
    path = folder / "shard-00001.safetensors"
    whole = path.read_bytes()
    kept = int(share * len(whole))
    path.write_bytes(whole[:kept])
    with pytest.raises(StoreError, match=rf"has {kept} bytes instead of {len(whole)}"):
        LabelStore(folder).verify()


def test_a_shard_that_is_cut_off_after_opening_is_found_too(folder):
    store = LabelStore(folder)
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="bytes instead of"):
        store.read(torch.arange(30))


@pytest.mark.parametrize("position", [0, 9, 60, -1, -100])
def test_one_flipped_bit_is_found_before_it_teaches(folder, position):
    flip(folder / "shard-00003.safetensors", position)
    with pytest.raises(StoreError, match=r"shard-00003.safetensors is damaged.*Delete this file"):
        LabelStore(folder).verify()
    with pytest.raises(StoreError, match="damaged"):
        LabelStore(folder).read(torch.tensor([29]))


def test_the_labels_of_another_teacher_or_of_other_data_are_refused(folder):
    with pytest.raises(StoreError) as error:
        LabelStore(folder, expect={"teacher": "cccc", "data": "bbbb", "views": "other"})
    text = str(error.value)
    assert "teacher: the store has aaaa, this run cccc" in text
    assert "views: the store has none, this run other" in text
    assert "data:" not in text


def test_a_later_version_is_refused_with_both_numbers(folder):
    changed_manifest(folder, version=3)
    with pytest.raises(StoreError, match="has version 3, but this Understudy reads version 2"):
        LabelStore(folder)


def test_another_format_is_refused(folder):
    changed_manifest(folder, format="parquet")
    with pytest.raises(StoreError, match="must say format 'understudy-labels', but says 'parquet'"):
        LabelStore(folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_a_manifest_that_is_no_mapping_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match="must say format"):
        LabelStore(folder)


@pytest.mark.parametrize("broken", [
    {"shards": None}, {"shards": [{}]}, {"shards": [{"file": "a"}]}, {"shards": [3]},
])  # fmt: skip
def test_a_manifest_that_lacks_something_is_refused(folder, broken):
    changed_manifest(folder, **broken)
    with pytest.raises(StoreError, match="is not as it was written"):
        LabelStore(folder)


def test_a_manifest_without_fields_is_refused(folder):
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    del data["fields"]
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError, match=r"is not as it was written \('fields'\)"):
        read_manifest(folder)


def test_a_manifest_that_is_half_written_is_refused(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(RunError, match="cannot be read"):
        LabelStore(folder)


def test_views_other_than_0_are_refused(folder):
    store = LabelStore(folder)
    ids = torch.tensor([3, 4])
    assert len(store.read(ids, torch.tensor([0, 0]))["logits"]) == 2
    with pytest.raises(StoreError, match="holds view 0 of each row, but another view"):
        store.read(ids, torch.tensor([0, 1]))


def test_a_state_is_read_with_its_head_or_without(write, tmp_path):
    head = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    keep = {
        "logits": Keep(codec=Hidden(weight=head, precision="float16"), reads="logits"),
        "hidden": Keep(codec=Dense(), reads="hidden"),
    }
    write(keep=keep)
    plain, bare = LabelStore(tmp_path / "store"), LabelStore(tmp_path / "store", states=True)
    assert plain.offers == {"logits", "hidden"}
    assert bare.offers == {"states", "hidden"}
    ids = torch.tensor([29, 3, 3, 17])
    told = pickle.loads(pickle.dumps(bare)).read(ids)  # as a worker gets it
    exact = FakeTeacher()(Batch(inputs=torch.zeros(4, 1), ids=ids))
    assert torch.equal(told["states"], exact["logits"].half().float())
    logits = told["states"] @ torch.from_numpy(head).T
    torch.testing.assert_close(plain.read(ids)["logits"], logits)
    assert torch.equal(told["hidden"], exact["hidden"].float())


def test_no_more_files_are_held_open_than_there_are_shards(write, tmp_path):
    from pathlib import Path

    def held():
        maps = Path("/proc/self/map_files")
        return sum(str(tmp_path) in str(link.readlink()) for link in maps.iterdir())

    write(needs=("logits", "hidden"), shard_rows=4)
    store = LabelStore(tmp_path / "store")
    store.verify()
    assert held() <= 8
    assert len(store.read(torch.arange(30))["hidden"]) == 30


def test_ids_and_views_that_do_not_belong_together_are_refused(folder):
    store = LabelStore(str(folder))
    for ids, views in (([[0]], None), (0, None), ([0, 1], [0])):
        with pytest.raises(StoreError, match="give one view for each id"):
            store.read(torch.tensor(ids), None if views is None else torch.tensor(views))


def test_answers_at_another_temperature_are_refused(folder):
    changed_manifest(folder, temperature=4)
    with pytest.raises(StoreError, match="at temperature 1, but says 4"):
        LabelStore(folder)
