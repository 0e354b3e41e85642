"""The temperature that learns against the student."""

import math

import pytest
import torch

from conformance.adapter import AdapterCase, AdapterLaws, batch_of
from understudy.errors import ModelError
from understudy.features.temperature import Temperature


class TestTemperature(AdapterLaws):
    @pytest.fixture
    def case(self):
        def halfway(student, teacher):
            adapter = Temperature(student, teacher)
            adapter.set_progress(5.0)
            return adapter

        return AdapterCase(
            make=halfway, student=[(7,)], teacher=[(7,)], gives=[(7,)], values={"temperature": [()]}
        )


def temperature_of(adapter):
    logits = torch.zeros(2, 3)
    return adapter([logits], [logits], batch_of([logits])).values["temperature"][0]


def test_it_starts_between_its_ends():
    value = temperature_of(Temperature([(3,)], [(3,)]))
    assert value.item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    ("epoch", "strength"),
    [(0, 0.0), (2.5, -(1 - math.sqrt(0.5)) / 2), (5, -0.5), (10, -1.0), (99, -1.0), (-1, 0.0)],
)
def test_its_gradient_is_scaled_by_a_strength_that_falls_to_minus_one(epoch, strength):
    adapter = Temperature([(3,)], [(3,)])
    adapter.set_progress(epoch)
    temperature_of(adapter).backward()
    share = 1 / (1 + math.exp(-1))
    assert adapter.theta.grad.item() == pytest.approx(strength * 20 * share * (1 - share), abs=1e-6)


def test_a_step_down_the_loss_of_the_student_climbs_it():
    adapter = Temperature([(3,)], [(3,)])
    adapter.set_progress(10)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    before = temperature_of(adapter)
    (3 * before).backward()
    optimizer.step()
    assert temperature_of(adapter) > before.detach()


def test_it_stands_still_until_told_of_progress():
    adapter = Temperature([(3,)], [(3,)])
    temperature_of(adapter).backward()
    assert adapter.theta.grad.item() == 0


def test_its_state_holds_theta_and_the_strength():
    adapter, other = Temperature([(3,)], [(3,)]), Temperature([(3,)], [(3,)])
    adapter.set_progress(7.3)
    with torch.no_grad():
        adapter.theta.fill_(0.25)
    other.load_state_dict(adapter.state_dict())
    assert torch.equal(other.theta, adapter.theta)
    assert torch.equal(other.strength, adapter.strength)
    assert other.strength.item() == pytest.approx(-(1 - math.cos(0.73 * math.pi)) / 2)


@pytest.mark.parametrize(
    "constants", [{"start": 0.0}, {"span": -1.0}, {"epochs": 0}, {"strength": 0.5}]
)
def test_constants_that_would_not_make_a_curriculum_are_refused(constants):
    with pytest.raises(ModelError, match="must hold"):
        Temperature([(3,)], [(3,)], **constants)
