"""A store outside the run's folder: shared, gone on with, brought here, and never replaced."""

import json

import numpy as np
import pytest

from pipeline.conftest import merged
from pipeline.test_labelling import IMAGES
from understudy.errors import StoreError
from understudy.folders import write_atomic
from understudy.labels.files import map_tensors, open_header, to_pieces
from understudy.labels.place import LocalPlace
from understudy.labels.remote_place import RemotePlace
from understudy.labels.store import LabelStore
from understudy.pipeline import shared_store


def test_it_is_made_once_and_shared(run_small, small, tmp_path):
    data = small(labels={"store": "shared-labels"}, seeds=1)
    run_small(data, "first", until="labels")
    shard = tmp_path / "shared-labels" / "shard-00000.safetensors"
    before = shard.stat().st_mtime_ns
    record = run_small(data, "second")
    assert shard.stat().st_mtime_ns == before
    assert record.data["models"]["student"]["seconds"]["teacher_pass"] == 0.0


def test_another_codec_is_refused_with_both(run_small, small):
    run_small(small(labels={"store": "shared-labels"}, seeds=1), "first", until="labels")
    other = {"store": "shared-labels", "codec": {"kind": "int8"}}
    with pytest.raises(StoreError, match=r"logits: the store has codec dense.*codec int8"):
        run_small(small(labels=other, seeds=1), "second")


def test_a_shard_that_was_deleted_is_remade_and_nothing_else(run_small, small, tmp_path):
    data = small(labels={"store": "shared-labels", "shard_rows": 64}, seeds=1)
    run_small(data, "first", until="labels")
    folder = tmp_path / "shared-labels"
    whole = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    kept = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    (folder / "shard-00001.safetensors").unlink()
    run_small(data, "second", until="export")
    assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == whole
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == kept


def test_files_of_somebody_else_in_its_folder_stay(run_small, small, tmp_path):
    folder = tmp_path / "shared-labels"
    (folder / "deep").mkdir(parents=True)
    others = [folder / "my-model.safetensors", folder / "deep" / ".film.mkv.part"]
    for path in others:
        path.write_bytes(b"precious")
    run_small(small(labels={"store": "shared-labels"}, seeds=1), until="labels")
    assert all(path.read_bytes() == b"precious" for path in others)


def test_one_behind_a_url_is_written_there_and_read_here(run_small, small, tmp_path):
    url = f"file://{tmp_path}/bucket/labels"
    data = small(labels={"store": url}, seeds=1)
    run_small(data, "first", until="labels")
    shard = tmp_path / "bucket" / "labels" / "shard-00000.safetensors"
    before = shard.stat().st_mtime_ns
    run_small(data, "second", until="export")
    assert shard.stat().st_mtime_ns == before
    there = LabelStore(tmp_path / "second" / "labels")
    assert there.manifest == LabelStore(shard.parent).manifest
    with pytest.raises(StoreError, match="data: the store has"):
        run_small(small(labels={"store": url}, data={"seed": 9}), "third")


@pytest.mark.parametrize(("change", "what"), [
    ({"teacher": {"training": {"epochs": 5}}}, "teacher"),
    ({"data": {"seed": 5}}, "data"),
])  # fmt: skip
def test_one_of_something_else_is_refused_and_stays(run_small, small, tmp_path, change, what):
    data = small(labels={"store": "shared-labels"}, seeds=1)
    run_small(data, "first", until="labels")
    kept = (tmp_path / "shared-labels" / "manifest.json").read_bytes()
    with pytest.raises(StoreError, match=rf"made for something else.*{what}: the store has"):
        run_small(small(labels={"store": "shared-labels"}, seeds=1, **change), "second")
    assert (tmp_path / "shared-labels" / "manifest.json").read_bytes() == kept


def test_other_views_or_another_view_seed_are_another_store(run_small, small):
    data = small(**IMAGES, labels={"store": "shared-labels", "views": 1})
    run_small(data, "first", until="labels")
    data["data"]["views"][0]["padding"] = 2
    with pytest.raises(StoreError, match="views: the store has"):
        run_small(data, "second", until="labels")


# --- one that is not finished --------------------------------------------------------------------


class StopsError(Exception):
    """A machine that goes away."""


@pytest.fixture
def stopped(run_small, monkeypatch):
    """Label in a run whose process ends at its so many-th shard."""

    def start(data, folder, *, after):
        original, left = LocalPlace.write, [after]

        def write(self, file, pieces):
            if file.startswith("shard-"):
                left[0] -= 1
                if left[0] < 0:
                    raise StopsError
            original(self, file, pieces)

        with monkeypatch.context() as patch:
            patch.setattr(LocalPlace, "write", write)
            with pytest.raises(StopsError):
                run_small(data, folder, until="labels")

    return start


