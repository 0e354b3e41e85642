"""Recording: what is asked, what is written, and that going on asks for nothing twice."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from understudy import folders
from understudy.contracts import Batch, Knowledge
from understudy.errors import RunError, StoreError
from understudy.labels.store import LabelStore
from understudy.teachers.torch_module import TorchTeacher

ROWS = 30


def test_every_row_is_asked_once_and_in_order(write, fake_teacher, tmp_path):
    manifest = write(teacher=fake_teacher)
    assert fake_teacher.asked == [4] * 7 + [2]
    assert [shard.rows for shard in manifest.shards] == [8, 8, 8, 6]
    assert manifest.complete
    store = LabelStore(tmp_path / "store")
    assert torch.equal(store.read(torch.arange(ROWS))["logits"][:, 2], torch.arange(30.0))


def test_only_what_is_needed_is_kept(write, tmp_path):
    write(needs=("hidden",))
    store = LabelStore(tmp_path / "store")
    assert store.offers == {"hidden"}
    assert store.read(torch.tensor([7]))["hidden"].shape == (1, 2, 3)


def test_the_manifest_says_what_the_labels_are_a_function_of(write, tmp_path):
    write()
    data = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert data["fingerprints"] == {"teacher": "aaaa", "data": "bbbb", "views": "none"}
    assert data["fields"] == {"logits": {
        "codec": "dense", "parameters": {"precision": "float32"}, "shape": [3], "ragged": False,
        "constants": None,
    }}  # fmt: skip
    assert data["rows"] == ROWS
    assert data["temperature"] == 1


def test_progress_counts_rows_those_of_an_earlier_run_included(write, tmp_path):
    seen = []
    write(on_rows=seen.append)
    assert seen == [0, 8, 16, 24, 30]
    seen.clear()
    write(on_rows=seen.append)
    assert seen == [30]


@pytest.mark.parametrize(("size", "shard_rows", "expected"), [
    (4, 10, [12, 12, 6]), (16, 4, [16, 14]), (30, 30, [30]), (7, 100, [30]), (1, 29, [29, 1]),
])  # fmt: skip
def test_a_shard_ends_with_a_batch(write, size, shard_rows, expected):
    """So that whoever goes on asks for the very same batches."""
    assert [s.rows for s in write(size=size, shard_rows=shard_rows).shards] == expected


def test_any_integer_type_and_order_of_ids_is_kept(write, tmp_path):
    ids = np.random.default_rng(0).permutation(1000)[:ROWS].astype(np.int32)
    write(ids=ids)
    store = LabelStore(tmp_path / "store")
    found = store.read(torch.from_numpy(np.sort(ids).astype(np.int64)))["logits"][:, 2]
    np.testing.assert_array_equal(found, np.sort(ids))


def test_half_precision_answers_are_kept_in_float32(write, tmp_path):
    class Half:
        offers = frozenset({"logits"})

        def __call__(self, batch):
            return Knowledge(fields={"logits": batch.ids[:, None].bfloat16() / 3})

    write(teacher=Half())
    found = LabelStore(tmp_path / "store").read(torch.arange(ROWS))["logits"]
    assert torch.equal(found, (torch.arange(ROWS)[:, None].bfloat16() / 3).float())


# --- what is refused -----------------------------------------------------------------------------


def test_rows_without_ids_are_refused(write):
    with pytest.raises(StoreError, match="stored by example id, but these rows have none"):
        write(batches=lambda start, stop: [Batch(inputs=torch.zeros(2, 1))])


def test_an_id_that_stands_for_two_rows_is_refused_and_named(write, tmp_path):
    ids = np.arange(ROWS)
    ids[[3, 20]] = 17
    for _ in range(2):  # also when it goes on
        with pytest.raises(StoreError, match=r"1 ids came more than once \(ids 17\)"):
            write(ids=ids)
        with pytest.raises(StoreError, match="not finished"):
            LabelStore(tmp_path / "store")


def test_a_store_of_no_rows_is_refused(write):
    with pytest.raises(StoreError, match="no row to label"):
        write(ids=np.arange(0))


def test_knowledge_that_the_teacher_does_not_give_is_named(write):
    from understudy.errors import ModelError

    with pytest.raises(ModelError, match="`attention` is not there; there is: hidden, logits"):
        write(needs=("attention",))


# --- going on ------------------------------------------------------------------------------------


class BreaksError(Exception):
    """A teacher that stops answering."""


def breaking(teacher, after):
    class Breaks:
        offers = teacher.offers

        def __call__(self, batch):
            if len(teacher.asked) == after:
                raise BreaksError
            return teacher(batch)

    return Breaks()


@pytest.mark.parametrize("after", range(8))
def test_what_was_written_is_not_asked_again_and_the_bytes_are_the_same(
    write, fake_teacher, tmp_path, content, after
):
    write(tmp_path / "whole", needs=("logits", "hidden"))
    with pytest.raises(BreaksError):
        write(teacher=breaking(fake_teacher, after), needs=("logits", "hidden"))
    if after >= 2:
        with pytest.raises(StoreError, match="not finished"):
            LabelStore(tmp_path / "store")
    fake_teacher.asked.clear()
    write(teacher=fake_teacher, needs=("logits", "hidden"))
    assert sum(fake_teacher.asked) == ROWS - after // 2 * 8
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_real_network_is_asked_for_the_same_batches_again(write, tmp_path, content):
    """Its last digits may depend on the size of the batch, so the sizes must be the same."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10))
    rows = torch.randn(ROWS, 64)

    class Sees:
        def __init__(self, stop=None):
            self.inner, self.stop, self.sizes = TorchTeacher(network, output="logits"), stop, []

        offers = frozenset({"logits"})

        def __call__(self, batch):
            if len(self.sizes) == self.stop:
                raise BreaksError
            self.sizes.append(batch.ids.tolist())
            return self.inner(Batch(inputs=rows[batch.ids], ids=batch.ids))

    whole, first, rest = Sees(), Sees(stop=5), Sees()
    write(tmp_path / "whole", teacher=whole, size=5, shard_rows=8)
    with pytest.raises(BreaksError):
        write(teacher=first, size=5, shard_rows=8)
    write(teacher=rest, size=5, shard_rows=8)
    assert first.sizes[:4] + rest.sizes == whole.sizes
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_finished_store_is_left_alone(write, fake_teacher, tmp_path):
    write()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("shard-*")}
    write(teacher=fake_teacher)
    assert not fake_teacher.asked
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store").glob("shard-*")} == before


