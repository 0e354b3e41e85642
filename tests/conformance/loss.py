"""The laws that every loss keeps. Inherit `LossLaws` and give it a `case` fixture.

    class TestSoftTargetKL(LossLaws):
        @pytest.fixture
        def case(self) -> LossCase:
            return LossCase(loss=SoftTargetKL(), target=random_logits, equal=torch.clone)

What a loss does not promise is declared in its case, and the law is then skipped by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

ROWS, COLUMNS = 7, 5
HALVES = [torch.bfloat16, torch.float16]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCase:
    """One loss and what it promises.

    Attributes:
        loss: the module, called with the student's `[batch, width]` and a target.
        target: draws a target for these student rows.
        equal: gives the target at which the loss is exactly 0; None where there is none.
        unlabelled: what a target holds in a row that has none; None where every row has one.
        rowwise: each row's value depends on that row alone. If not, one row has the value 0.
    """

    loss: nn.Module
    target: Callable[[Tensor, torch.Generator], Tensor]
    equal: Callable[[Tensor], Tensor] | None = None
    unlabelled: float | None = None
    rowwise: bool = True


class LossLaws:
    """Every test here is a law; `case` is the loss that must keep it."""

    @pytest.fixture
    def case(self) -> LossCase:
        raise NotImplementedError("a suite of loss laws needs a `case` fixture")

    @pytest.fixture
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(20150309)

    @pytest.fixture
    def rows(self, generator) -> Tensor:
        return 2 * torch.randn(ROWS, COLUMNS, generator=generator)

    def test_it_holds_no_weights_and_no_buffers(self, case):
        assert not case.loss.state_dict()
        assert not list(case.loss.parameters())

    @pytest.mark.parametrize("count", [0, 1, ROWS])
    def test_it_gives_one_finite_value_per_row(self, case, rows, generator, count):
        student = rows[:count].clone().requires_grad_()
        values = case.loss(student, case.target(student.detach(), generator))
        assert values.shape == (count,)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        values.sum().backward()
        assert student.grad.shape == student.shape
        assert student.grad.isfinite().all()

    def test_two_columns_are_enough(self, case, rows, generator):
        student = rows[:, :2]
        assert case.loss(student, case.target(student, generator)).isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
    @pytest.mark.parametrize("scale", [1.0, 1000.0])
    def test_it_is_exactly_zero_at_equality(self, case, rows, dtype, scale):
        if case.equal is None:
            pytest.skip("declared: this loss has no equality")
        student = (scale * rows).to(dtype).requires_grad_()
        values = case.loss(student, case.equal(student.detach()))
        assert (values == 0).all()
        values.sum().backward()
        assert student.grad.abs().max() < 1e-5

    def test_the_gradient_reaches_the_student_and_nothing_else(self, case, rows, generator):
        student = rows.clone().requires_grad_()
        target = case.target(rows, generator)
        if target.is_floating_point():
            target.requires_grad_()
        case.loss(student, target).sum().backward()
        assert (student.grad.abs().sum(dim=1) > 0).all()
        assert target.grad is None

    def test_it_leaves_its_inputs_as_they_are(self, case, rows, generator):
        target = case.target(rows, generator)
        before = rows.clone(), target.clone()
        case.loss(rows, target)
        assert torch.equal(rows, before[0])
        assert torch.equal(target, before[1])

    def test_the_order_of_rows_does_not_matter(self, case, rows, generator):
        target = case.target(rows, generator)
        order = torch.randperm(ROWS, generator=generator)
        moved = case.loss(rows[order], target[order])
        torch.testing.assert_close(moved, case.loss(rows, target)[order])

    def test_one_row_has_the_value_it_has_in_a_batch_or_zero(self, case, rows, generator):
        target = case.target(rows, generator)
        alone = torch.cat([case.loss(rows[i : i + 1], target[i : i + 1]) for i in range(ROWS)])
        expected = case.loss(rows, target) if case.rowwise else torch.zeros(ROWS)
        torch.testing.assert_close(alone, expected)

    def test_duplicate_rows_have_the_same_value(self, case, rows, generator):
        target = case.target(rows, generator)
        values = case.loss(rows.repeat(2, 1), torch.cat([target, target]))
        torch.testing.assert_close(values[:ROWS], values[ROWS:])
        if case.rowwise:
            torch.testing.assert_close(values[:ROWS], case.loss(rows, target))

    def test_a_row_has_no_gradient_from_the_value_of_another(self, case, rows, generator):
        if not case.rowwise:
            pytest.skip("declared: the rows of a batch are related")
        student = rows.clone().requires_grad_()
        case.loss(student, case.target(rows, generator))[0].backward()
        assert (student.grad[1:] == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
    def test_gaps_of_a_thousand_stay_finite(self, case, rows, generator, dtype):
        student = (1000 * rows.sign()).to(dtype).requires_grad_()
        target = case.target(student.detach(), generator)
        if target.is_floating_point():
            target = 1000 * target.sign()
        values = case.loss(student, target)
        assert values.isfinite().all()
        values.sum().backward()
        assert student.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", HALVES)
    def test_half_precision_is_computed_in_float32(self, case, rows, generator, dtype):
        student = rows.to(dtype)
        target = case.target(student, generator)
        values = case.loss(student, target)
        wide = target.float() if target.is_floating_point() else target
        assert values.dtype == torch.float32
        assert torch.equal(values, case.loss(student.float(), wide))

    def test_float64_stays_float64(self, case, rows, generator):
        student = rows.double()
        assert case.loss(student, case.target(student, generator)).dtype == torch.float64

    @pytest.mark.parametrize("wild", [0.0, torch.inf, torch.nan])
    def test_rows_without_a_label_do_not_matter(self, case, rows, generator, wild):
        if case.unlabelled is None:
            pytest.skip("declared: every row has a target")
        target = case.target(rows, generator)
        expected = case.loss(rows, target)
        target[::2] = case.unlabelled
        student = rows.clone()
        student[::2] += wild
        student.requires_grad_()
        values = case.loss(student, target)
        values.sum().backward()
        assert (values[::2] == 0).all()
        assert (student.grad[::2] == 0).all()
        assert student.grad[1::2].isfinite().all()
        torch.testing.assert_close(values[1::2], expected[1::2])

    def test_a_target_of_another_shape_is_refused_with_both_shapes(
        self, case, rows, generator, monkeypatch
    ):
        # jaxtyping would object first; users run without it.
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        target = case.target(rows, generator)
        for wrong in (target[:-1], target[:1], target[..., :1] if target.ndim > 1 else target[0]):
            with pytest.raises(ValueError, match="must hold, but got") as refusal:
                case.loss(rows, wrong)
            assert str(tuple(rows.shape)) in str(refusal.value)
            assert str(tuple(wrong.shape)) in str(refusal.value)
