"""Folders: files that are whole, locks that say who holds them, stages that survive a kill."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import folders
from understudy.errors import RunError
from understudy.folders import (
    Lock,
    Stage,
    canonical,
    file_checksum,
    fingerprint,
    make_folder,
    read_json,
    remove_parts,
    write_atomic,
    write_json,
    write_with,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


# --- fingerprints --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(data=st.dictionaries(st.text(), plain))
def test_the_order_of_keys_does_not_matter(data):
    turned = dict(reversed(data.items()))
    assert canonical(turned) == canonical(data)
    assert fingerprint(turned) == fingerprint(data)
    assert json.loads(canonical(data)) == data


def test_a_fingerprint_is_16_hex_digits_and_differs():
    values = [{}, {"a": 1}, {"a": 2}, {"a": [1]}, {"a": "1"}, {"a": None}, {"a": {"a": 1}}]
    found = {fingerprint(value) for value in values}
    assert len(found) == len(values)
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in found)


def test_a_files_checksum_is_its_contents_sha256(tmp_path):
    import hashlib

    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert file_checksum(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00\xff", "täxt", b"x" * 1_000_000])
def test_a_file_is_written_and_nothing_is_left_beside_it(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("before")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_a_broken_one_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"path": Path("x"), "n": [1, None, 0.1]})
    assert read_json(tmp_path / "a.json") == {"path": "x", "n": [1, None, 0.1]}
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"a.json cannot be read .*run the stage"):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path / "missing.json")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_leaves_the_old_content_and_says_so(tmp_path, monkeypatch, call, number):
    path = tmp_path / "file"
    path.write_text("before")

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, call, full)
        with pytest.raises(RunError, match=r"disk is full.*free some space"):
            write_atomic(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_names_another_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written.*--out"):
        write_atomic(tmp_path / "file" / "inside", "x")
    with pytest.raises(RunError, match=r"cannot be written.*--out"):
        make_folder(tmp_path / "file" / "inside")


def test_two_writers_with_one_number_never_share_a_temporary_file(tmp_path):
    """Two machines may give the same number to their processes, and share a folder."""
    parts = []

    def write(part):
        parts.append(part.name)
        part.write_text("x")

    for _ in range(20):
        write_with(tmp_path / "file", write)
    assert len(set(parts)) == 20


def test_what_a_killed_writer_leaves_is_known_as_its_own(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        write_atomic(tmp_path / "a.json", "half")
    assert len(list(tmp_path.iterdir())) == 1
    remove_parts(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write(part):
        part.write_text("half")
        raise ValueError("the writer's own")

    with pytest.raises(ValueError, match="the writer's own"):
        write_with(tmp_path / "file", write)
    assert not list(tmp_path.iterdir())


def test_parts_of_killed_writers_are_removed_at_any_depth(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in (".a.json.17.part", "deep/.b.17.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / "deep" / "part").write_text("whole")
    remove_parts(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["part"]


# --- locks ---------------------------------------------------------------------------------------


def run_python(code, *arguments):
    """A child that imports no torch; its output."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


