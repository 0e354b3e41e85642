"""Losses on embeddings: laws first, then an independent float64 reference, then what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from conformance.loss import LossCase, LossLaws
from understudy.losses.embeddings import CosineDistance, cosine_distance

quickly = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31 - 1)


class TestCosineDistance(LossLaws):
    @pytest.fixture
    def case(self):
        return LossCase(
            loss=CosineDistance(),
            target=lambda student, generator: torch.randn(student.shape, generator=generator).to(
                student.dtype
            ),
            equal=torch.clone,
        )


@quickly
@given(seed=seeds, width=st.integers(2, 9))
def test_it_agrees_with_a_float64_reference(seed, width):
    student, teacher = np.random.default_rng(seed).standard_normal((2, 6, width))
    expected = [cosine(own, goal) for own, goal in zip(student, teacher, strict=True)]
    found = cosine_distance(torch.tensor(student), torch.tensor(teacher)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@quickly
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_lengths_do_not_matter_and_are_not_moved(seed, factor):
    student, teacher = torch.tensor(np.random.default_rng(seed).standard_normal((2, 6, 4)))
    student.requires_grad_()
    values = cosine_distance(student, teacher)
    torch.testing.assert_close(cosine_distance(student * factor, teacher), values)
    values.sum().backward()
    along = (student.grad * student.detach()).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_near_equality_it_keeps_its_digits():
    teacher = torch.tensor([[1.0, 0.0]])
    student = torch.tensor([[1.0, 1e-5]])
    assert cosine_distance(student, teacher).item() == pytest.approx(5e-11, rel=1e-5)
    assert 1 - torch.cosine_similarity(student, teacher).item() == 0  # the obvious form loses them


def test_of_vectors_of_length_1_it_is_the_squared_error_times_half_the_width():
    generator = torch.Generator().manual_seed(0)
    own, goal = torch.nn.functional.normalize(torch.randn(2, 5, 8, generator=generator), dim=-1)
    expected = (own - goal).square().mean(dim=1) * 4
    torch.testing.assert_close(cosine_distance(own, goal), expected)


def test_a_vector_without_direction_is_half_away_from_any_other_and_not_moved():
    student = torch.zeros(1, 3, requires_grad=True)
    values = cosine_distance(student, torch.tensor([[1.0, 2.0, 3.0]]))
    assert values.item() == pytest.approx(0.5)
    values.sum().backward()
    assert (student.grad == 0).all()


@pytest.mark.usefixtures("as_users_run_it")
def test_nothing_is_stretched_and_both_shapes_are_named():
    with pytest.raises(ValueError, match=r"got student \(8, 1\) and teacher \(8, 10\)"):
        cosine_distance(torch.zeros(8, 1), torch.zeros(8, 10))