SHARED = {"store": "shared-labels", "shard_rows": 64, "batch_size": 64}


@pytest.mark.parametrize(("change", "law"), [
    ({"data": {"seed": 5}}, "data: the store has"),
    ({"labels": {"codec": {"kind": "int8"}}}, "the store has codec dense.*codec int8"),
    ({"labels": {"shard_rows": 128}}, r"plan: the store has \w{16}, this run \w{16}.*shard_rows"),
])  # fmt: skip
def test_one_that_somebody_began_is_refused_and_stays(
    run_small, small, tmp_path, stopped, change, law
):
    data = small(labels=SHARED, seeds=1)
    stopped(data, "first", after=2)
    folder = tmp_path / "shared-labels"
    before = {p.name: p.read_bytes() for p in folder.glob("*.*")}
    assert "shard-00001.safetensors" in before
    with pytest.raises(StoreError, match=law):
        run_small(merged(data, change), "second", until="labels")
    assert {p.name: p.read_bytes() for p in folder.glob("*.*")} == before


def test_one_of_the_same_plan_is_gone_on_with_by_another_run(run_small, small, tmp_path, stopped):
    data = small(labels=SHARED, seeds=1)
    stopped(data, "first", after=2)
    kept = (tmp_path / "shared-labels" / "shard-00001.safetensors").stat().st_mtime_ns
    run_small(data, "second", until="labels")
    store = LabelStore(tmp_path / "shared-labels")
    store.verify()
    assert (store.folder / "shard-00001.safetensors").stat().st_mtime_ns == kept


def test_one_that_is_empty_is_begun_anew(run_small, small, tmp_path, stopped):
    stopped(small(labels=SHARED, seeds=1), "first", after=0)
    assert not list((tmp_path / "shared-labels").glob("shard-*"))
    run_small(small(labels=SHARED, seeds=1, data={"seed": 5}), "second", until="labels")
    LabelStore(tmp_path / "shared-labels").verify()


@pytest.mark.parametrize("name", ["index.safetensors", "shard-00001.safetensors"])
def test_a_file_that_is_missing_is_remade(run_small, small, tmp_path, name):
    data = small(labels=SHARED, seeds=1)
    run_small(data, "first", until="labels")
    path = tmp_path / "shared-labels" / name
    content = path.read_bytes()
    path.unlink()
    run_small(data, "second", until="labels")
    assert path.read_bytes() == content


# --- the copy of one behind a URL ----------------------------------------------------------------


@pytest.fixture
def fetched(run_small, small, tmp_path, monkeypatch):
    """A run whose store lies behind a URL; the names of the files that later runs copy from it."""
    data = small(labels=SHARED | {"store": f"file://{tmp_path}/bucket/labels"}, seeds=1)
    run_small(data, until="labels")
    names, original = [], RemotePlace.copy

    def copy(self, file, path):
        names.append(file)
        original(self, file, path)

    monkeypatch.setattr(RemotePlace, "copy", copy)
    return data, names


def test_it_is_not_fetched_again(run_small, fetched, tmp_path, monkeypatch):
    data, names = fetched
    calls = []
    monkeypatch.setattr(shared_store, "fetch", lambda *_: calls.append(1))
    run_small(data, until="labels")
    assert (names, calls) == ([], [])


def test_a_file_that_the_copy_lacks_is_fetched_alone(run_small, fetched, tmp_path):
    data, names = fetched
    (tmp_path / "run" / "labels" / "shard-00002.safetensors").unlink()
    run_small(data, until="labels")
    assert [name for name in names if name != "manifest.json"] == ["shard-00002.safetensors"]
    LabelStore(tmp_path / "run" / "labels").verify()


@pytest.mark.parametrize("change", [{"plan": "of another"}, {"version": 1}, {"complete": False}])
def test_a_copy_with_another_manifest_is_fetched(run_small, fetched, tmp_path, change):
    data, names = fetched
    manifest = tmp_path / "run" / "labels" / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_text(json.dumps(json.loads(content) | change))
    run_small(data, until="labels")
    assert "manifest.json" in names
    assert manifest.read_bytes() == content


def test_one_remade_in_other_last_digits_and_then_killed_is_finished(
    run_small, small, tmp_path, monkeypatch
):
    """The manifest says what the shard was before: whoever comes next writes what it is."""
    data = small(labels={"store": "shared-labels", "shard_rows": 64}, seeds=1)
    run_small(data, "first", until="labels")
    path = tmp_path / "shared-labels" / "shard-00001.safetensors"
    header = open_header(path)
    tensors = {name: np.array(part) for name, part in map_tensors(path, header).items()}
    tensors["logits:values"][0] += 1e-6
    write_atomic(path, to_pieces(tensors, dict(header.says)))
    run_small(data, "second", until="export")
    LabelStore(path.parent).verify()
