"""Workers of Ray write what one process writes, whatever happens to them.

The teacher is a small real network; it lives in the workers, so what it is to do there (die, say
NaN, take its time) is told by files.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.contracts import Batch, Knowledge
from understudy.errors import MissingExtraError, ModelError, RunError, StoreError
from understudy.labels import codecs, ray_engine
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, Order, cut
from understudy.labels.ray_engine import RayEngine
from understudy.labels.record import Serial, record
from understudy.labels.remote_place import RemotePlace
from understudy.labels.store import LabelStore

ray = pytest.importorskip("ray")
ROWS, BATCH, SHARD = 96, 4, 8
SHARDS = ROWS // SHARD
# Workers cannot import a test: this module travels to them.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Teacher:
    """A network, and what it is to do when it is asked for an id."""

    offers = frozenset({"logits"})

    def __init__(self, folder=None, deeds=()):
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 10))
        self.folder, self.deeds = folder, dict(deeds)
        if folder is not None:
            (folder / f"{os.getpid()}.pid").touch()

    def __call__(self, batch):
        with torch.no_grad():
            logits = self.network(batch.inputs)
        for number in batch.ids.tolist():
            if number in self.deeds:
                self.deeds[number](self.folder, logits)
        return Knowledge(fields={"logits": logits})


def batches(start, stop):
    rows = torch.randn(ROWS, 16, generator=torch.Generator().manual_seed(1))
    for first in range(start, stop, BATCH):
        ids = torch.arange(first, min(first + BATCH, stop))
        yield Batch(inputs=rows[ids], ids=ids)


def make(folder=None, deeds=()):
    def made():
        torch.set_num_threads(1)
        return Teacher(folder, deeds), cut(batches, rows=ROWS, batch_size=BATCH, shard_rows=SHARD)

    return made


def write(engine, place, **options):
    kept = Keep(codec=codecs.make("dense", {}, {}), reads="logits")
    return record(
        engine=engine, rows=(SHARD,) * SHARDS, keep={"logits": kept}, place=place,
        fingerprints={"teacher": "small"}, **options,
    )  # fmt: skip


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


# --- what a worker is to do ----------------------------------------------------------------------


def die(folder, logits):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder, logits):
    """In the middle of writing, as far as the folder can tell."""
    if not (folder / "died").exists():
        (folder / "died").touch()
        (folder.parent / "store" / ".shard-00003.safetensors.1.part").write_bytes(b"half")
        die(folder, logits)


def say_nan(folder, logits):
    logits[0] = float("nan")


def take_time(folder, logits):
    time.sleep(0.3)


def stumble(folder, logits):
    raise ZeroDivisionError("a defect of the teacher")


# --- the tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store as one process writes it."""
    threads = torch.get_num_threads()
    teacher, portions = make()()
    folder = tmp_path_factory.mktemp("whole") / "store"
    write(Serial(teacher, portions), LocalPlace(folder))
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def test_a_ray_that_is_started_here_is_stopped_and_leaves_nothing_changed(
    whole, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    handler, before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    assert not ray.is_initialized()
    progress = []
    write(RayEngine(make()), LocalPlace(Path("store")), on_rows=progress.append)
    assert not ray.is_initialized()
    assert content(tmp_path / "store") == content(whole)
    assert progress == list(range(0, ROWS + 1, SHARD))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def running():
    """One Ray for all that follows; it stands in another folder than the tests."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR, object_store_memory=200_000_000,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.usefixtures("running")
def test_a_worker_that_is_killed_in_the_middle_loses_nothing(whole, notes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []
    engine = RayEngine(make(notes, [(27, die_once)]))
    manifest = write(engine, LocalPlace(Path("store")), on_rows=done.append)
    assert (notes / "died").exists()
    assert done == list(range(0, ROWS + 1, SHARD))
    assert manifest.complete
    assert content(tmp_path / "store") == content(whole)
    assert ray.is_initialized()


@pytest.mark.slow
@pytest.mark.usefixtures("running")
def test_workers_that_are_killed_from_outside_lose_nothing(whole, notes, tmp_path):
    killed = set()

    def kill_one(rows):
        pids = {int(path.stem) for path in notes.glob("*.pid")} - killed
        if rows in (2 * SHARD, 5 * SHARD) and pids:
            os.kill(min(pids), signal.SIGKILL)
            killed.add(min(pids))

    slow = [(number, take_time) for number in range(0, ROWS, BATCH)]
    write(RayEngine(make(notes, slow)), LocalPlace(tmp_path / "store"), on_rows=kill_one)
    assert len(killed) == 2
    assert content(tmp_path / "store") == content(whole)


@pytest.mark.usefixtures("running")
def test_a_shard_that_kills_every_worker_is_named_and_the_rest_stays(whole, notes, tmp_path):
    engine = RayEngine(make(notes, [(27, die)]), workers=1, tries=2)
    with pytest.raises(RunError, match=r"shard 3 was begun 2 times, and its worker died.*memory"):
        write(engine, LocalPlace(tmp_path / "store"))
    with pytest.raises(StoreError, match="not finished"):
        LabelStore(tmp_path / "store")
    there = {name for name in content(tmp_path / "store") if name.startswith("shard-")}
    assert "shard-00003.safetensors" not in there
    one = OneProcess()
    write(one, LocalPlace(tmp_path / "store"))
    assert len(one.asked) == SHARDS - len(there)
    assert content(tmp_path / "store") == content(whole)


class OneProcess:
    """Says which shards it was asked for, and may be made to stop half-way."""

    def __init__(self, *, every=1):
        self.asked, self.every, self.serial = [], every, Serial(*make()())

    def __call__(self, numbers, *, order, place, done):
        self.asked += numbers
        self.serial(numbers[:: self.every], order=order, place=place, done=done)
        if self.every > 1:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("running")
def test_a_store_behind_a_url_that_one_process_began_is_finished_by_workers(whole, tmp_path):
    url = f"file://{tmp_path}/deep/store"
    with pytest.raises(KeyboardInterrupt):
        write(OneProcess(every=2), RemotePlace(url))
    rows = []
    write(RayEngine(make(), workers=1), RemotePlace(url), on_rows=rows.append)
    assert rows == list(range(ROWS // 2, ROWS + 1, SHARD))
    assert content(tmp_path / "deep" / "store") == content(whole)


@pytest.mark.usefixtures("running")
def test_bad_rows_come_out_as_the_error_they_are_in_one_process(notes, tmp_path):
    deeds = [(48, say_nan)]
    with pytest.raises(StoreError) as expected:
        write(Serial(*make(notes, deeds)()), LocalPlace(tmp_path / "one"))
    with pytest.raises(StoreError) as error:
        write(RayEngine(make(notes, deeds), workers=1), LocalPlace(tmp_path / "store"))
    assert type(error.value) is StoreError
    assert str(error.value) == str(expected.value)
    assert "1 of 4 rows are not (ids 48)" in str(error.value)


@pytest.mark.usefixtures("running")
def test_a_defect_keeps_its_name_and_its_traceback(notes, tmp_path):
    with pytest.raises(ZeroDivisionError, match=r"in stumble\n(.|\n)*a defect of the teacher"):
        write(RayEngine(make(notes, [(0, stumble)]), workers=1), LocalPlace(tmp_path / "store"))


@pytest.mark.slow
@pytest.mark.usefixtures("running")
def test_rows_that_are_left_out_are_left_out_by_workers_too(notes, tmp_path):
    engine = RayEngine(make(notes, [(48, say_nan)]))
    manifest = write(engine, LocalPlace(tmp_path / "store"), on_bad_rows="skip")
    assert (manifest.skipped, manifest.rows) == (1, ROWS - 1)


@pytest.mark.usefixtures("running")
def test_a_place_that_workers_do_not_share_is_found_at_the_first_shard():
    place = RemotePlace("memory://not-shared")
    with pytest.raises(RunError, match=r"in memory://.*it is not there: name a folder or a URL"):
        write(RayEngine(make(), workers=1), place)
    assert place.files() == ["manifest.json"]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(("options", "law"), [
    ({"gpus": 1000}, "a worker needs GPU 1000, but no machine of this Ray has more than"),
    ({"cpus": 3}, "a worker needs CPU 3, but no machine of this Ray has more than 2: ask for less"),
])  # fmt: skip
def test_a_worker_that_no_machine_has_room_for_is_refused_at_once(tmp_path, options, law):
    with pytest.raises(RunError, match=law):
        write(RayEngine(make(), **options), LocalPlace(tmp_path / "store"))


class OwnError(ModelError):
    """Of somebody who wrote a teacher."""


@pytest.mark.parametrize(("raised", "kind"), [
    (MissingExtraError("torchvision", "vision"), MissingExtraError),
    (OwnError("give it other rows"), ModelError),
    (RunError("the disk is full"), RunError),
])  # fmt: skip
def test_every_error_for_people_comes_out_by_its_name_and_text(raised, kind, monkeypatch, tmp_path):
    def fails():
        raise raised

    class Visits:
        """In the place of an actor."""

        class begin:  # noqa: N801 - as the handle of an actor has it
            remote = staticmethod(lambda number: 1)

    monkeypatch.setattr(ray, "get", lambda value: value)
    order, place = Order(keep={}, plan="any"), LocalPlace(tmp_path)
    told = ray_engine._Worker(fails, order, place, Visits, 4)({"item": [5]})
    assert (told["number"], told["bytes"]) == ([5], [-1])
    error = ray_engine._error(told["error"][0], told["text"][0])
    assert type(error) is kind
    assert str(error) == str(raised)


@pytest.mark.slow
def test_the_script_of_the_manual_does_what_it_says(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    code = page.split('```python title="label.py"\n')[1].split("```")[0]
    (tmp_path / "label.py").write_text(code)
    command = [sys.executable, "label.py", f"file://{tmp_path}/labels"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    store = LabelStore(tmp_path / "labels")
    store.verify()
    assert len(store) == 1797
    assert len(store.manifest.shards) == 4


def test_nothing_is_started_where_nothing_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "session", None)
    order = Order(keep={}, plan="any")
    RayEngine(make())([], order=order, place=LocalPlace(tmp_path), done=lambda number: None)


@pytest.mark.parametrize(("options", "law"), [
    ({"workers": 0}, "`workers >= 1` must hold, but got 0"),
    ({"cpus": 0}, "`cpus >= 1` must hold, but got 0"),
    ({"tries": 0}, "`tries >= 1` must hold, but got 0"),
    ({"gpus": -0.5}, "`gpus >= 0` must hold, but got -0.5"),
])  # fmt: skip
def test_a_crew_that_makes_no_sense_is_refused(options, law):
    with pytest.raises(ValueError, match=law):
        RayEngine(make(), **options)


def test_where_ray_is_missing_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "understudy\[ray\]"'):
        RayEngine(make())
