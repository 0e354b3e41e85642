"""A store behind a URL: the same files as in a folder, and a whole copy of it here.

`memory://` stands for a file system that is none of this machine's, `file://` for one that is.
"""

import errno
import json
import os
import pickle

import fsspec
import numpy as np
import pytest
import torch

from labels.conftest import batches_of
from understudy.contracts import Knowledge
from understudy.errors import RunError, StoreError
from understudy.labels import codecs, remote_place
from understudy.labels.place import LocalPlace, Place, header_at
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.remote_place import RemotePlace, fetch, open_place
from understudy.labels.store import LabelStore

ROWS = 30


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/far/store"
        return
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield "memory://far/store"
    memory.store.clear()


@pytest.fixture
def place(url):
    return RemotePlace(url)


@pytest.fixture
def label(fake_teacher):
    """Record 30 rows into a place, whole or until the teacher has been asked so often."""

    def label(place, *, stop=None, width=None):
        portions = cut(batches_of(np.arange(ROWS), 4), rows=ROWS, batch_size=4, shard_rows=8)
        keep = Keep(codec=codecs.make("dense", {}, {}), reads="logits")
        teacher = Wide(width) if width else fake_teacher
        record(
            engine=Stopped(Serial(teacher, portions), stop), rows=portions.rows,
            keep={"logits": keep}, place=place, fingerprints={"teacher": "aaaa"},
        )  # fmt: skip

    return label


class Wide:
    """Says the id, many times."""

    offers = frozenset({"logits"})

    def __init__(self, width):
        self.width = width

    def __call__(self, batch):
        said = batch.ids.to(torch.float32)[:, None].expand(-1, self.width)
        return Knowledge(fields={"logits": said})


class Stopped:
    """An engine that ends before its work does."""

    def __init__(self, engine, stop):
        self.engine, self.stop = engine, stop

    def __call__(self, numbers, **rest):
        self.engine(numbers[: self.stop], **rest)
        if self.stop is not None:
            raise KeyboardInterrupt


def everything(place):
    found = {}
    for name in set(place.files()) - {".lock"}:
        with place.open(name) as file:
            found[name] = file.read()
    return found


def change(place, name, how):
    """Change the bytes of a file."""
    with place.open(name) as file:
        content = file.read()
    place.write(name, [how(content)])


def flip_last(content):
    return content[:-1] + bytes([content[-1] ^ 1])


# --- a place -------------------------------------------------------------------------------------


def test_files_are_written_listed_sized_read_and_removed(place):
    assert isinstance(place, Place)
    assert place.files() == []
    place.write("b.bin", [b"12", memoryview(b"345")])
    place.write("a.bin", [])
    assert place.files() == ["a.bin", "b.bin"]
    assert (place.size("a.bin"), place.size("b.bin")) == (0, 5)
    with place.open("b.bin") as file:
        file.seek(3)
        assert file.read() == b"45"
    place.write("b.bin", [b"new"])
    assert everything(place) == {"a.bin": b"", "b.bin": b"new"}
    place.remove("b.bin")
    place.remove("b.bin")
    assert place.files() == ["a.bin"]


def test_a_folder_comes_with_its_first_file_only(place, tmp_path):
    assert place.files() == []
    place.sweep()
    place.remove("a.bin")
    assert not (tmp_path / "far").exists()


def test_what_is_not_there_is_named_with_its_url(place, url, tmp_path):
    def read(file):
        return place.open(file).read(1)

    for ask in (place.size, read, lambda file: place.copy(file, tmp_path / "here")):
        with pytest.raises(StoreError, match=rf"{url.split('://')[1]}/c.bin is missing"):
            ask("c.bin")


def test_it_travels_to_another_process(url):
    place = pickle.loads(pickle.dumps(RemotePlace(url)))
    place.write("a.bin", [b"1"])
    assert RemotePlace(url).files() == ["a.bin"]
    assert place.name == RemotePlace(url).name


def test_a_relative_file_url_is_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = RemotePlace("file://store")
    monkeypatch.chdir("/")
    pickle.loads(pickle.dumps(place)).write("a.bin", [b"1"])
    assert (tmp_path / "store" / "a.bin").read_bytes() == b"1"


def broken(monkeypatch, place, name, error, after=0):
    """Let one call of a file system fail."""
    original, left = getattr(place._system, name), [after]

    def fails(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(place._system, name, fails)


@pytest.mark.parametrize("name", ["open", "mv", "makedirs"])
@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), RuntimeError("no credentials"),
])  # fmt: skip
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(monkeypatch, place, name, error):
    with monkeypatch.context() as patch:
        broken(patch, place, name, error)
        with pytest.raises(RunError, match=r"a.bin cannot be written \(.*check the address"):
            place.write("a.bin", [b"12", b"345"])
        assert place._names() == []
    place.write("a.bin", [b"12"])
    assert everything(place) == {"a.bin": b"12"}


