"""One store of answers, read again by whoever learns."""

import numpy as np
import pytest
import torch
from torch import nn

from blockwise.clan import HEAPS, LEARN, ROWS, rows
from understudy.blockwise.lessons import (
    Lesson,
    Within,
    learn,
    narrowed,
    soft_and_hard,
    stored,
)
from understudy.contracts import Batch, Knowledge
from understudy.data.loaders import MemoryLoader
from understudy.errors import DataError, ModelError, StoreError
from understudy.recipe import Optimizer, Training

TRAINING = Training(epochs=2, batch_size=24)


class Counting(nn.Module):
    """Random weights in the place of a teacher; it counts the rows that it is asked for."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(4, 6)
        self.asked = 0

    def forward(self, inputs):
        self.asked += len(inputs)
        return self.layer(inputs)


def batches(positions, seed):
    inputs, labels = rows()
    return MemoryLoader(
        inputs=inputs, labels=labels, ids=torch.arange(ROWS), positions=positions,
        batch_size=24, seed=seed,
    )  # fmt: skip


def lesson(teacher, **changes):
    settings = {"positions": np.arange(LEARN), "classes": 6, "training": TRAINING} | changes
    return Lesson(teacher=teacher, batches=batches, **settings)


def test_a_teacher_is_asked_once_whoever_learns(tmp_path):
    inputs, labels = rows()
    network = Counting()
    teacher = stored(network, inputs, tmp_path / "store")
    assert network.asked == ROWS
    again = stored(network, inputs, tmp_path / "store", batch_size=256)
    told = labels.numpy()
    for _ in range(2):
        learn(nn.Linear(4, 6), lesson(teacher))
    learn(nn.Linear(4, 3), narrowed(lesson(again), HEAPS[0], told))
    assert network.asked == ROWS
    said = teacher(Batch(inputs=inputs[:5], ids=torch.arange(5))).tensor("logits")
    with torch.no_grad():
        assert torch.allclose(said, network(inputs[:5]), atol=1e-6)


def test_answers_of_another_network_are_not_taken(tmp_path):
    inputs, _ = rows()
    stored(Counting(), inputs, tmp_path / "store")
    with pytest.raises(StoreError):
        stored(Counting(seed=1), inputs, tmp_path / "store")
    with pytest.raises(DataError, match="got 3 for 360 rows"):
        stored(Counting(), inputs, tmp_path / "other", ids=torch.arange(3))


def test_a_student_comes_nearer_to_the_stored_answers(tmp_path):
    inputs, _ = rows()
    network = Counting()
    teacher = stored(network, inputs, tmp_path / "store")
    torch.manual_seed(5)
    student = nn.Linear(4, 6)
    quick = Training(epochs=8, batch_size=24, optimizer=Optimizer(learning_rate=0.02))
    fitted = learn(student, lesson(teacher, training=quick))
    losses = [point["parts"]["soft_target"] for point in fitted.points]
    assert losses[-1] < 0.5 * losses[0]


def test_a_teacher_within_a_group_is_renormalised():
    class Live:
        offers = frozenset({"logits", "hidden"})

        def __call__(self, batch: Batch) -> Knowledge:
            return Knowledge(fields={"logits": batch.inputs})

    answers = torch.randn(7, 6)
    small = Within(Live(), (4, 1))
    assert small.offers == {"logits"}
    told = small(Batch(inputs=answers)).tensor("logits").softmax(dim=1)
    whole = answers.softmax(dim=1)[:, [4, 1]]
    assert torch.allclose(told, whole / whole.sum(dim=1, keepdim=True), atol=1e-6)


def test_a_groups_lesson_has_its_rows_and_counts_its_classes(tmp_path):
    inputs, labels = rows()
    teacher = stored(Counting(), inputs, tmp_path / "store")
    whole = lesson(teacher, held_out=np.arange(LEARN, ROWS))
    own = narrowed(whole, (4, 0, 2), labels.numpy())
    assert own.classes == 3
    assert (labels[own.positions] % 2 == 0).all()
    assert len(own.positions) == LEARN // 2
    assert len(own.held_out) == (ROWS - LEARN) // 2
    loader = own.batches(own.positions, 0)
    loader.sampler.set_epoch(1)
    seen = list(loader)
    assert len(seen) == len(loader)
    for batch in seen:
        assert torch.equal(torch.tensor([4, 0, 2])[batch.labels], labels[batch.ids])
    second = torch.cat([batch.ids for batch in seen])
    loader.sampler.set_epoch(0)
    assert not torch.equal(second, torch.cat([batch.ids for batch in loader]))


def test_rows_of_other_classes_have_no_label_in_a_group(tmp_path):
    inputs, labels = rows()
    teacher = stored(Counting(), inputs, tmp_path / "store")
    # The teacher's first choice may differ from the label: here it does so everywhere.
    own = narrowed(lesson(teacher), HEAPS[0], (labels.numpy() + 1) % 6)
    assert all((batch.labels == -1).all() for batch in own.batches(own.positions, 0))
    assert (labels[own.positions] % 2 == 1).all()


def test_a_group_without_rows_is_refused(tmp_path):
    inputs, labels = rows()
    teacher = stored(Counting(), inputs, tmp_path / "store")
    few = lesson(teacher, positions=np.arange(0, LEARN, 2))
    with pytest.raises(DataError, match=r"classes \[1, 3\] are needed to learn from"):
        narrowed(few, (1, 3), labels.numpy())


def test_the_usual_objective_needs_logits():
    class Deaf:
        offers = frozenset({"values"})

        def __call__(self, batch: Batch) -> Knowledge:
            return Knowledge()

    with pytest.raises(ModelError, match="logits"):
        soft_and_hard(Deaf(), 6)


def test_a_precision_that_each_student_would_find_for_itself_is_refused(tmp_path):
    teacher = stored(Counting(), rows()[0], tmp_path / "store")
    open_ = TRAINING.model_copy(update={"precision": "auto"})
    with pytest.raises(ValueError, match="students that are compared must compute alike"):
        lesson(teacher, training=open_)
