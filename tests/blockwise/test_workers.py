"""Pairs by one process, by several and by Ray: the same results, whatever happens to a worker."""

import json
import multiprocessing
import os
import sys
from dataclasses import replace

import pytest
import torch

from blockwise.deeds import Open, candidate, material
from understudy.blockwise.crews import _packed, _understood, answer
from understudy.blockwise.learning import Learning
from understudy.blockwise.local import WEIGHTS
from understudy.blockwise.workers import Given, Pair, _shared_out, distil_all, distil_pair
from understudy.errors import RunError


def pair(folder, seed=0, kind="custom_net", deed="", **settings):
    made = candidate("linear", label=kind, **settings)
    return Pair(
        block=f"block{seed}", candidate=made, open=Open(folder, seed, deed),
        folder=folder / "pairs",
        learning=Learning(epochs=2, batch_size=8, learning_rate=1e-2, noise=0.1, seed=seed),
    )  # fmt: skip


def four(folder, **deeds):
    folder.mkdir(exist_ok=True)
    return [pair(folder, seed, deed=deeds.get(f"deed{seed}", "")) for seed in range(4)]


def opened(folder):
    return [line.split() for line in (folder / "opened").read_text().splitlines()]


def content(folder):
    return {
        path.parent.name: path.read_bytes() for path in sorted((folder / "pairs").rglob(WEIGHTS))
    }


def without_seconds(found):
    return {n: {k: v for k, v in told.items() if k != "seconds"} for n, told in found.items()}


class Watched:
    """Progress that is remembered."""

    def __init__(self):
        self.said, self.done = [], []

    def track(self, name, total, unit):
        self.total = (name, total, unit)
        return self

    def __enter__(self):
        return lambda done, note="": self.done.append(done)

    def __exit__(self, *error):
        return None

    def say(self, line):
        self.said.append(line)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    return folder, distil_all(four(folder))


def test_one_process_works_at_one_pair_after_the_other_and_skips_what_is_done(tmp_path):
    threads = torch.get_num_threads()
    watched = Watched()
    pairs = four(tmp_path)
    found = distil_all(pairs, threads=1, progress=watched)
    assert list(found) == [one.name for one in pairs]
    assert all(told["loss"] <= told["start"] and told["steps"] == 8 for told in found.values())
    assert (watched.total, watched.done) == (("local distillation", 4, "pairs"), [1, 2, 3, 4])
    assert [line[2] for line in opened(tmp_path)] == ["1"] * 4
    assert torch.get_num_threads() == threads
    before = content(tmp_path)
    assert distil_all(pairs) == found
    assert content(tmp_path) == before


def test_two_processes_with_their_own_threads_do_what_one_does(serial, tmp_path):
    folder, goal = serial
    watched = Watched()
    found = distil_all(four(tmp_path), workers=2, threads=1, engine="process", progress=watched)
    assert without_seconds(found) == without_seconds(goal)
    assert content(tmp_path) == content(folder)
    lines = opened(tmp_path)
    assert sorted(line[0] for line in lines) == list("0123")
    assert str(os.getpid()) not in {line[1] for line in lines}
    assert {line[2] for line in lines} == {"1"}
    assert watched.done == [1, 2, 3, 4]
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_loses_its_pair_alone(serial, tmp_path):
    folder, goal = serial
    pairs = four(tmp_path, deed1="die once")
    held = replace(pairs[3], open=Given(material=material(3)))
    found = distil_all([*pairs[:3], held], workers=2, engine="process")
    assert without_seconds(found) == without_seconds(goal)
    assert content(tmp_path) == content(folder)
    assert sorted(line[0] for line in opened(tmp_path)) == list("0112")
    assert not multiprocessing.active_children()


class Fragile:
    """A crew in this process, some of whose workers die of a pair, or before they get one."""

    def __init__(self, deadly=(), idle=()):
        self.deadly, self.idle, self.given = set(deadly), list(idle), []

    def give(self, worker, pair):
        self.given.append((worker, pair))
        self.waiting = [*getattr(self, "waiting", []), (worker, pair)]

    def hear(self):
        if self.idle:
            return self.idle.pop(), None
        worker, one = self.waiting.pop(0)
        if one.block in self.deadly:
            return worker, None
        return worker, json.dumps({"loss": 0.5})


