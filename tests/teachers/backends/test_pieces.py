"""Batches that are answered in pieces."""

import threading

import pytest
import torch

from understudy.contracts import Batch
from understudy.teachers.backends.pieces import InPieces

CPU = torch.device("cpu")


def doubled(sizes, **options):
    """A teacher that doubles its rows and writes down how many it was asked for."""

    def answer(rows):
        sizes.append(len(rows))
        return 2 * rows

    return InPieces(answer, output="logits", device=CPU, **options)


@pytest.mark.parametrize(
    ("options", "rows", "asked"),
    [
        ({}, 5, [5]),
        ({"piece": 4}, 3, [3]),
        ({"piece": 4}, 4, [4]),
        ({"piece": 4}, 9, [4, 4, 1]),
        ({"piece": 4, "padded": True}, 9, [4, 4, 4]),
        ({"piece": 4, "padded": True}, 1, [4]),
        ({"piece": 4, "padded": True}, 8, [4, 4]),
        ({"piece": 4}, 0, [0]),
        ({}, 0, [0]),
    ],
)
def test_every_row_is_answered_in_its_place(options, rows, asked):
    sizes = []
    inputs = torch.arange(2.0 * rows).reshape(rows, 2)
    found = doubled(sizes, **options)(Batch(inputs=inputs))["logits"]
    assert torch.equal(found, 2 * inputs)
    assert sizes == asked


def test_the_teachers_own_rows_are_asked_where_there_are_some():
    batch = Batch(inputs=torch.zeros(3, 2), teacher_inputs=torch.ones(3, 4))
    assert torch.equal(doubled([], piece=2)(batch)["logits"], torch.full((3, 4), 2.0))


@pytest.mark.parametrize("options", [{"padded": True}, {"piece": 0}, {"piece": -1}])
def test_a_piece_must_have_a_row(options):
    with pytest.raises(ValueError, match="`piece >= 1` must hold"):
        doubled([], **options)


def test_pieces_are_computed_at_once_and_come_back_in_order():
    together = threading.Barrier(3)  # nobody passes alone

    def answer(rows):
        together.wait(timeout=30)
        return 2 * rows

    inputs = torch.arange(12.0).reshape(6, 2)
    found = InPieces(answer, output="logits", device=CPU, piece=2, threads=3)
    assert torch.equal(found(Batch(inputs=inputs))["logits"], 2 * inputs)


def test_an_error_in_a_thread_reaches_the_caller():
    def answer(rows):
        raise ValueError("these rows not")

    found = InPieces(answer, output="logits", device=CPU, piece=2, threads=2)
    with pytest.raises(ValueError, match="these rows not"):
        found(Batch(inputs=torch.zeros(4, 2)))
