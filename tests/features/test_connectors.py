"""Into the teacher's channels, normalised."""

import pytest
import torch
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.connectors import Connect


class TestConnect(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Connect,
            student=[(4, 6, 8), (3, 2, 6), (7, 4), (4,)],
            teacher=[(5, 3, 4), (4, 4, 3), (7, 6), (3,)],
            gives=[(5, 3, 4), (4, 2, 3), (7, 6), (3,)],
            normalises=True,
        )


class TestMargins(AdapterLaws):
    @pytest.fixture
    def case(self):
        def with_margins(student, teacher):
            margins = [torch.linspace(-1, 0, shape[0]) for shape in teacher]
            return Connect(student, teacher, margins=margins)

        return AdapterCase(
            make=with_margins,
            student=[(4, 6, 8), (3, 2, 6)],
            teacher=[(5, 3, 4), (4, 4, 3)],
            gives=[(5, 3, 4), (4, 2, 3)],
            values={"margins": [(5,), (4,)]},
            normalises=True,
        )


@pytest.mark.parametrize("shape", [(4, 2, 3), (6, 4), (4,)])
def test_each_channel_is_normalised_over_rows_and_places(shape):
    torch.manual_seed(0)
    (own,) = rows_of([shape], 8, torch.Generator().manual_seed(1))
    made = Connect([shape], [shape])([own], [own], batch_of([own])).student[0]
    axes = {4: (0, 2, 3), 3: (0, 1), 2: (0,)}[made.ndim]
    torch.testing.assert_close(made.mean(dim=axes), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.var(dim=axes, unbiased=False), torch.ones(4), rtol=0, atol=1e-2)


def test_weights_start_as_the_authors_do():
    torch.manual_seed(0)
    weight = Connect([(200, 2, 2)], [(300, 2, 2)]).connectors[0].project.weight
    assert weight.std().item() == pytest.approx((2 / 300) ** 0.5, rel=0.02)


def test_there_is_no_bias():
    assert Connect([(4, 2, 3)], [(5, 2, 3)]).connectors[0].project.bias is None


def test_a_larger_teacher_is_averaged_down():
    own, goal = rows_of([(4, 2, 3), (5, 4, 6)], 2, torch.Generator().manual_seed(0))
    made = Connect([(4, 2, 3)], [(5, 4, 6)])([own], [goal], batch_of([own]))
    torch.testing.assert_close(made.teacher[0], F.avg_pool2d(goal, 2))


def test_margins_are_state_that_does_not_learn():
    margin = torch.tensor([-1.0, -2.0])
    adapter = Connect([(4, 2, 3)], [(2, 2, 3)], margins=[margin])
    margin.zero_()
    other = Connect([(4, 2, 3)], [(2, 2, 3)], margins=[torch.zeros(2)])
    other.load_state_dict(adapter.state_dict())
    assert other.get_buffer("margin0").tolist() == [-1.0, -2.0]
    assert all(not name.startswith("margin") for name, _ in other.named_parameters())


def test_margins_of_other_channels_are_refused():
    with pytest.raises(ModelError, match=r"\[\[2\]\], but got \[\[3\]\]"):
        Connect([(4, 2, 3)], [(2, 2, 3)], margins=[torch.zeros(3)])


@pytest.mark.parametrize(("own", "goal"), [((4,), (5, 2, 3)), ((7, 4), (8, 4))])
def test_features_that_are_not_alike_are_refused(own, goal):
    with pytest.raises(ModelError, match="name layers of one kind"):
        Connect([own], [goal])