@pytest.mark.parametrize("harm", ["missing", "short", "flipped"])
def test_a_damaged_shard_alone_is_made_again(write, fake_teacher, tmp_path, content, harm):
    write()
    expected = content(tmp_path / "store")
    path = tmp_path / "store" / "shard-00002.safetensors"
    whole = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if harm == "short" else whole[:-1] + b"?")
    write(teacher=fake_teacher)
    assert sum(fake_teacher.asked) == 8
    assert content(tmp_path / "store") == expected


def test_what_a_killed_writer_left_is_swept_away(write, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / ".shard-00000.safetensors.4711.part").write_bytes(b"half")
    write()
    assert {path.name for path in store.glob(".*")} == {".lock"}


# --- a disk that is full -------------------------------------------------------------------------


def test_a_full_disk_says_so_and_what_was_written_is_gone_on_from(
    write, fake_teacher, tmp_path, content, monkeypatch
):
    write(tmp_path / "whole")
    room = {"left": 5}

    def sync(descriptor):
        room["left"] -= 1
        if room["left"] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "fsync", sync)
        with pytest.raises(RunError, match=r"disk is full.*written before is whole.*goes on"):
            write(teacher=fake_teacher)
    assert {path.name for path in (tmp_path / "store").glob(".*")} == {".lock"}
    before = len(fake_teacher.asked)
    write(teacher=fake_teacher)
    assert len(fake_teacher.asked) - before < before + 8
    assert content(tmp_path / "store") == content(tmp_path / "whole")


@contextmanager
def files_of_at_most(size):
    """A limit of the operating system; the signal that comes with it is not waited for."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_may_not_grow_is_an_error_in_the_middle_of_a_shard(write, tmp_path, content):
    ids = np.arange(4000)
    write(tmp_path / "whole", ids=ids, size=500, shard_rows=1500)
    with files_of_at_most(20_000), pytest.raises(RunError, match="disk is full"):
        write(ids=ids, size=500, shard_rows=1500)
    assert not list((tmp_path / "store").glob("shard-*"))
    write(ids=ids, size=500, shard_rows=1500)
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def mounted(folder, size):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is made with tmpfs")
def test_a_disk_that_is_really_full_in_the_middle_of_a_shard(
    write, fake_teacher, tmp_path, content
):
    small = tmp_path / "small"
    if not mounted(small, "96k"):
        pytest.skip("this user may not mount a small disk")
    try:
        ids = np.arange(6000)
        write(tmp_path / "whole", ids=ids, size=500, shard_rows=1000)
        store = small / "store"
        with pytest.raises(RunError, match="disk is full"):
            write(store, ids=ids, size=500, shard_rows=1000, teacher=fake_teacher)
        expected, kept = content(tmp_path / "whole"), content(store)
        shards = [name for name in kept if name != "manifest.json"]
        assert 1 <= len(shards) < 6
        assert all(kept[name] == expected[name] for name in shards)
        with pytest.raises(StoreError, match="not finished"):
            LabelStore(store)
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        write(store, ids=ids, size=500, shard_rows=1000, teacher=fake_teacher)
        assert sum(fake_teacher.asked) <= 6000 + 2 * 1000  # a shard or two were asked for twice
        assert content(store) == expected
    finally:
        subprocess.run(["umount", str(small)], check=True)
