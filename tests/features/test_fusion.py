"""Levels fused from deep to shallow."""

import pytest
import torch
from torch.nn import functional as F

from conformance.adapter import AdapterCase, AdapterLaws, batch_of, rows_of
from understudy.errors import ModelError
from understudy.features.fusion import Fuse

STUDENT = [(3, 8, 12), (4, 4, 6), (6, 2, 3), (6,)]
TEACHER = [(5, 8, 12), (6, 4, 5), (7, 2, 3), (9,)]


class TestFuse(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Fuse, student=STUDENT, teacher=TEACHER, gives=TEACHER, normalises=True
        )


class TestOneLevel(AdapterLaws):
    @pytest.fixture
    def case(self):
        return AdapterCase(
            make=Fuse, student=STUDENT[:1], teacher=TEACHER[:1], gives=TEACHER[:1], normalises=True
        )


@pytest.fixture
def adapter():
    torch.manual_seed(0)
    return Fuse(STUDENT[:2], TEACHER[:2]).eval()


@pytest.fixture
def maps():
    return rows_of(STUDENT[:2], 3, torch.Generator().manual_seed(1))


def test_it_is_the_fusion_written_out(adapter, maps):
    shallow, deep = adapter.levels
    first = F.interpolate(deep.enter(maps[1]), (4, 5), mode="nearest")
    own = shallow.enter(maps[0])
    below = F.interpolate(first, (8, 12), mode="nearest")
    weights = shallow.attention(torch.cat([own, below], dim=1)).sigmoid()
    joined = own * weights[:, 0:1] + below * weights[:, 1:2]
    made = adapter(maps, rows_of(TEACHER[:2], 3, torch.Generator()), batch_of(maps)).student
    torch.testing.assert_close(made[1], deep.leave(first))
    torch.testing.assert_close(made[0], shallow.leave(joined))


def test_a_shallow_level_sees_the_deep_ones_and_not_the_other_way(adapter, maps):
    maps = [m.requires_grad_() for m in maps]
    made = adapter(maps, rows_of(TEACHER[:2], 3, torch.Generator()), batch_of(maps)).student
    made[1].square().sum().backward(retain_graph=True)
    assert maps[0].grad is None
    maps[1].grad = None
    made[0].square().sum().backward()
    assert maps[1].grad.abs().sum() > 0


def test_only_the_deepest_level_has_no_attention(adapter):
    assert [level.attention is None for level in adapter.levels] == [False, True]


@pytest.mark.parametrize(("width", "expected"), [(0, 4), (9, 9)])
def test_the_width_is_the_deepest_layers_unless_given(width, expected):
    adapter = Fuse(STUDENT[:2], TEACHER[:2], width=width)
    assert [level.enter[0].out_channels for level in adapter.levels] == [expected, expected]


def test_the_width_has_a_limit_of_512():
    assert Fuse([(600,)], [(3,)]).levels[0].enter[0].out_channels == 512


def test_tokens_and_negative_widths_are_refused():
    with pytest.raises(ModelError, match="name convolutional layers"):
        Fuse([(7, 4)], [(7, 4)])
    with pytest.raises(ModelError, match="width=-1"):
        Fuse([(4,)], [(4,)], width=-1)


def test_other_layers_than_it_was_made_for_are_refused(adapter, maps):
    with pytest.raises(ModelError, match="made for 2 layers, but got 1"):
        adapter(maps[:1], maps[:1], batch_of(maps))