def test_a_file_that_cannot_be_replaced_stays_as_it_was(monkeypatch, place):
    place.write("a.bin", [b"old"])
    with monkeypatch.context() as patch:
        broken(patch, place, "mv", PermissionError("not yours"))
        with pytest.raises(RunError, match="not yours"):
            place.write("a.bin", [b"new"])
    assert everything(place) == {"a.bin": b"old"}


def test_a_connection_that_fails_is_told(monkeypatch, place):
    place.write("a.bin", [b"1"])
    for call, name in ((place.files, "ls"), (lambda: place.size("a.bin"), "info")):
        with monkeypatch.context() as patch:
            broken(patch, place, name, ConnectionError("the host is unreachable"))
            with pytest.raises(RunError, match=r"cannot be read \(the host is unreachable\)"):
                call()


def test_what_killed_writers_left_is_no_file_and_can_be_swept_away(place):
    place.write("a.bin", [b"1"])
    place._system.pipe_file(place._path(".a.bin.0123.part"), b"half")
    assert place.files() == ["a.bin"]
    place.sweep()
    assert place._names() == ["a.bin"]


@pytest.mark.parametrize(("url", "law"), [
    ("s3x://bucket/labels", "s3x://bucket/labels cannot be opened: Protocol not known: s3x"),
    ("memory://labels-[1]", r"names one folder, but memory://labels-\[1\] has"),
    ("memory://labels*", "rename the folder"),
])  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused(url, law):
    with pytest.raises(StoreError, match=law):
        RemotePlace(url)


def test_a_library_that_is_missing_is_named(monkeypatch):
    def missing(name):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "get_filesystem_class", missing)
    with pytest.raises(StoreError, match="s3://labels cannot be opened: Install s3fs to access S3"):
        RemotePlace("s3://labels")


def test_an_address_is_a_path_or_a_url(tmp_path):
    assert isinstance(open_place(str(tmp_path / "store")), LocalPlace)
    assert isinstance(open_place("memory://store"), RemotePlace)


# --- a store in it -------------------------------------------------------------------------------


def test_a_store_behind_a_url_has_the_bytes_of_one_in_a_folder(place, label, tmp_path):
    label(place)
    here = LocalPlace(tmp_path / "here")
    label(here)
    assert everything(place) == everything(here)
    assert header_at(place, "shard-00001.safetensors").says["shard"] == 1


