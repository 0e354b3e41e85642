"""What earlier sessions of a teacher pass left: their seconds, and shards that are still whole."""

import copy
import os
import shutil
import time

import pytest
import yaml

from pipeline.conftest import SMALL, merged
from understudy import recipe as recipes
from understudy.folders import read_json, write_json
from understudy.labels.place import LocalPlace
from understudy.labels.store import LabelStore
from understudy.pipeline import earlier, run
from understudy.pipeline.earlier import Spent

SLEEP = 0.2
OPTIONS = {"shard_rows": 64, "batch_size": 64}


class StopsError(Exception):
    """A machine that goes away."""


@pytest.fixture
def slow(monkeypatch):
    """Every shard takes 0.2 seconds longer; the session ends before the so many-th, if told so."""
    original, left, written = LocalPlace.write, [None], []

    def write(self, file, pieces):
        if file.startswith("shard-"):
            if left[0] == 0:
                raise StopsError
            time.sleep(SLEEP)
            left[0] = None if left[0] is None else left[0] - 1
            written.append(file)
        original(self, file, pieces)

    monkeypatch.setattr(LocalPlace, "write", write)

    def stop(after):
        left[0] = after
        return written

    return stop


def spent(folder):
    return read_json(folder / "labels" / "stage.json")["summary"]["seconds"]


class TestSpent:
    def test_sessions_add_up_and_another_mark_counts_nothing(self, tmp_path):
        for _ in range(2):
            with Spent(tmp_path / "a.json", "m").session(anew=False):
                time.sleep(0.05)
        found = Spent(tmp_path / "a.json", "m").seconds
        assert 0.1 <= found < 5
        assert Spent(tmp_path / "a.json", "other").seconds == 0.0
        with Spent(tmp_path / "a.json", "m").session(anew=True):
            pass
        assert Spent(tmp_path / "a.json", "m").seconds < 0.05

    def test_a_session_notes_its_time_while_it_runs(self, tmp_path, monkeypatch):
        with Spent(tmp_path / "a.json", "m").session(anew=False) as now:
            now()
            assert not (tmp_path / "a.json").exists()
            monkeypatch.setattr(earlier, "EVERY", 0.0)
            time.sleep(0.02)
            now()
            assert Spent(tmp_path / "a.json", "m").seconds >= 0.02

    def test_a_session_that_fails_counts_and_its_error_goes_on(self, tmp_path):
        def fails():
            with Spent(tmp_path / "a.json", "m").session(anew=False):
                time.sleep(0.02)
                raise StopsError

        with pytest.raises(StopsError):
            fails()
        assert Spent(tmp_path / "a.json", "m").seconds >= 0.02

    @pytest.mark.parametrize(
        "content", ["", "[1]", '{"mark": "m"}', '{"mark": "m", "seconds": []}']
    )
    def test_a_file_that_says_nothing_counts_nothing(self, tmp_path, content):
        (tmp_path / "a.json").write_text(content)
        assert Spent(tmp_path / "a.json", "m").seconds == 0.0

    def test_a_note_that_cannot_be_written_is_still_known_here(self, tmp_path):
        held = Spent(tmp_path / "missing" / "a.json", "m")
        held.note(3.0)
        assert held.seconds == 3.0


def test_a_pass_that_was_stopped_counts_all_its_sessions(run_small, small, tmp_path, slow):
    data = small(labels=OPTIONS, seeds=1)
    written = slow(3)
    with pytest.raises(StopsError):
        run_small(data, until="labels")
    slow(None)
    run_small(data, until="labels")
    assert spent(tmp_path / "run") >= len(written) * SLEEP
    run_small(data, "whole", until="labels")
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "labels").iterdir()
         if p.name not in ("stage.json", ".lock")}
        for name in ("run", "whole")
    )  # fmt: skip
    assert first == second


def test_a_pass_that_begins_anew_forgets_the_other(run_small, small, tmp_path, slow):
    written = slow(3)
    with pytest.raises(StopsError):
        run_small(small(labels=OPTIONS, seeds=1), until="labels")
    note = tmp_path / "run" / ".work" / "teacher-pass.json"
    write_json(note, read_json(note) | {"seconds": 1000.0})
    slow(None)
    written.clear()
    run_small(small(labels=OPTIONS | {"shard_rows": 128}, seeds=1), until="labels")
    assert len(written) * SLEEP <= spent(tmp_path / "run") < 1000


def test_a_shared_store_counts_for_the_run_that_made_it_at_any_time(
    run_small, small, tmp_path, slow
):
    data = small(labels=OPTIONS | {"store": "shared"}, seeds=1)
    written = slow(3)
    with pytest.raises(StopsError):
        run_small(data, until="labels")
    slow(None)
    run_small(data, until="labels")
    for _ in range(2):  # the second time another stage is done again, and the record with it
        found = run_small(data).data["models"]["student"]["seconds"]["teacher_pass"]
        assert found >= len(written) * SLEEP
        data["evaluate"]["draws"] = 300


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run up to its labels, for tests to copy."""
    folder = tmp_path_factory.mktemp("labelled") / "run"
    data = merged(SMALL, {"labels": OPTIONS, "seeds": 1})
    recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml")
    run(recipe, place=place, out=folder, until="labels")
    return data, folder


class TestTakingOver:
    """A finished stage that has lost a file, as the errors about damaged shards tell people to."""

    @pytest.fixture
    def done(self, labelled, tmp_path, slow):
        data, folder = copy.deepcopy(labelled[0]), tmp_path / "run" / "labels"
        shutil.copytree(labelled[1], folder.parent)
        whole = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
        return data, folder, whole, slow(None)

    @pytest.mark.parametrize("harm", ["missing", "short"])
    @pytest.mark.parametrize("links", [True, False])
    def test_a_shard_alone_is_remade(self, run_small, done, monkeypatch, harm, links):
        data, folder, whole, written = done
        before = spent(folder.parent)
        path = folder / "shard-00002.safetensors"
        if harm == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        if not links:

            def refuse(*_):
                raise OSError("this file system has no links")

            monkeypatch.setattr(os, "link", refuse)
        run_small(data, until="labels")
        assert written == ["shard-00002.safetensors"]
        assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == whole
        assert spent(folder.parent) >= before + SLEEP
        LabelStore(folder).verify()

    def test_an_index_alone_is_remade(self, run_small, done):
        data, folder, whole, written = done
        (folder / "index.safetensors").unlink()
        run_small(data, until="labels")
        assert written == []
        assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == whole

    def test_nothing_is_kept_of_labels_of_something_else(self, run_small, done):
        data, folder, whole, written = done
        (folder / "shard-00002.safetensors").unlink()
        data["labels"]["codec"] = {"kind": "int8"}
        run_small(data, until="labels")
        assert len(written) == len(LabelStore(folder).manifest.shards) == len(whole) - 1

    def test_one_that_is_killed_half_way_goes_on(self, run_small, done, monkeypatch):
        data, folder, whole, written = done
        (folder / "shard-00002.safetensors").unlink()
        link, left = os.link, [2]

        def some(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise StopsError
            link(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", some)
            with pytest.raises(StopsError):
                run_small(data, until="labels")
        run_small(data, until="labels")
        assert written == ["shard-00002.safetensors"]
        assert {p.name: p.read_bytes() for p in folder.glob("*.safetensors")} == whole
