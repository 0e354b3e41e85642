"""What every way of making a student keeps to. Inherit, and give a `case` fixture."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from understudy.contracts import Student


@dataclass(frozen=True, kw_only=True)
class StudentCase:
    """One way of making a student.

    Attributes:
        make: a seed to a student.
        rows: raw rows that it answers.
        width: how many numbers per row.
        parent: block paths of the model it was cut from; empty for a fresh one.
    """

    make: Callable[[int], Student]
    rows: torch.Tensor
    width: int
    parent: frozenset[str] = frozenset()


class StudentLaws:
    """The laws."""

    def test_a_seed_gives_the_same_start_weights_wherever_it_is_built(self, case):
        first = case.make(3).module.state_dict()
        torch.rand(5)  # whatever happened in between
        second = case.make(3).module.state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_making_one_leaves_the_global_random_state_alone(self, case):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        case.make(0)
        assert torch.equal(before, torch.get_rng_state())

    def test_it_answers_width_numbers_per_row(self, case):
        module = case.make(0).module.eval()
        assert module(case.rows).shape == (len(case.rows), case.width)

    def test_two_students_share_no_tensor(self, case):
        first, second = case.make(0).module, case.make(0).module
        mine = {p.data_ptr() for p in first.parameters()}
        assert not mine & {p.data_ptr() for p in second.parameters()}

    def test_every_parameter_can_learn(self, case):
        module = case.make(0).module.train()
        module(case.rows).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name

    def test_provenance_names_blocks_of_the_student_and_of_its_parent(self, case):
        student = case.make(0)
        own = dict(student.module.named_modules())
        assert set(student.provenance) <= set(own)
        assert set(student.provenance.values()) <= case.parent