def test_a_store_that_was_stopped_goes_on(place, label, fake_teacher, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        label(place, stop=2)
    assert sum(fake_teacher.asked) == 16
    label(place)
    assert sum(fake_teacher.asked) == ROWS
    here = LocalPlace(tmp_path / "here")
    label(here)
    assert everything(place) == everything(here)


# --- bringing it here ----------------------------------------------------------------------------


def test_a_store_is_brought_here_and_read(place, url, label, tmp_path):
    label(place)
    arrived = []
    manifest = fetch(url, tmp_path / "here", on_bytes=arrived.append)
    assert everything(LocalPlace(tmp_path / "here")) == everything(place)
    assert arrived[-1] == manifest.bytes + manifest.index.bytes
    assert arrived == sorted(arrived)
    store = LabelStore(tmp_path / "here", expect={"teacher": "aaaa"})
    store.verify()
    expected = torch.tensor([[np.sin(29), np.cos(29), 29], [0, 1, 0]], dtype=torch.float32)
    assert torch.equal(store.read(torch.tensor([29, 0]))["logits"], expected)


def copied(monkeypatch):
    """The names of what is copied from afar."""
    names, original = [], RemotePlace.copy

    def copy(self, file, path):
        names.append(file)
        original(self, file, path)

    monkeypatch.setattr(RemotePlace, "copy", copy)
    return names


def test_a_copy_that_was_stopped_goes_on(place, url, label, tmp_path, monkeypatch):
    label(place)
    here = tmp_path / "here"
    with monkeypatch.context() as patch:
        broken(patch, place, "get_file", ConnectionError("gone"), after=4)
        with pytest.raises(RunError, match="gone"):
            fetch(url, here)
    with pytest.raises(StoreError, match="is no label store"):
        LabelStore(here)
    there = {path.name for path in here.glob("*.safetensors")}
    assert len(there) == 3
    names = copied(monkeypatch)
    fetch(url, here)
    assert not there & set(names)
    assert everything(LocalPlace(here)) == everything(place)
    names.clear()
    fetch(url, here)
    assert set(names) == {"manifest.json"}


@pytest.mark.parametrize("harm", [flip_last, lambda content: content[:-1], lambda content: b"?"])
@pytest.mark.parametrize("name", ["shard-00002.safetensors", "index.safetensors"])
def test_a_file_that_is_damaged_there_is_named_and_not_taken(
    place, url, label, tmp_path, name, harm
):
    label(place)
    change(place, name, harm)
    with pytest.raises(StoreError, match=rf"store/{name} is damaged.*only what is missing"):
        fetch(url, tmp_path / "here")
    assert not (tmp_path / "here" / name).exists()
    assert not list((tmp_path / "here").glob(".*.part"))
    with pytest.raises(StoreError, match="is no label store"):
        LabelStore(tmp_path / "here")


def test_a_file_that_is_damaged_here_is_copied_again(place, url, label, tmp_path, monkeypatch):
    label(place)
    fetch(url, tmp_path / "here")
    change(LocalPlace(tmp_path / "here"), "shard-00002.safetensors", flip_last)
    names = copied(monkeypatch)
    fetch(url, tmp_path / "here")
    assert names == ["manifest.json", "shard-00002.safetensors", "manifest.json"]
    LabelStore(tmp_path / "here").verify()


def test_another_store_in_the_folder_makes_way_and_other_files_stay(place, url, label, tmp_path):
    label(place)
    here = LocalPlace(tmp_path / "here")
    here.write("shard-00099.safetensors", [b"of another store"])
    here.write("notes.txt", [b"mine"])
    fetch(url, tmp_path / "here")
    assert set(here.files()) - set(place.files()) == {".lock", "notes.txt"}


def test_no_store_is_told_with_its_url(url, place, tmp_path):
    with pytest.raises(StoreError, match=r"far/store is no label store: it has no manifest.json"):
        fetch(url, tmp_path / "here")


def test_an_unfinished_store_is_refused(place, url, label, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        label(place, stop=2)
    with pytest.raises(StoreError, match=r"far/store is not finished: run the command that labels"):
        fetch(url, tmp_path / "here")


UP = {"file": ["../up"], "rows": [1], "bytes": [1], "sha256": [""]}


@pytest.mark.parametrize(("harm", "text"), [
    ({"version": 3}, "far/store/manifest.json has version 3"),
    ({"shards": UP}, "lie side by side, but the manifest names '../up'"),
])  # fmt: skip
def test_a_manifest_that_cannot_be_followed_is_told_with_its_url(
    place, url, label, tmp_path, harm, text
):
    label(place)
    change(place, "manifest.json", lambda content: json.dumps(json.loads(content) | harm).encode())
    with pytest.raises(StoreError, match=text) as error:
        fetch(url, tmp_path / "here")
    assert "/tmp/tmp" not in str(error.value)


def test_a_full_disk_here_says_so(place, url, label, tmp_path, monkeypatch):
    label(place)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    broken(monkeypatch, place, "get_file", full, after=2)
    with pytest.raises(RunError, match=r"the disk is full: .*here/.*goes on from there"):
        fetch(url, tmp_path / "here")


def test_two_copies_into_one_folder_do_not_meet(place, url, label, tmp_path):
    label(place)
    with (
        LocalPlace(tmp_path / "here").lock(),
        pytest.raises(RunError, match="one process at a time"),
    ):
        fetch(url, tmp_path / "here")


def test_no_answer_travels_when_a_store_is_finished(place, label, monkeypatch):
    """What is sent is paid for: of a shard only its header, ids and views are read."""
    monkeypatch.setattr(remote_place, "READ_AHEAD", 512)
    sent, part = [], RemotePlace.part

    def counted(self, file, start, stop):
        sent.append((file, stop - start))
        return part(self, file, start, stop)

    monkeypatch.setattr(RemotePlace, "part", counted)
    label(place, width=1000)
    for name in ("shard-00000.safetensors", "shard-00003.safetensors"):
        assert sum(size for file, size in sent if file == name) < 8 * 512
        assert place.size(name) > 6 * 1000 * 4


def test_what_is_far_is_read_like_any_file(place):
    content = bytes(range(256)) * 1000
    place.write("a.bin", [content])
    with place.open("a.bin") as file:
        assert file.read(3) == content[:3]
        assert file.read(200_000) == content[3:200_003]
        assert file.seek(-5, 2) == len(content) - 5
        assert file.read() == content[-5:]
        assert file.read(1) == b""
        assert file.seek(10) == file.tell() == 10
        assert file.seek(90_000, 1) == 90_010
        assert file.read(2) == content[90_010:90_012]


def test_behind_the_end_of_a_file_there_is_nothing_whatever_the_far_side_says(monkeypatch, place):
    place.write("a.bin", [b"12345678"])
    original = place._system.cat_file

    def strict(path, start=None, end=None):
        if start >= 8:
            raise OSError("the requested range is not satisfiable")
        return original(path, start=start, end=end)

    monkeypatch.setattr(place._system, "cat_file", strict)
    monkeypatch.setattr(remote_place, "READ_AHEAD", 8)
    with place.open("a.bin") as file:
        assert file.read() == b"12345678"
        assert file.read(5) == b""
    broken(monkeypatch, place, "cat_file", OSError("the connection was lost"))
    with place.open("a.bin") as file, pytest.raises(RunError, match="the connection was lost"):
        file.read()
