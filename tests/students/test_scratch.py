"""A fresh student."""

import pytest
import torch
from torch import nn

from understudy.students.scratch import scratch


def make():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def weights(student):
    return torch.cat([p.detach().flatten() for p in student.module.parameters()])


def test_the_same_seed_gives_the_same_start_weights():
    assert torch.equal(weights(scratch(make, seed=3)), weights(scratch(make, seed=3)))


def test_another_seed_gives_others():
    assert not torch.equal(weights(scratch(make, seed=3)), weights(scratch(make, seed=4)))


def test_it_is_what_the_seed_gives_by_hand():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = make()
    assert torch.equal(weights(scratch(make, seed=3))[:32], expected[0].weight.flatten())


def test_the_ambient_random_state_does_not_matter_and_is_left_as_it_was():
    torch.manual_seed(1)
    first = weights(scratch(make, seed=3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(weights(scratch(make, seed=3)), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fresh_student_has_no_ancestors():
    assert scratch(make, seed=0).provenance == {}


def test_an_error_while_building_leaves_the_random_state_too():
    def fail():
        torch.rand(3)
        raise ValueError("no")

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        scratch(fail, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
