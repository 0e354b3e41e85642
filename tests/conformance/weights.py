"""The laws that every constraint on weights keeps. Inherit `WeightLaws` and give it a `case`.

    class TestL2SP(WeightLaws):
        @pytest.fixture
        def case(self) -> WeightCase:
            return WeightCase(loss=L2SP(), reference=written_out, degree=2)

A constraint reads the student's weights and what they were at the start, both by name, and gives
one number. What a constraint does not promise is declared in its case.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SHAPES = {"conv.weight": (4, 3, 3, 3), "fc.weight": (6, 8), "tall.weight": (9, 5), "bias": (6,)}
HALVES = [torch.bfloat16, torch.float16]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCase:
    """One constraint, and what it promises.

    Attributes:
        loss: the module, called with the weights and their starts.
        reference: the same in NumPy's float64, from arrays by name.
        degree: the power with which it grows as the weights go away from the start; None where it
            measures something else than that distance.
        home: whether it is 0 at the start, and its gradient points back there from anywhere.
    """

    loss: nn.Module
    reference: Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], float]
    degree: int | None = None
    home: bool = True


def weights(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random weights of several kinds of layers."""
    generator = torch.Generator().manual_seed(seed)
    made = {n: torch.randn(*s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()}
    return {name: value.to(dtype) for name, value in made.items()}


def leaves(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values, with gradients of their own."""
    return {name: value.clone().requires_grad_() for name, value in values.items()}


class WeightLaws:
    """Every test here is a law; `case` is the constraint that must keep it."""

    @pytest.fixture
    def case(self) -> WeightCase:
        raise NotImplementedError("a suite of laws on weights needs a `case` fixture")

    def test_it_is_the_reference_in_float64(self, case):
        own, start = weights(1), weights(2)
        value = case.loss(own, start)
        assert value.shape == ()
        assert value.dtype == torch.float64
        told = case.reference(*({n: v.numpy() for n, v in side.items()} for side in (own, start)))
        assert float(value) == pytest.approx(told, rel=1e-10)
        assert float(value) > 0

    def test_the_gradient_is_that_of_finite_differences(self, case):
        own, start = leaves(weights(3)), weights(4)
        names = list(own)

        def value(*values):
            return case.loss(dict(zip(names, values, strict=True)), start)

        torch.autograd.gradcheck(value, tuple(own.values()))

    def test_it_is_zero_at_the_start_without_a_pull(self, case):
        if not case.home:
            pytest.skip("declared: it does not measure from the start")
        own, start = leaves(weights(5)), weights(5)
        value = case.loss(own, start)
        value.backward()
        assert float(value.detach()) == 0
        assert all((w.grad is None or (w.grad == 0).all()) for w in own.values())

    def test_the_gradient_points_back_to_the_start(self, case):
        if not case.home:
            pytest.skip("declared: it does not measure from the start")
        own, start = leaves(weights(6)), weights(7)
        case.loss(own, start).backward()
        for name, weight in own.items():
            away = (weight.detach() - start[name]).flatten()
            way = torch.nn.functional.cosine_similarity(weight.grad.flatten(), away, dim=0)
            assert float(way) == pytest.approx(1, abs=1e-9), name

    def test_it_grows_with_the_distance_as_it_says(self, case):
        if case.degree is None:
            pytest.skip("declared: it is no power of the distance")
        start = weights(8)
        steps = weights(9)
        at = [
            float(case.loss({n: start[n] + far * steps[n] for n in start}, start))
            for far in (1.0, 3.0)
        ]
        assert at[1] / at[0] == pytest.approx(3**case.degree, rel=1e-9)

    def test_a_step_against_the_gradient_makes_it_smaller(self, case):
        own, start = leaves(weights(10)), weights(11)
        value = case.loss(own, start)
        value.backward()
        after = {n: w.detach() - 1e-4 * (0 if w.grad is None else w.grad) for n, w in own.items()}
        assert float(case.loss(after, start)) < float(value.detach())

    @pytest.mark.parametrize("dtype", HALVES)
    def test_half_precision_is_computed_in_float32(self, case, dtype):
        own, start = weights(12, dtype), weights(13, dtype)
        value = case.loss(own, start)
        assert value.dtype == torch.float32
        wide = ({n: v.float() for n, v in side.items()} for side in (own, start))
        assert torch.equal(value, case.loss(*wide))

    def test_neither_side_is_changed_and_the_start_gets_no_gradient(self, case):
        own, start = leaves(weights(14)), leaves(weights(15))
        before = [v.detach().clone() for side in (own, start) for v in side.values()]
        fixed = {name: value.detach() for name, value in start.items()}
        case.loss(own, fixed).backward()
        now = [v.detach() for side in (own, start) for v in side.values()]
        assert all(torch.equal(one, two) for one, two in zip(now, before, strict=True))

    def test_without_weights_it_is_zero(self, case):
        assert float(case.loss({}, {})) == 0