def test_a_pair_that_kills_three_workers_is_named_and_the_rest_goes_on(tmp_path):
    found = {}
    crew = Fragile(deadly={"block2"}, idle=[7])
    _shared_out(four(tmp_path), crew, 2, lambda one, told: found.update({one.block: told}))
    assert found["block2"]["failed"].startswith("its worker died 3 times: most often memory is")
    assert [found[f"block{n}"] for n in (0, 1, 3)] == [{"loss": 0.5}] * 3
    assert [one.block for _, one in crew.given].count("block2") == 3
    assert len(crew.given) == 6


def test_what_would_fail_all_pairs_comes_out_as_it_was_raised(tmp_path):
    one = pair(tmp_path, deed="full")
    with pytest.raises(RunError, match=r"^the disk is full$"):
        distil_all([one])
    with pytest.raises(RunError, match=r"^the disk is full$"):
        _understood(answer(_packed(one)))


def test_a_defect_keeps_its_traceback(tmp_path):
    one = pair(tmp_path, deed="stumble")
    with pytest.raises(ZeroDivisionError):
        distil_all([one])
    with pytest.raises(RuntimeError, match=r"met a defect:\n(.|\n)*a defect of the source"):
        _understood(answer(_packed(one)))


def test_a_candidate_that_cannot_be_made_is_reported_and_the_rest_goes_on(tmp_path):
    good = pair(tmp_path)
    bad = replace(good, candidate=candidate("shared", neighbour="x"), block="other")
    found = distil_all([bad, good])
    assert "needs its `neighbour`" in found[bad.name]["failed"]
    assert "loss" in found[good.name]


def test_what_was_measured_of_a_candidate_does_not_make_it_another(tmp_path):
    one = pair(tmp_path)
    told = distil_pair(one)
    again = replace(one, candidate=replace(one.candidate, ms=1.5, parameters=7))
    assert distil_pair(again) == told
    other = replace(one, open=Open(tmp_path, 3))
    assert distil_pair(other)["loss"] != told["loss"]


def test_a_pair_that_cannot_travel_is_refused(tmp_path):
    def here():
        return material()

    one = replace(pair(tmp_path), open=here)
    with pytest.raises(RunError, match=r"cannot be sent to another process .*engine `serial`"):
        distil_all([one], engine="process")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("settings", "law"), [
    ({"workers": 0}, "`workers >= 1` must hold, but got 0"),
    ({"threads": 0}, "`threads >= 1` must hold, but got 0"),
    ({"workers": 2}, "`serial` has one worker, but got workers=2"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, law):
    with pytest.raises(ValueError, match=law):
        distil_all(four(tmp_path), **settings)


def test_pairs_of_one_name_are_refused_and_none_are_no_work(tmp_path):
    with pytest.raises(ValueError, match="block0--custom_net is there twice"):
        distil_all([pair(tmp_path), pair(tmp_path)])
    assert distil_all([], engine="process") == {}
    assert distil_all([], engine="ray") == {}


@pytest.mark.slow
def test_two_workers_of_ray_do_what_one_process_does_and_survive_a_death(serial, tmp_path):
    ray = pytest.importorskip("ray")
    # Workers of Ray cannot import a file of the tests: it travels to them.
    ray.cloudpickle.register_pickle_by_value(sys.modules["blockwise.deeds"])
    folder, goal = serial
    found = distil_all(four(tmp_path, deed1="die once"), workers=2, engine="ray")
    assert without_seconds(found) == without_seconds(goal)
    assert content(tmp_path) == content(folder)
    assert not ray.is_initialized()
    with pytest.raises(RunError, match=r"^the disk is full$"):
        distil_all([pair(tmp_path, 0, deed="full")], engine="ray")