HOLD = """
import sys, time
from pathlib import Path
from understudy.folders import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError) as error, Lock(tmp_path):
            pass
        assert f"held by process {holder.pid} on " in str(error.value)
        assert "--out" in str(error.value)
        holder.kill()
        holder.wait()
    with Lock(tmp_path):  # a killed holder holds nothing
        pass


def test_a_lock_is_free_after_its_block_and_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"), Lock(tmp_path):
            raise ValueError("inside")
    with Lock(tmp_path):
        text = (tmp_path / ".lock").read_text()
        assert text.startswith(f"process {os.getpid()} on ")
    assert (tmp_path / ".lock").read_text() == ""


def test_one_process_cannot_hold_a_folder_twice(tmp_path):
    with Lock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()}"), Lock(tmp_path):
        pass


def test_many_processes_have_a_folder_one_after_the_other(tmp_path):
    """Each counts up a number that would be lost if two of them were inside together."""
    (tmp_path / "count").write_text("0")
    code = """
        import sys, time
        from pathlib import Path
        from understudy.errors import RunError
        from understudy.folders import Lock
        folder = Path(sys.argv[1])
        for _ in range(20):
            while True:
                try:
                    with Lock(folder):
                        value = int((folder / "count").read_text())
                        time.sleep(0.001)
                        (folder / "count").write_text(str(value + 1))
                    break
                except RunError:
                    time.sleep(0.001)
        """
    children = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])
        for _ in range(3)
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"


# --- stages --------------------------------------------------------------------------------------


def stage(run, name="teacher", **depends):
    return Stage(run=run, name=name, depends=depends)


def complete(made, content="content"):
    folder = made.begin()
    (folder / "file").write_text(content)
    made.finish({"rows": 3}, seconds=1.25)


def test_a_stage_is_done_for_its_inputs_and_for_no_others(tmp_path):
    first = stage(tmp_path, seed=1)
    assert not first.done()
    complete(first)
    assert first.done()
    assert first.summary() == {"rows": 3}
    assert (tmp_path / "teacher" / "file").read_text() == "content"
    assert not stage(tmp_path, seed=2).done()
    assert not first.work.exists()


@pytest.mark.parametrize("harm", ["remove", "shorten", "empty state", "list", "no files"])
def test_a_stage_that_lacks_something_is_not_done(tmp_path, harm):
    made = stage(tmp_path, seed=1)
    complete(made)
    state = made.path / "stage.json"
    if harm == "remove":
        (made.path / "file").unlink()
    elif harm == "shorten":
        (made.path / "file").write_text("c")
    elif harm == "empty state":
        state.write_text("")
    elif harm == "list":
        state.write_text("[]")
    else:
        state.write_text(json.dumps(json.loads(state.read_text()) | {"files": None}))
    assert not made.done()


def test_an_interrupted_stage_goes_on_with_the_same_inputs_and_begins_anew_with_others(tmp_path):
    first = stage(tmp_path, seed=1)
    (first.begin() / "half").write_text("")
    assert (first.begin() / "half").exists()
    assert not (stage(tmp_path, seed=2).begin() / "half").exists()
    assert not first.done()


def test_what_a_killed_writer_left_does_not_become_part_of_a_stage(tmp_path):
    made = stage(tmp_path, seed=1)
    (made.begin() / ".file.17.part").write_text("half")
    complete(made)
    assert sorted(p.name for p in made.path.iterdir()) == ["file", "stage.json"]


def test_a_finished_stage_stays_until_the_next_is_whole(tmp_path):
    complete(stage(tmp_path, seed=1), "old")
    changed = stage(tmp_path, seed=2)
    (changed.begin() / "file").write_text("half")
    assert stage(tmp_path, seed=1).done()
    assert (tmp_path / "teacher" / "file").read_text() == "old"
    complete(changed, "new")
    assert (tmp_path / "teacher" / "file").read_text() == "new"
    assert not list((tmp_path / ".work").iterdir())


def test_a_stage_may_lie_deeper(tmp_path):
    made = stage(tmp_path, "distil/student-0", seed=1)
    complete(made)
    assert made.done()
    assert (tmp_path / "distil" / "student-0" / "file").is_file()


# A new stage replaces a finished one, and the process ends without any tidying up at the given
# step of all the calls that change the disk.
REPLACE = """
import os, shutil, sys
from pathlib import Path
from understudy.folders import Stage

left = int(sys.argv[2])

def dying(original):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return original(*arguments, **options)
    return call

made = Stage(run=Path(sys.argv[1]), name=sys.argv[3], depends={"seed": 2})
assert not made.done()
(made.begin() / "file").write_text("new")
Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
os.fsync, shutil.rmtree = dying(os.fsync), dying(shutil.rmtree)
made.finish({"new": True}, seconds=0.0)
print(left)
"""


@pytest.mark.parametrize("name", ["teacher", "distil/student-0"])
def test_a_stage_killed_at_any_step_of_its_finish_is_old_or_new_but_whole(tmp_path, name):
    steps = 0
    while True:
        steps += 1
        run = tmp_path / str(steps)
        old, new = stage(run, name, seed=1), stage(run, name, seed=2)
        complete(old, "old")
        result = run_python(REPLACE, run, steps, name)
        assert result.returncode in (0, 9), result.stderr
        has_new = new.done()
        assert has_new != old.done()
        assert (run / name / "file").read_text() == ("new" if has_new else "old")
        if not has_new:
            assert (new.begin() / "file").read_text() == "new"  # it goes on
            new.finish({"new": True}, seconds=0.0)
        assert new.done()
        assert new.summary() == {"new": True}
        assert [p for p in (run / ".work").rglob("*") if p.is_file()] == []
        if result.returncode == 0:
            break
    assert steps >= 9


def test_a_stage_killed_between_its_renames_has_its_old_content_where_the_new_is_lost(tmp_path):
    complete(stage(tmp_path, seed=1), "old")
    (tmp_path / "teacher").rename(tmp_path / ".work" / "teacher.old")
    assert stage(tmp_path, seed=1).done()
    assert (tmp_path / "teacher" / "file").read_text() == "old"


def test_a_full_disk_locks_all_the_same_and_lets_go(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders.os, "write", full)
    with (
        Lock(tmp_path),
        pytest.raises(RunError, match="is held by another process"),
        Lock(tmp_path),
    ):
        pass
    with Lock(tmp_path):
        pass
