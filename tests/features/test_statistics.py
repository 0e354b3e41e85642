"""One size for both sides, or one vector per row."""

import pytest
import torch
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.statistics import Flat, Pool

# Student, teacher, and what either becomes.
PAIRS = [
    ((4, 6, 8), (5, 3, 4), (4, 3, 4), (5, 3, 4)),
    ((4, 6, 2), (5, 3, 4), (4, 3, 2), (5, 3, 2)),
    ((4, 6, 8), (5, 6, 8), (4, 6, 8), (5, 6, 8)),
    ((7, 4), (7, 5), (7, 4), (7, 5)),
    ((17, 4), (9, 5), (4, 3, 3), (5, 3, 3)),
    ((4, 2, 3), (7, 5), (4, 2, 3), (5, 2, 3)),
    ((16, 4), (5, 6, 3), (4, 4, 3), (5, 4, 3)),
    ((4,), (5,), (4,), (5,)),
]


class TestPool(AdapterLaws):
    @pytest.fixture(params=PAIRS, ids=str)
    def case(self, request):
        own, goal, gives, goals = request.param
        return AdapterCase(
            make=Pool, student=[own], teacher=[goal], gives=[gives], goals=[goals], learns=False
        )


class TestFlat(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Flat,
            student=[(4, 6, 8), (7, 4), (4,)],
            teacher=[(5, 3), (6, 2, 3), (9, 5)],
            gives=[(4,), (4,), (4,)],
            goals=[(3,), (6,), (5,)],
            learns=False,
        )


def test_the_larger_side_is_averaged_and_the_smaller_is_left():
    generator = torch.Generator().manual_seed(3)
    own, goal = rows_of([(4, 6, 8), (5, 3, 4)], 2, generator)
    made = Pool([(4, 6, 8)], [(5, 3, 4)])([own], [goal], batch_of([own]))
    torch.testing.assert_close(made.student[0], F.adaptive_avg_pool2d(own, (3, 4)))
    assert torch.equal(made.teacher[0], goal)


def test_tokens_beside_a_map_lie_as_its_pixels_do():
    maps = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(3))
    tokens = torch.cat([torch.zeros(2, 1, 4), maps.flatten(2).transpose(1, 2)], dim=1)
    made = Pool([(7, 4)], [(4, 2, 3)])([tokens], [maps], batch_of([maps]))
    assert torch.equal(made.student[0], maps)


@pytest.mark.parametrize(("own", "goal"), [((4,), (5, 2, 3)), ((7, 4), (5,))])
def test_a_vector_has_no_size(own, goal):
    with pytest.raises(ModelError, match="no spatial size"):
        Pool([own], [goal])


def test_tokens_without_a_grid_have_none_either():
    with pytest.raises(ModelError, match="no square grid"):
        Pool([(7, 4)], [(9, 4)])
