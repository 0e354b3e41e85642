"""The page docs/label-store.md says enough to read a store: a reader made from it alone.

Answers are random numbers by id and view: what is tested is that both readers say the same.
"""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from labels.conftest import record_ids
from understudy.contracts import Knowledge, Outcomes, Ragged
from understudy.labels import codecs
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore

READER = Path(__file__).with_name("read_from_document.py")
# Runs the reader and says what it imported beside the standard library.
ALONE = """
import runpy, sys
before = set(sys.modules)
runpy.run_path(sys.argv[1], run_name="__main__")
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - sys.stdlib_module_names))
"""
WIDTH = 16  # of a hidden state
KINDS = [
    ("dense", {"precision": "float32"}), ("dense", {"precision": "float16"}),
    ("dense", {"precision": "bfloat16"}), ("int8", {}),
    ("top_k", {"k": 5}), ("top_k", {"k": 9, "precision": "float16"}),
    ("top_p", {"k": 20}), ("top_p", {"p": 0.7, "k": 100, "minimum": 3}),
    ("sampled", {"draws": 30}), ("sampled", {"draws": 20, "exact": 4}),
    ("hidden", {}), ("hidden", {"precision": "bfloat16"}), ("hidden", {"precision": "int8"}),
    ("hidden", {"scale": 0.5, "soft_cap": 3.0}),
]  # fmt: skip
LISTING = ("top_k", "top_p", "sampled")


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """Nothing here survives a power cut; waiting for the disk would take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Says:
    """A teacher of rows or of sequences, some of them empty."""

    offers = frozenset({"logits"})

    def __init__(self, *, width, ragged, bad, sharp):
        self.width, self.ragged, self.bad = width, ragged, bad
        self.sizes = (0.0, 1.0, 3.0, sharp)

    def row(self, example, view):
        """Flat, usual and sharp answers: the cases of small and of large masses.

        Where some are bad, 106 has none that is finite, and 107 none in view 2.
        """
        draw = np.random.default_rng([example, view])
        shape = (example * 7 % 5 if self.ragged else 1, self.width)
        answer = draw.standard_normal(shape, np.float32) * np.float32(self.sizes[example % 4])
        if self.bad and (example == 106 or (example, view) == (107, 2)):
            answer[0, 5] = np.nan
        return torch.from_numpy(answer)

    def __call__(self, batch):
        views = torch.zeros_like(batch.ids) if batch.views is None else batch.views
        rows = [self.row(*pair) for pair in zip(batch.ids.tolist(), views.tolist(), strict=True)]
        values, lengths = torch.cat(rows), torch.tensor([len(row) for row in rows])
        told = Ragged(values=values, lengths=lengths) if self.ragged else values
        return Knowledge(fields={"logits": told})


def write_store(folder, kind, parameters, classes, *, ragged=False, views=1, bad=False):
    """A store of the codec; of many rows where they are narrow, so that anchors are needed."""
    constants, width = {}, classes
    if kind == "hidden":
        draw, width = np.random.default_rng(0), WIDTH
        constants = {"weight": draw.standard_normal((classes, width), np.float32)}
        if ragged:
            constants["bias"] = draw.standard_normal(classes, np.float32)
    keep = Keep(codec=codecs.make(kind, parameters, constants), reads="logits")
    rows, size, shard_rows = (100, 35, 70) if classes < 1000 else (9, 6, 6)
    ids = np.arange(100, 100 + rows)
    sharp = 2e5 if kind in LISTING else 40.0  # beyond what a float16 holds
    record_ids(
        folder,
        teacher=Says(width=width, ragged=ragged, bad=bad, sharp=sharp),
        ids=np.random.default_rng(1).permutation(ids) if bad else ids,
        size=size, shard_rows=shard_rows, views=views, keep={"logits": keep},
        on_bad_rows="skip" if bad else "error",
    )  # fmt: skip
    return LabelStore(folder)


def pairs_of(store):
    """Pairs of id and view in no order, all kinds of answers among them, one of them twice."""
    pairs = [(int(i), v) for i in store.ids() for v in store.views]
    chosen = [pairs[i] for i in np.random.default_rng(2).permutation(len(pairs))[:16]]
    return [*chosen, chosen[0]]


def read_alone(jobs):
    """Run the reader in a process of its own."""
    return subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(READER)],
        input="\n".join(json.dumps(job) for job in jobs),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def compare(told, found, kind):
    """What our package reads with what the reader found, in every position of every row."""
    positions = found["logits:positions"].tolist()
    if isinstance(told, Ragged):
        assert told.lengths.tolist() == positions
        told = told.values
    else:
        assert positions == [1] * len(told)
    if isinstance(told, Outcomes):
        compare_outcomes(told, found)
    elif kind == "hidden":  # products may be summed in another order
        np.testing.assert_allclose(found["logits:values"], told.numpy(), rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(found["logits:values"], told.numpy())


def compare_outcomes(told, found):
    close = {"rtol": 1e-6, "atol": 1e-6}
    ends = np.cumsum(found["logits:listed"])[:-1]
    ids, masses = (np.split(found[f"logits:{part}"], ends) for part in ("ids", "log_mass"))
    assert len(ids) == len(told)
    for at, (some, mass) in enumerate(zip(ids, masses, strict=True)):
        known = told.ids[at] >= 0
        listed, weights = told.ids[at][known].numpy(), told.log_mass[at][known].numpy()
        order, other = np.argsort(listed), np.argsort(some)
        np.testing.assert_array_equal(some[other], listed[order])
        np.testing.assert_allclose(mass[other], weights[order], **close)
    np.testing.assert_allclose(found["logits:rest"], told.rest.numpy(), **close)
    assert ("logits:entropy" in found) == (told.entropy is not None) == told.sampled
    if told.entropy is not None:
        np.testing.assert_array_equal(found["logits:entropy"], told.entropy.numpy())


@pytest.mark.parametrize(("kind", "parameters"), KINDS)
def test_the_page_is_enough_to_read_every_codec(tmp_path, kind, parameters):
    stores, jobs = [], []
    for ragged, views, bad, classes in product((False, True), (1, 3), (False, True), (300, 70_000)):
        folder = tmp_path / f"{classes}-{'ragged' if ragged else 'rows'}-{views}-{bad}"
        store = write_store(folder, kind, parameters, classes, ragged=ragged, views=views, bad=bad)
        assert store.manifest.skipped == ((views + (views > 1)) if bad else 0)
        stores.append(store)
        jobs.append({"store": str(folder), "pairs": pairs_of(store), "out": f"{folder}.npz"})
    done = read_alone(jobs)
    assert (done.returncode, done.stdout.split()) == (0, ["numpy"]), done.stderr
    for store, job in zip(stores, jobs, strict=True):
        ids, views = torch.tensor(job["pairs"]).T
        with np.load(job["out"]) as found:
            compare(store.read(ids, views)["logits"], found, kind)


@pytest.mark.parametrize("bad", [False, True])
def test_rows_are_found_with_and_without_their_numbers_in_the_index(tmp_path, bad):
    # The largest number of 256 classes takes fewer bits than their count does.
    store = write_store(tmp_path / "store", "top_p", {}, 256, views=3, bad=bad)
    content = (tmp_path / "store" / "index.safetensors").read_bytes()
    assert (b'"rows":' in content) == bad
    pairs = [(int(i), v) for v in (3, 1, 2) for i in store.ids()[::7]]
    done = read_alone([{"store": str(store.folder), "pairs": pairs, "out": f"{tmp_path}/out.npz"}])
    assert done.returncode == 0, done.stderr
    ids, views = torch.tensor(pairs).T
    with np.load(tmp_path / "out.npz") as found:
        compare(store.read(ids, views)["logits"], found, "top_p")


def test_a_row_that_is_not_there_is_not_found(tmp_path):
    store = write_store(tmp_path / "store", "dense", {}, 300, views=3, bad=True)
    job = {"store": str(store.folder), "out": f"{tmp_path}/out.npz"}
    assert read_alone([job | {"pairs": [(107, 1), (107, 3), (105, 3)]}]).returncode == 0
    for example, view in [(107, 2), (106, 1), (99, 1), (9999, 1), (105, 0), (105, 4)]:
        done = read_alone([job | {"pairs": [(105, 1), (example, view)]}])
        assert done.returncode == 1
        assert done.stderr.strip() == f"there is no row {example} in view {view}"


@pytest.mark.parametrize("file", ["shard-00001", "index", "constants-logits"])
def test_a_flipped_byte_is_found(tmp_path, file):
    """In the length, in the header, and in the data; and a byte too few."""
    folder = tmp_path / "store"
    store = write_store(folder, "hidden", {}, 300, ragged=True, views=3, bad=True)
    job = {"store": str(folder), "pairs": pairs_of(store)[:1], "out": f"{tmp_path}/out.npz"}
    path = folder / f"{file}.safetensors"
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    header, data = "size or header", "data"
    for place, wrong in [(0, header), (start // 2, header), (start, data), (-1, data)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        done = read_alone([job])
        assert done.returncode == 1
        assert f"{file}.safetensors: its {wrong}" in done.stderr
    path.write_bytes(whole[:-1])
    assert f"{file}.safetensors: its {header}" in read_alone([job]).stderr
    path.write_bytes(whole)
    assert read_alone([job]).returncode == 0
