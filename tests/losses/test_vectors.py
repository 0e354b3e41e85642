"""Losses on vectors: laws first, then independent float64 references, then what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.loss import LossCase, LossLaws
from understudy.losses.vectors import BatchMargin, EmbeddingMSE, batch_margin, embedding_mse

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)


def another(student, generator):
    return torch.randn(student.shape, generator=generator).to(student.dtype)


class TestEmbeddingMSE(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(loss=EmbeddingMSE(), target=another, equal=torch.clone)


@quickly
@given(seed=seeds, width=st.integers(1, 9))
def test_the_squared_error_agrees_with_a_float64_reference(seed, width):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 6, width))
    found = embedding_mse(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(found, ((student - teacher) ** 2).mean(axis=1), rtol=1e-12)


@quickly
@given(seed=seeds, rows=st.integers(3, 7), width=st.integers(2, 5))
def test_margins_agree_with_a_loop_over_pairs(seed, rows, width):
    generator = np.random.default_rng(seed)
    student = generator.standard_normal((rows, width))
    teacher = generator.standard_normal((rows, width + 1))

    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    expected = []
    for row in range(rows):
        others = [n for n in range(rows) if n != row]
        near = max(others, key=lambda n: cosine(teacher[row], teacher[n]))
        gaps = [
            (cosine(student[row], student[near]) - cosine(student[row], student[n]))
            - (cosine(teacher[row], teacher[near]) - cosine(teacher[row], teacher[n]))
            for n in others
            if n != near
        ]
        expected.append(np.mean(np.square(gaps)))
    found = batch_margin(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_margins_are_zero_at_equality_and_blind_to_rotation_and_length():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    turned, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    found = batch_margin(3.0 * teacher @ turned, teacher)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_rows_prefer_nothing_and_still_have_a_graph(rows):
    student = torch.randn(rows, 4, requires_grad=True)
    values = BatchMargin()(student, torch.randn(rows, 4))
    assert values.tolist() == [0.0] * rows
    values.sum().backward()
    assert (student.grad == 0).all()


@pytest.mark.usefixtures("as_users_run_it")
def test_other_rows_are_refused():
    with pytest.raises(ValueError, match="give both one row per example"):
        batch_margin(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="must"):
        embedding_mse(torch.zeros(3, 2), torch.zeros(3, 4))
