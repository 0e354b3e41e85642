"""A teacher that answers at every token: the positions that count are stored, by every codec."""

import numpy as np
import pytest
import torch

from labels.conftest import record_ids
from understudy.contracts import Batch, Knowledge, Ragged
from understudy.errors import ModelError, StoreError
from understudy.labels import codecs
from understudy.labels.portions import Keep
from understudy.labels.store import LabelStore
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.checked import CheckedTeacher

CLASSES, LENGTH = 40, 6
IDS = np.arange(50, 62)


def counted(ids):
    """Which positions of an example count; the fifth has none at all."""
    wanted = [[(number * 5 + at * 3) % 4 == 0 and number != 54 for at in range(LENGTH)]
              for number in ids]  # fmt: skip
    return torch.tensor(wanted)


def answers(ids, views):
    """The logits of every token, of those that do not count too."""
    draws = [np.random.default_rng([int(i), int(v)]) for i, v in zip(ids, views, strict=True)]
    return torch.from_numpy(np.stack([draw.normal(size=(LENGTH, CLASSES)) * 3 for draw in draws]))


class Tagger:
    """Dense answers, `[batch, length, classes]`, not finite where nobody asks."""

    offers = frozenset({"logits"})

    def __call__(self, batch):
        views = torch.zeros_like(batch.ids) if batch.views is None else batch.views
        found = answers(batch.ids.tolist(), views.tolist())
        found[~batch.positions] = torch.nan
        return Knowledge(fields={"logits": found})


def batches(start, stop):
    for first in range(start, stop, 4):
        rows = np.arange(first, min(first + 4, stop))
        ids = IDS[rows % len(IDS)]
        yield Batch(
            inputs=torch.zeros(len(ids), LENGTH, dtype=torch.int64),
            ids=torch.from_numpy(ids),
            views=torch.from_numpy(1 + rows // len(IDS)),
            positions=counted(ids.tolist()),
        )


@pytest.mark.parametrize(
    ("kind", "parameters", "near"),
    [("dense", {}, 0.01), ("int8", {}, 0.1), ("top_k", {"k": 5}, None),
     ("top_p", {"k": 20}, None), ("sampled", {"draws": 30}, None)],
)  # fmt: skip
def test_positions_that_count_come_back_by_id_and_view(tmp_path, kind, parameters, near):
    keep = {"logits": Keep(codec=codecs.make(kind, parameters, {}), reads="logits")}
    teacher = CheckedTeacher(Tagger(), compare=False)
    record_ids(tmp_path / "s", teacher=teacher, ids=IDS, keep=keep, views=2, batches=batches)
    cached = CachedTeacher(LabelStore(tmp_path / "s"))
    wanted = [57, 54, 50]
    batch = Batch(inputs=torch.zeros(3, LENGTH), ids=torch.tensor(wanted),
                  views=torch.tensor([2, 1, 1]), positions=counted(wanted))  # fmt: skip
    told = CheckedTeacher(cached, compare=False)(batch)["logits"]
    assert isinstance(told, Ragged)
    assert told.lengths.tolist() == counted(wanted).sum(dim=1).tolist()
    expected = answers(wanted, [2, 1, 1])[counted(wanted)].log_softmax(dim=1)
    if near is not None:
        assert (told.values.log_softmax(dim=1) - expected).abs().max() < near
    else:
        assert len(told.values) == len(expected)
        if not told.values.sampled:
            listed = told.values.ids >= 0
            goal = expected.gather(1, told.values.ids.clamp(min=0).long())
            assert (told.values.log_mass - goal)[listed].abs().max() < 0.2


def test_bad_positions_are_told_by_the_id_of_their_row(tmp_path):
    class Broken(Tagger):
        def __call__(self, batch):
            found = super().__call__(batch)["logits"]
            found[batch.ids == 57] = torch.inf
            return Knowledge(fields={"logits": found})

    wanted = [50, 57, 58]
    batch = Batch(inputs=torch.zeros(3, LENGTH), ids=torch.tensor(wanted),
                  positions=counted(wanted))  # fmt: skip
    with pytest.raises(ModelError, match=r"1 of 3 rows are not \(rows 57\)"):
        CheckedTeacher(Broken(), compare=False)(batch)
    keep = {"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")}
    with pytest.raises(StoreError, match=r"1 of 3 rows are not \(ids 57"):
        record_ids(tmp_path, teacher=Broken(), ids=np.array(wanted), keep=keep,
                   batches=lambda *_: iter([batch]))  # fmt: skip


def test_a_store_of_other_positions_is_refused(tmp_path):
    keep = {"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")}
    record_ids(tmp_path / "s", teacher=Tagger(), ids=IDS, keep=keep, views=2, batches=batches)
    wanted = [50, 57]
    batch = Batch(inputs=torch.zeros(2, LENGTH), ids=torch.tensor(wanted),
                  views=torch.tensor([1, 1]), positions=~counted(wanted))  # fmt: skip
    teacher = CheckedTeacher(CachedTeacher(LabelStore(tmp_path / "s")), compare=False)
    with pytest.raises(ModelError, match="must be told of every position that counts"):
        teacher(batch)
