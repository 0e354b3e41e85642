"""The paraphraser's own phase: an autoencoder of the teacher, and nothing of the student."""

import pytest
import torch

from conformance.adapter import batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.factors import Factors
from understudy.features.paraphrase import Paraphrase
from understudy.losses import Paraphraser

STUDENT, TEACHER = [(3, 8, 6)], [(6, 4, 6)]


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return Paraphrase(STUDENT, TEACHER)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    student, teacher = (rows_of(shapes, 5, generator) for shapes in (STUDENT, TEACHER))
    return student, teacher


def test_it_gives_the_teachers_maps_back_beside_the_maps(adapter, rows):
    student, teacher = rows
    made = adapter(student, teacher, batch_of(student))
    assert made.teacher[0] is teacher[0]
    torch.testing.assert_close(made.student[0], adapter.paraphrasers[0](teacher[0]))
    assert made.student[0].shape == teacher[0].shape
    assert made.values == {}


def test_its_loss_is_what_the_factors_call_reconstruction(adapter, rows):
    student, teacher = rows
    made = adapter(student, teacher, batch_of(student))
    factors = Factors(STUDENT, TEACHER)
    factors.paraphrasers.load_state_dict(adapter.paraphrasers.state_dict())
    own = Paraphraser()(made.student[0], made.teacher[0])
    torch.testing.assert_close(own, factors.reconstruction(teacher))


def test_nothing_of_the_student_is_read_and_all_of_it_learns(adapter, rows):
    student, teacher = rows
    own = [layer.requires_grad_() for layer in student]
    made = adapter(own, teacher, batch_of(own))
    made.student[0].square().mean().backward()
    assert own[0].grad is None
    assert all(p.grad is not None for p in adapter.parameters())


def test_it_learns(adapter, rows):
    student, teacher = rows
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    values = []
    for _ in range(30):
        made = adapter(student, teacher, batch_of(student))
        value = Paraphraser()(made.student[0], made.teacher[0]).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]


def test_the_next_phase_takes_over_what_was_learned_and_freezes_it(adapter):
    factors = Factors(STUDENT, TEACHER)
    factors.follow(adapter.state_dict())
    for name, value in adapter.paraphrasers.state_dict().items():
        assert torch.equal(factors.paraphrasers.state_dict()[name], value)
    assert not any(p.requires_grad for p in factors.paraphrasers.parameters())
    assert all(p.requires_grad for p in factors.translators.parameters())


@pytest.mark.parametrize("other", [
    {"teacher": [(8, 4, 6)]}, {"rate": 0.9}, {"student": STUDENT * 2, "teacher": TEACHER * 2},
])  # fmt: skip
def test_other_layers_or_another_rate_are_refused_in_the_next_phase(adapter, other):
    options = {"student": STUDENT, "teacher": TEACHER} | other
    with pytest.raises(ModelError, match="the same layers and rate"):
        Factors(**options).follow(adapter.state_dict())


@pytest.mark.parametrize(("teacher", "rate"), [([(6,)], 0.5), (TEACHER, 0.0), (TEACHER, -1.0),
                                               (TEACHER, float("nan"))])  # fmt: skip
def test_what_is_no_map_and_rates_without_a_channel_are_refused(teacher, rate):
    with pytest.raises(ModelError):
        Paraphrase(STUDENT if len(teacher[0]) == 3 else [(3,)], teacher, rate=rate)
