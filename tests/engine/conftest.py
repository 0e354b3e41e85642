"""A small problem that trains in a moment, and one call that trains on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from understudy.contracts import Batch, Knowledge
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.losses import HardLabel, SoftTargetKL
from understudy.objective import Objective, Term
from understudy.recipe import Training
from understudy.tasks import Classification

ROWS, TRAIN, CLASSES = 100, 80, 3


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, whatever machine this is."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(kw_only=True)
class Problem:
    """Rows of three classes, a student with dropout, and a teacher that is a fixed matrix."""

    inputs: torch.Tensor
    labels: torch.Tensor
    task: Any
    matrix: torch.Tensor

    def loader(self, first=0, last=TRAIN, *, seed=3, **changes):
        options = {"labels": self.labels, "batch_size": 16, "seed": seed} | changes
        positions = np.arange(first, last)
        return MemoryLoader(
            inputs=self.inputs, ids=torch.arange(ROWS), positions=positions, **options
        )

    def student(self, *, seed=1, dropout=0.3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, CLASSES)]
            return nn.Sequential(*layers)

    def teacher(self):
        return Matrix(self.matrix)

    def objective(self, *, soft=True, hard=True):
        terms = []
        if hard:
            terms.append(Term(name="hard_label", loss=HardLabel(), reads="logits", labels=True))
        if soft:
            loss = SoftTargetKL(temperature=2.0)
            terms.append(Term(name="soft_target", loss=loss, reads="logits", needs=("logits",)))
        return Objective(terms, task=self.task, offers=frozenset({"logits"}))

    def accuracy(self, outputs, labels):
        return float((outputs.argmax(dim=1) == labels).float().mean())

    def fit(self, *, student=None, soft=True, folder=None, settings=None, **changes):
        """Train; the result and the student."""
        student = self.student() if student is None else student
        options = {
            "objective": self.objective(soft=soft),
            "teacher": self.teacher() if soft else None,
            "training": training(**(settings or {})),
            "loader": self.loader(),
            "validation": self.loader(TRAIN, ROWS, seed=None),
            "validate": self.accuracy,
            "seed": 5,
        }
        return fit(student=student, folder=folder, **(options | changes)), student

    def fit_until(self, step, **changes):
        """Train until something goes wrong in this step."""

        def on_step(done):
            if done == step:
                raise StoppedError

        with pytest.raises(StoppedError):
            self.fit(on_step=on_step, **changes)


class StoppedError(Exception):
    """What goes wrong."""


class Matrix:
    """A teacher that remembers which batches it was asked for."""

    def __init__(self, matrix):
        self.matrix, self.asked = matrix, []

    @property
    def offers(self) -> frozenset[str]:
        return frozenset({"logits"})

    def __call__(self, batch: Batch) -> Knowledge:
        self.asked.append(batch.ids.tolist())
        return Knowledge(fields={"logits": batch.inputs @ self.matrix})


def training(**changes):
    plain = {"epochs": 5, "batch_size": 16, "checkpoint_seconds": 0.0} | changes
    return Training.model_validate(plain)


@pytest.fixture
def settings():
    """Training settings from plain data."""
    return training


@pytest.fixture
def problem():
    """The problem, always the same."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 6, generator=generator)
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    matrix = 2 * torch.randn(6, CLASSES, generator=generator)
    task = Classification(classes=("a", "b", "c"))
    return Problem(inputs=inputs, labels=labels, task=task, matrix=matrix)


@pytest.fixture
def same():
    """Whether two modules hold the same bits."""

    def compare(one, other):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)

    return compare
