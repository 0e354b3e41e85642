"""The predicted mean and variance."""

import math

import pytest
import torch
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.variance import Variance


class TestVariance(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Variance,
            student=[(4, 6, 8), (3, 2, 6), (7, 4), (4,)],
            teacher=[(5, 3, 4), (4, 4, 3), (7, 6), (3,)],
            gives=[(5, 3, 4), (4, 2, 3), (7, 6), (3,)],
            values={"log_scale": [(5,), (4,), (6,), (3,)]},
        )


@pytest.mark.parametrize(("variance", "eps"), [(5.0, 1e-5), (0.01, 1e-3), (90.0, 1e-5)])
def test_the_variance_starts_where_it_is_told_to(variance, eps):
    adapter = Variance([(4, 2, 3)], [(5, 2, 3)], variance=variance, eps=eps).double()
    assert torch.allclose(
        F.softplus(adapter.log_scales[0]) + eps, torch.tensor(variance).double(), rtol=1e-6
    )


def test_the_authors_start():
    start = math.log(math.exp(5.0 - 1e-5) - 1.0)
    assert Variance([(4,)], [(3,)]).log_scales[0].tolist() == pytest.approx([start] * 3, rel=1e-6)


def test_the_mean_is_three_layers_without_bias_as_wide_as_the_teacher():
    adapter = Variance([(4, 2, 3)], [(5, 2, 3)])
    shapes = [tuple(p.shape) for p in adapter.means.parameters()]
    assert shapes == [(5, 4, 1, 1), (5, 5, 1, 1), (5, 5, 1, 1)]
    (own,) = rows_of([(4, 2, 3)], 2, torch.Generator().manual_seed(0))
    first, second, third = (p[:, :, 0, 0] for p in adapter.means.parameters())
    inner = torch.einsum("oi,bihw->bohw", first, own).relu()
    inner = torch.einsum("oi,bihw->bohw", second, inner).relu()
    made = adapter([own], [torch.zeros(2, 5, 2, 3)], batch_of([own])).student[0]
    torch.testing.assert_close(made, torch.einsum("oi,bihw->bohw", third, inner))


def test_a_larger_teacher_is_averaged_down():
    own, goal = rows_of([(4, 2, 3), (5, 4, 6)], 2, torch.Generator().manual_seed(0))
    made = Variance([(4, 2, 3)], [(5, 4, 6)])([own], [goal], batch_of([own]))
    torch.testing.assert_close(made.teacher[0], F.avg_pool2d(goal, 2))


@pytest.mark.parametrize(("own", "goal"), [((4,), (5, 2, 3)), ((7, 4), (8, 4))])
def test_features_that_are_not_alike_are_refused(own, goal):
    with pytest.raises(ModelError, match="name layers of one kind"):
        Variance([own], [goal])


@pytest.mark.parametrize("constants", [{"variance": 0.0}, {"eps": 0.0}, {"variance": float("nan")}])
def test_a_variance_below_its_floor_is_refused(constants):
    with pytest.raises(ModelError, match="0 < eps < variance"):
        Variance([(4,)], [(5,)], **constants)
