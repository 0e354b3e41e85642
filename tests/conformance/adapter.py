"""The laws that every adapter keeps. Inherit `AdapterLaws` and give it a `case` fixture.

    class TestEmbed(AdapterLaws):
        @pytest.fixture
        def case(self) -> AdapterCase:
            maps = [(4, 6, 8)]
            return AdapterCase(make=Embed, student=maps, teacher=maps, gives=[(128,)])

What an adapter makes in numbers is a test of its own, beside its other ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError, TrainingError
from understudy.features.form import Adapted, Adapter

ROWS = 5
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterCase:
    """One adapter on some layers, and what it promises.

    Attributes:
        make: from the shapes of the student's and the teacher's rows to the adapter.
        student: those shapes; a case should have a map that is not square.
        teacher: those of the teacher.
        gives: what one row of the student's side becomes, per tensor.
        goals: what one row of the teacher's becomes; `gives` where it is the same.
        values: the shapes of the values by name; they have no rows.
        learns: whether it has parameters that learn beside the student.
        both: whether parameters see the teacher's side too.
        frozen: beginnings of the names of parameters that do not learn beside the student.
        normalises: whether it has batch normalisation.
        drawn: whether it draws random numbers, so that a row depends on the rows before it.
    """

    make: Callable[[list[Shape], list[Shape]], nn.Module]
    student: list[Shape]
    teacher: list[Shape]
    gives: list[Shape]
    goals: list[Shape] | None = None
    values: dict[str, list[Shape]] = field(default_factory=dict)
    learns: bool = True
    both: bool = False
    frozen: tuple[str, ...] = ()
    normalises: bool = False
    drawn: bool = False


def rows_of(shapes: list[Shape], count: int, generator: torch.Generator) -> list[Tensor]:
    """Random features."""
    return [torch.randn(count, *shape, generator=generator) for shape in shapes]


def batch_of(features: list[Tensor]) -> Batch:
    """A batch of as many rows; no adapter but one with a memory reads more of it."""
    return Batch(inputs=torch.zeros(len(features[0]), 1))


def tensors_of(adapted: Adapted) -> list[Tensor]:
    """Everything that came out, in one list."""
    values = [value for name in sorted(adapted.values) for value in adapted.values[name]]
    return [*adapted.student, *adapted.teacher, *values]


class AdapterLaws:
    """Every test here is a law; `case` is the adapter that must keep it."""

    @pytest.fixture
    def case(self) -> AdapterCase:
        raise NotImplementedError("a suite of adapter laws needs a `case` fixture")

    @pytest.fixture
    def adapter(self, case) -> nn.Module:
        torch.manual_seed(20140612)
        return case.make(case.student, case.teacher)

    @pytest.fixture
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(20150309)

    @pytest.fixture
    def features(self, case, generator) -> tuple[list[Tensor], list[Tensor]]:
        return rows_of(case.student, ROWS, generator), rows_of(case.teacher, ROWS, generator)

    def call(self, adapter, student, teacher) -> Adapted:
        # The same draws, where there are any, whatever was drawn before.
        torch.manual_seed(11)
        return adapter(student, teacher, batch_of(student))

    def test_it_is_an_adapter(self, adapter):
        assert isinstance(adapter, Adapter)

    @pytest.mark.parametrize("count", [2, ROWS])
    def test_the_shapes_are_as_promised(self, case, adapter, features, count):
        student, teacher = ([f[:count] for f in side] for side in features)
        made = self.call(adapter, student, teacher)
        assert [tuple(one.shape) for one in made.student] == [(count, *s) for s in case.gives]
        goals = case.gives if case.goals is None else case.goals
        assert [tuple(one.shape) for one in made.teacher] == [(count, *s) for s in goals]
        found = {name: [tuple(v.shape) for v in values] for name, values in made.values.items()}
        assert found == case.values
        assert all(one.isfinite().all() for one in tensors_of(made))

    def test_a_batch_of_one_row_is_enough_after_training(self, case, adapter, features):
        adapter.eval()
        student, teacher = ([f[:1] for f in side] for side in features)
        made = self.call(adapter, student, teacher)
        assert [tuple(one.shape) for one in made.student] == [(1, *shape) for shape in case.gives]

    def test_a_row_after_training_is_what_it_is_in_a_batch(self, case, adapter, features):
        if case.drawn:
            pytest.skip("declared: it draws random numbers")
        adapter.eval()
        alone = self.call(adapter, *([f[:1] for f in side] for side in features))
        whole = self.call(adapter, *features)
        for one, all_rows in zip(alone.student, whole.student, strict=True):
            torch.testing.assert_close(one, all_rows[:1], rtol=1e-4, atol=1e-5)

    def test_the_gradient_reaches_the_student_and_never_the_teacher(self, adapter, features):
        student, teacher = ([f.clone().requires_grad_() for f in side] for side in features)
        made = self.call(adapter, student, teacher)
        sum(one.square().sum() for one in tensors_of(made) if one.requires_grad).backward()
        for one in student:
            assert (one.grad.flatten(1).abs().sum(dim=1) > 0).all()
        assert all(one.grad is None for one in teacher)

    def test_the_gradient_reaches_its_parameters(self, case, adapter, features):
        made = self.call(adapter, *features)
        learning = {n: p for n, p in adapter.named_parameters() if not n.startswith(case.frozen)}
        assert bool(learning) is case.learns
        outcomes = [one for one in tensors_of(made) if one.requires_grad]
        assert bool(outcomes) is case.learns
        if case.learns:
            # A plain sum of normalised numbers would have no gradient.
            sum(one.pow(3).sum() for one in outcomes).backward()
        for name, parameter in learning.items():
            assert parameter.grad is not None, name
        assert any(one.requires_grad for one in made.teacher) is case.both

    def test_its_state_gives_equal_outputs_in_another_one(self, case, adapter, features):
        self.call(adapter, *features)
        torch.manual_seed(5)
        other = case.make(case.student, case.teacher)
        other.load_state_dict(adapter.state_dict())
        adapter.eval()
        other.eval()
        first, second = (self.call(one, *features) for one in (adapter, other))
        for one, two in zip(tensors_of(first), tensors_of(second), strict=True):
            assert torch.equal(one, two)

    def test_a_seed_gives_the_same_adapter_and_the_same_outputs(self, case, adapter, features):
        torch.manual_seed(20140612)
        again = case.make(case.student, case.teacher)
        first, second = (self.call(one, *features) for one in (adapter, again))
        for one, two in zip(tensors_of(first), tensors_of(second), strict=True):
            assert torch.equal(one, two)

    def test_it_leaves_its_inputs_as_they_are(self, adapter, features):
        before = [f.clone() for side in features for f in side]
        self.call(adapter, *features)
        now = [f for side in features for f in side]
        assert all(torch.equal(one, two) for one, two in zip(now, before, strict=True))

    def test_one_row_while_training_is_refused_where_it_would_be_normalised(
        self, case, adapter, features
    ):
        student, teacher = ([f[:1] for f in side] for side in features)
        if not case.normalises:
            self.call(adapter, student, teacher)
            return
        with pytest.raises(TrainingError, match="two rows or more"):
            self.call(adapter, student, teacher)

    def test_double_precision_stays_double(self, adapter, features):
        made = self.call(adapter.double(), *([f.double() for f in side] for side in features))
        assert all(one.dtype == torch.float64 for one in tensors_of(made))

    def test_a_missing_layer_is_refused(self, case):
        with pytest.raises(ModelError, match="layer"):
            case.make(case.student, [*case.teacher, *case.teacher])
