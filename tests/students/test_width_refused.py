"""Cuts in width that cannot be made, or that some layers keep out of."""

import pytest
import torch
from torch import nn

from students.width_cases import images, made, same, unheard
from understudy.errors import ModelError
from understudy.models import MLP, CifarResNet
from understudy.students.width.checks import check_target
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

pytest.importorskip("torch_pruning")


class Shuffled(nn.Module):
    """Channels change places between two layers, which a dependency graph does not see."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first = nn.Conv2d(8, 8, 1)
        self.second = nn.Conv2d(8, 6, 1)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, rows):
        maps = self.first(self.stem(rows).relu()).relu().flip(1)
        return self.last(self.second(maps).relu()).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({}, "exactly one of"),
        ({"keep": 0.5, "parameters": 0.5}, "exactly one of"),
        ({"keep": 0.0}, "`0 < keep <= 1` must hold, but got keep=0.0"),
        ({"keep": 1.5}, "`0 < keep <= 1` must hold"),
        ({"parameters": -3}, "`parameters > 0` must hold"),
        ({"keep": 0.5, "round_to": 0}, "`round_to >= 1` must hold"),
        ({"parameters": 10}, r"`parameters` must be at least [\d,]+ \(.*but got 10"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(wrong, law):
    with pytest.raises(ModelError, match=law):
        plan_width(made("padded"), images(), **wrong)


def test_rows_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"rows of shape \(6, 4, 12, 12\).*it raised"):
        plan_width(made("padded"), torch.zeros(6, 4, 12, 12, dtype=torch.float64), keep=0.5)
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    with pytest.raises(ModelError, match="it is not: look at"):
        cut_width(net, plan, given * torch.nan)


def test_heads_that_do_not_divide_are_refused_with_what_can_be_kept():
    with pytest.raises(ModelError, match=r"4 heads and keep=0.6: use 0.25, 0.5, 0.75, 1, or prot"):
        plan_width(made("vit"), images(), keep=0.6)


def test_a_plan_for_another_network_is_refused():
    plan = plan_width(made("padded"), images(), keep=0.5)
    with pytest.raises(ModelError, match=r"does not have: a plan fits"):
        cut_width(made("vit"), plan, images())
    small = CifarResNet(channels=3, width=5, depth=14, base=4).double()
    with pytest.raises(ModelError, match=r"but there are \d+: a plan fits"):
        cut_width(small, plan, images())
    with pytest.raises(ModelError, match='`kind` must be "width"'):
        WidthPlan.from_data({"kind": "depth"})


def test_a_layer_whose_channels_are_mixed_up_later_stays_whole():
    torch.manual_seed(0)
    net = Shuffled().double()
    plan = plan_width(net, images(), keep=0.5)
    assert ("first", "as an operation mixes its channels by their number") in plan.whole
    assert [path for path, *_ in plan.widths] == ["second"]
    same(cut_width(net, plan, images()).module(images()), unheard(net, plan)(images()))
    with pytest.raises(ModelError, match=r"nothing to narrow: `first` as an operation mixes"):
        plan_width(net, images(), keep=0.5, protect=["second"])


def test_a_network_with_nothing_between_its_ends_is_refused():
    with pytest.raises(ModelError, match=r"nothing to narrow: `0` as the first layer"):
        plan_width(made("mlp").body[:1], images().flatten(1), keep=0.5)
    net = MLP(inputs=432, width=5, hidden=[8]).double()
    with pytest.raises(ModelError, match=r"nothing to narrow: `body.0` as the first layer"):
        plan_width(net, images(), keep=0.5)
    assert plan_width(net, images(), keep=0.5, protect_ends=False).widths == (
        ("body.0", "channels", 8, 4),
    )


def test_an_unknown_criterion_and_a_broken_plan_are_refused():
    net, given = made("mlp"), images().flatten(1)
    with pytest.raises(ModelError, match=r"`by` must be one of magnitude, .* but got middle"):
        check_target(0.5, None, 1, "middle")
    data = plan_width(net, given, keep=0.5).to_data()
    del data["cuts"]
    with pytest.raises(ModelError, match=r"no plan of a width cut .*plan it again"):
        WidthPlan.from_data(data)


def test_a_cut_that_takes_nothing_away_is_refused():
    net = made("mlp")
    with pytest.raises(ModelError, match=r"has 16 units, kept in multiples of 64: lower .*round_t"):
        plan_width(net, images(), keep=0.5, round_to=64)
    assert plan_width(net, images(), keep=1.0).cuts == ()


def test_what_is_protected_is_a_list():
    with pytest.raises(ModelError, match="must be a list of paths"):
        plan_width(made("mlp"), images(), keep=0.5, protect="network.0")
