"""The page docs/label-store.md says enough to read a store: a reader made from it alone.

Answers are random numbers by id and view: what is tested is that both readers say the same.
"""

import json
import subprocess
import sys
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
    ("hidden", {}), ("hidden", {"precision": "bfloat16"}),
]  # fmt: skip


class Says:
    """A teacher of rows or of sequences; sick of id 105, and of id 107 in view 2."""

    offers = frozenset({"logits"})

    def __init__(self, *, width, ragged, bad):
        self.width, self.ragged, self.bad = width, ragged, bad

    def row(self, example, view):
        """Flat, ordinary and sharp answers: the cases of small and of large weights."""
        draw = np.random.default_rng([example, view])
        shape = (example * 7 % 5 if self.ragged else 1, self.width)
        answer = draw.standard_normal(shape, np.float32) * [0.0, 1.0, 3.0, 40.0][example % 4]
        if self.bad and (example == 105 or (example, view) == (107, 2)):
            answer[:] = np.nan
        return torch.from_numpy(answer.astype(np.float32))

    def __call__(self, batch):
        views = torch.zeros_like(batch.ids) if batch.views is None else batch.views
        rows = [self.row(*pair) for pair in zip(batch.ids.tolist(), views.tolist(), strict=True)]
        values, lengths = torch.cat(rows), torch.tensor([len(row) for row in rows])
        told = Ragged(values=values, lengths=lengths) if self.ragged else values
        return Knowledge(fields={"logits": told})


def write_store(folder, kind, parameters, classes, *, ragged=False, views=1, bad=False):
    """A store of the kind; of many rows where they are narrow, so that anchors are needed."""
    constants, width = {}, classes
    if kind == "hidden":
        draw, width = np.random.default_rng(0), WIDTH
        constants = {"weight": draw.standard_normal((classes, width)).astype(np.float32)}
        if ragged:
            constants["bias"] = draw.standard_normal(classes).astype(np.float32)
    keep = Keep(codec=codecs.make(kind, parameters, constants), reads="logits")
    ids = np.arange(100, 250 if classes < 1000 else 110)
    record_ids(
        folder,
        teacher=Says(width=width, ragged=ragged, bad=bad),
        ids=np.random.default_rng(1).permutation(ids) if bad else ids,
        size=6, shard_rows=90, views=views, keep={"logits": keep},
        on_bad_rows="skip" if bad else "error",
    )  # fmt: skip
    return LabelStore(folder)


def pairs_of(store):
    """Pairs of id and view in a disorder, all kinds of answers among them, one of them twice."""
    draw = np.random.default_rng(2)
    pairs = [(int(i), v) for i in store.ids() for v in store.views if (i, v) != (107, 2)]
    chosen = [pairs[i] for i in draw.permutation(len(pairs))[:16]]
    return [*chosen, chosen[0]]


def read_alone(jobs, *, expect=0):
    """Run the reader in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(READER)],
        input="\n".join(json.dumps(job) for job in jobs),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout.split() if expect == 0 else done.stderr


def compare(told, found, kind):
    """What our package reads with what the reader found, in every position of every row."""
    positions = found["logits:positions"]
    if isinstance(told, Ragged):
        assert told.lengths.tolist() == positions.tolist()
        told = told.values
    else:
        assert positions.tolist() == [1] * len(told)
    if not isinstance(told, Outcomes):
        tolerance = 1e-5 if kind == "hidden" else 0  # products may be summed in another order
        values = found["logits:values"]
        np.testing.assert_allclose(values, told.numpy(), rtol=tolerance, atol=10 * tolerance)
        return
    close = {"rtol": 1e-6, "atol": 1e-6}
    ends = np.cumsum(found["logits:listed"])[:-1]
    ids, masses = (np.split(found[f"logits:{part}"], ends) for part in ("ids", "log_mass"))
    assert len(ids) == len(told)
    for at, (some, mass) in enumerate(zip(ids, masses, strict=True)):
        listed = told.ids[at][told.ids[at] >= 0].numpy()
        order, other = np.argsort(listed), np.argsort(some)
        np.testing.assert_array_equal(some[other], listed[order])
        np.testing.assert_allclose(mass[other], told.log_mass[at].numpy()[order], **close)
    np.testing.assert_allclose(found["logits:rest"], told.rest.numpy(), **close)
    assert ("logits:entropy" in found) == (told.entropy is not None) == told.sampled
    if told.entropy is not None:
        np.testing.assert_array_equal(found["logits:entropy"], told.entropy.numpy())


@pytest.mark.parametrize("classes", [300, 70_000])
@pytest.mark.parametrize(("kind", "parameters"), KINDS)
def test_the_page_is_enough_to_read_every_codec(tmp_path, kind, parameters, classes):
    stores, jobs = [], []
    for number, (ragged, views, bad) in enumerate(
        (ragged, views, bad) for ragged in (False, True) for views in (1, 3) for bad in (False, True)
    ):
        folder, out = tmp_path / f"{number}", tmp_path / f"{number}.npz"
        store = write_store(
            folder, kind, parameters, classes, ragged=ragged, views=views, bad=bad
        )
        stores.append(store)
        jobs.append({"store": str(folder), "pairs": pairs_of(store), "out": str(out)})
    assert read_alone(jobs) == ["numpy"]
    for store, job in zip(stores, jobs, strict=True):
        ids, views = torch.tensor(job["pairs"]).T
        with np.load(job["out"]) as found:
            compare(store.read(ids, views)["logits"], found, kind)
