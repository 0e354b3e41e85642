"""The laws that every loss keeps. Inherit `LossLaws` and give it a `case` fixture.

    class TestSoftTargetKL(LossLaws):
        @pytest.fixture
        def case(self) -> LossCase:
            return LossCase(loss=SoftTargetKL(), target=random_logits, equal=torch.clone)

A loss of feature maps says what its student's rows look like (`shape`), and one that takes several
layers at once gives several shapes; everything per row is then a list of tensors. What a loss does
not promise is declared in its case, and the law is then skipped by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

ROWS, COLUMNS = 7, 5
HALVES = [torch.bfloat16, torch.float16]

# One tensor, or one per layer; the first axis is always the row.
Rows = Tensor | list[Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossCase:
    """One loss and what it promises.

    Attributes:
        loss: the module, called with the student's rows and a target; nothing of it is learnt.
        target: draws a target for these student rows.
        shape: of one row of the student; a list of shapes where it takes several layers at once.
        also: draws what else it is called with, by name, one entry per row (labels), for these
            student rows.
        constants: keywords that are the same for every call (an adapter's values).
        equal: gives the target at which the loss is exactly 0; None where there is none.
        unlabelled: what a target holds in a row that has none; None where every row has one.
        rowwise: each row's value depends on that row alone. If not, one row has the value 0.
        alone: False where a part of the loss relates rows and a part does not, so that nothing
            is said about the value of one row.
        narrow: the shape of the narrowest row that it takes (two classes, a map of one column);
            None where `shape` is already.
        every_row: whether each row of random ones has a gradient.
        gaps: whether values of a thousand stay finite in half precision too.
        smooth: False where the gradient at equality is not 0 (a norm has none there).
        both: whether the teacher's side learns too, since an adapter made it (an embedding).
        shapes: whether a target of another shape is refused; a relation takes another width.
    """

    loss: nn.Module
    target: Callable[[Rows, torch.Generator], Rows]
    shape: tuple[int, ...] | list[tuple[int, ...]] = (COLUMNS,)
    also: Callable[[Rows, torch.Generator], dict[str, Tensor]] | None = None
    constants: dict[str, object] = field(default_factory=dict)
    equal: Callable[[Rows], Rows] | None = None
    unlabelled: float | None = None
    rowwise: bool = True
    alone: bool = True
    narrow: tuple[int, ...] | list[tuple[int, ...]] | None = (2,)
    every_row: bool = True
    gaps: bool = True
    smooth: bool = True
    both: bool = False
    shapes: bool = True


def each(change: Callable[[Tensor], Tensor], rows: Rows) -> Rows:
    """The same change to every tensor."""
    return [change(r) for r in rows] if isinstance(rows, list) else change(rows)


def listed(rows: Rows) -> list[Tensor]:
    """The tensors, one or several."""
    return rows if isinstance(rows, list) else [rows]


def draw(shape, count: int, generator: torch.Generator, scale: float = 2.0) -> Rows:
    """Random rows of a shape or of several."""
    if isinstance(shape, list):
        return [draw(s, count, generator, scale) for s in shape]  # type: ignore[misc]
    return scale * torch.randn(count, *shape, generator=generator)


def leaf(rows: Rows) -> Rows:
    """The same values, with a gradient of their own."""
    return each(lambda r: r.detach().clone().requires_grad_(r.is_floating_point()), rows)


class LossLaws:
    """Every test here is a law; `case` is the loss that must keep it."""

    @pytest.fixture
    def case(self) -> LossCase:
        raise NotImplementedError("a suite of loss laws needs a `case` fixture")

    @pytest.fixture
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(20150309)

    @pytest.fixture
    def rows(self, case, generator) -> Rows:
        return draw(case.shape, ROWS, generator)

    @pytest.fixture
    def also(self, case, rows, generator) -> dict[str, Tensor]:
        return case.also(rows, generator) if case.also else {}

    def test_it_holds_no_weights_and_no_buffers(self, case):
        assert not case.loss.state_dict()
        assert not list(case.loss.parameters())

    @pytest.mark.parametrize("count", [0, 1, 2, ROWS])
    def test_it_gives_one_finite_value_per_row(self, case, rows, also, generator, count):
        student = leaf(each(lambda r: r[:count], rows))
        target = case.target(each(torch.detach, student), generator)
        extra = {name: value[:count] for name, value in also.items()}
        values = case.loss(student, target, **extra, **case.constants)
        assert values.shape == (count,)
        assert values.dtype == torch.float32
        assert values.isfinite().all()
        values.sum().backward()
        for part in listed(student):
            assert part.grad is None or part.grad.isfinite().all()

    def test_the_narrowest_rows_are_enough(self, case, generator):
        if case.narrow is None:
            pytest.skip("declared: its rows are already the narrowest")
        student = draw(case.narrow, ROWS, generator)
        extra = case.also(student, generator) if case.also else {}
        values = case.loss(student, case.target(student, generator), **extra, **case.constants)
        assert values.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
    @pytest.mark.parametrize("scale", [1.0, 1000.0])
    def test_it_is_exactly_zero_at_equality(self, case, rows, also, dtype, scale):
        if case.equal is None:
            pytest.skip("declared: this loss has no equality")
        if scale > 1 and dtype in HALVES and not case.gaps:
            pytest.skip("declared: half precision overflows at such values")
        student = leaf(each(lambda r: (scale * r).to(dtype), rows))
        target = case.equal(each(torch.detach, student))
        values = case.loss(student, target, **also, **case.constants)
        assert (values == 0).all()
        values.sum().backward()
        for part in listed(student):
            assert part.grad.isfinite().all()
            assert not case.smooth or part.grad.abs().max() < 1e-5

    def test_the_gradient_reaches_the_student_and_nothing_else(self, case, rows, also, generator):
        student = leaf(rows)
        target = leaf(case.target(rows, generator))
        case.loss(student, target, **also, **case.constants).sum().backward()
        for part in listed(student):
            moved = part.grad.reshape(ROWS, -1).abs().sum(dim=1) > 0
            assert moved.all() if case.every_row else moved.any()
        assert all((part.grad is not None) == case.both for part in listed(target))

    def test_it_leaves_its_inputs_as_they_are(self, case, rows, also, generator):
        target = case.target(rows, generator)
        before = each(torch.clone, rows), each(torch.clone, target)
        case.loss(rows, target, **also, **case.constants)
        for now, then in zip(listed(rows), listed(before[0]), strict=True):
            assert torch.equal(now, then)
        for now, then in zip(listed(target), listed(before[1]), strict=True):
            assert torch.equal(now, then)

    def test_the_order_of_rows_does_not_matter(self, case, rows, also, generator):
        target = case.target(rows, generator)
        order = torch.randperm(ROWS, generator=generator)

        def mixed(value):
            return value[order]

        extra = {name: value[order] for name, value in also.items()}
        moved = case.loss(each(mixed, rows), each(mixed, target), **extra, **case.constants)
        whole = case.loss(rows, target, **also, **case.constants)
        torch.testing.assert_close(moved, whole[order], rtol=1e-4, atol=1e-6)

    def test_one_row_has_the_value_it_has_in_a_batch_or_zero(self, case, rows, also, generator):
        if not case.alone:
            pytest.skip("declared: a part of this loss relates rows")
        target = case.target(rows, generator)
        parts = []
        for i in range(ROWS):
            extra = {name: value[i : i + 1] for name, value in also.items()}
            own, goal = (each(lambda r, i=i: r[i : i + 1], x) for x in (rows, target))
            parts.append(case.loss(own, goal, **extra, **case.constants))
        whole = case.loss(rows, target, **also, **case.constants)
        expected = whole if case.rowwise else torch.zeros(ROWS)
        torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-4, atol=1e-6)

    def test_duplicate_rows_have_the_same_value(self, case, rows, also, generator):
        target = case.target(rows, generator)

        def twice(value):
            return torch.cat([value, value])

        student = leaf(each(twice, rows))
        extra = {name: twice(value) for name, value in also.items()}
        values = case.loss(student, each(twice, target), **extra, **case.constants)
        torch.testing.assert_close(values[:ROWS], values[ROWS:], rtol=1e-4, atol=1e-6)
        if case.rowwise:
            whole = case.loss(rows, target, **also, **case.constants)
            torch.testing.assert_close(values[:ROWS], whole, rtol=1e-4, atol=1e-6)
        values.sum().backward()
        assert all(part.grad.isfinite().all() for part in listed(student))

    def test_a_row_has_no_gradient_from_the_value_of_another(self, case, rows, also, generator):
        if not case.rowwise:
            pytest.skip("declared: the rows of a batch are related")
        student = leaf(rows)
        target = case.target(rows, generator)
        case.loss(student, target, **also, **case.constants)[0].backward()
        assert all((part.grad[1:] == 0).all() for part in listed(student))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES])
    def test_gaps_of_a_thousand_stay_finite(self, case, rows, also, generator, dtype):
        if dtype in HALVES and not case.gaps:
            pytest.skip("declared: half precision overflows at such values")
        student = leaf(each(lambda r: (1000 * r.sign()).to(dtype), rows))
        target = case.target(each(torch.detach, student), generator)
        target = each(lambda t: 1000 * t.sign() if t.is_floating_point() else t, target)
        values = case.loss(student, target, **also, **case.constants)
        assert values.isfinite().all()
        values.sum().backward()
        assert all(part.grad.isfinite().all() for part in listed(student))

    def test_constant_rows_stay_finite(self, case, rows, also, generator):
        # Nothing to normalise by: a dead layer, a student at its start.
        student = leaf(each(torch.zeros_like, rows))
        target = case.target(rows, generator)
        values = case.loss(student, target, **also, **case.constants)
        assert values.isfinite().all()
        values.sum().backward()
        for part in listed(student):
            assert part.grad is None or part.grad.isfinite().all()
            assert part.grad is None or part.grad.abs().max() < 1e6

    @pytest.mark.parametrize("dtype", HALVES)
    def test_half_precision_is_computed_in_float32(self, case, rows, also, generator, dtype):
        student = each(lambda r: r.to(dtype), rows)
        target = case.target(student, generator)
        values = case.loss(student, target, **also, **case.constants)
        wide = each(lambda t: t.float() if t.is_floating_point() else t, target)
        assert values.dtype == torch.float32
        exact = case.loss(each(lambda s: s.float(), student), wide, **also, **case.constants)
        assert torch.equal(values, exact)

    def test_float64_stays_float64(self, case, rows, also, generator):
        student = each(lambda r: r.double(), rows)
        target = case.target(student, generator)
        assert case.loss(student, target, **also, **case.constants).dtype == torch.float64

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
        self, case, rows, also, generator, monkeypatch
    ):
        if not case.shapes or isinstance(rows, list):
            pytest.skip("declared: it takes targets of other shapes; its own tests say which")
        # jaxtyping would object first; users run without it.
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        target = case.target(rows, generator)
        for wrong in (target[:-1], target[:1], target[..., :1] if target.ndim > 1 else target[0]):
            with pytest.raises(ValueError, match="must hold, but got") as refusal:
                case.loss(rows, wrong, **also, **case.constants)
            assert str(tuple(rows.shape)) in str(refusal.value)
            assert str(tuple(wrong.shape)) in str(refusal.value)
