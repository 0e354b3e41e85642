"""From a cut of the recipe to its plan and its network, and where blocks came from over several."""

import pytest
import torch
from torch import nn

from understudy import build
from understudy.models import CifarResNet
from understudy.recipe import DepthCut, LowRankCut, ScratchCut, SharingCut, WidthCut
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.importance.weighting import distance

ROWS = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3
ARGUMENTS = {"channels": 1, "width": 3, "depth": 20, "base": 4}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CifarResNet(**ARGUMENTS).eval()


def family():
    return build.Family(make=CifarResNet, arguments=ARGUMENTS, latency_ms=lambda: 2.0)


def planned(network, cut, rows=ROWS):
    labels = LABELS if rows is ROWS else None
    return build.plan_cut(cut, network, rows, labels=labels, seed=0, family=family())


CUTS = [
    DepthCut(keep=5, by="importance"),
    DepthCut(keep=5, by="importance", scale=False),
    DepthCut(keep=5, by="cosine"),
    DepthCut(keep=5, by="skip"),
    DepthCut(keep=5, by="taylor"),
    DepthCut(keep=5, by="evenly"),
    DepthCut(keep=5, by="first"),
    DepthCut(keep=5, by="last"),
    DepthCut(keep=5, by="random"),
    DepthCut(keep=(0, 3, 6)),
    WidthCut(kind="width", keep=0.5),
    WidthCut(kind="width", keep=0.5, by="taylor", round_to=4, protect=("stages.0.1",)),
    WidthCut(kind="width", parameters=0.5, even=False),
    LowRankCut(kind="low_rank", energy=0.7),
    LowRankCut(kind="low_rank", parameters=0.8, aware=False, layers=("stages.2.*",)),
    SharingCut(kind="sharing", groups=6),
    SharingCut(kind="sharing", groups=6, by="mean"),
    ScratchCut(kind="scratch", parameters=0.5),
    ScratchCut(kind="scratch", bytes=40_000),
    ScratchCut(kind="scratch", latency_ms=1.0),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_cut_is_planned_written_down_read_and_made(cut, network):
    plan, found = planned(network, cut)
    read = build.read_plan(plan.to_data())
    assert read == plan
    measured = cut.kind == "depth" and cut.by in ("importance", "cosine", "skip", "taylor")
    assert (found is not None) == (measured and not isinstance(cut.keep, tuple))
    made = build.apply_cut(read, network, ROWS, seed=0, family=family()).module
    assert made(ROWS).shape == (24, 3)
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in network.parameters())


def test_blocks_that_are_kept_by_importance_are_scaled_unless_it_is_said(network):
    scaled, _ = planned(network, DepthCut(keep=5, by="importance"))
    plain, _ = planned(network, DepthCut(keep=5, by="importance", scale=False))
    assert scaled.keep == plain.keep
    assert scaled.scales
    assert not plain.scales


@pytest.mark.parametrize("seed", range(6))
def test_scales_are_left_out_where_they_bring_the_student_no_nearer(seed):
    """Norms behind the sums: what is scaled is not what the regression thought."""
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.Sequential(nn.TransformerEncoder(layer, 6), nn.Flatten(), nn.Linear(64, 5)).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.6)
    given = torch.randn(64, 4, 16)
    with torch.no_grad():
        goal = network(given)
    made = []
    for scale in (True, False):
        plan, _ = planned(network, DepthCut(keep=3, by="importance", scale=scale), rows=given)
        made.append(build.apply_cut(plan, network, given, seed=0, family=None).module)
    found, plain = (distance(one, given, goal, "logits") for one in made)
    assert found <= plain


def test_the_most_important_blocks_stay(network):
    plan, found = planned(network, DepthCut(keep=5, by="skip"))
    ranking = found.ranking()
    free = [path for path in ranking if path not in ("stages.1.0", "stages.2.0")]
    kept = [path for path in plan.keep if path in free]
    assert min(ranking[path] for path in kept) >= max(
        ranking[path] for path in free if path in plan.drop
    )


def test_a_cut_says_how_many_rows_it_wants():
    few = build.calibration_rows(DepthCut(keep=5, by="evenly"))
    assert few == build.calibration_rows(ScratchCut(kind="scratch", parameters=0.5)) == 2
    assert build.calibration_rows(DepthCut(keep=5)) == 1000
    assert build.calibration_rows(WidthCut(kind="width", keep=0.5, rows=31)) == 31


def test_a_fresh_network_is_a_function_of_its_seed_and_disturbs_no_other(network):
    plan, _ = planned(network, ScratchCut(kind="scratch", parameters=0.5))
    state = torch.random.get_rng_state()
    one, same, other = (
        build.apply_cut(plan, network, ROWS, seed=seed, family=family()).module
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.eval()(ROWS), same.eval()(ROWS))
    assert not torch.equal(one(ROWS), other.eval()(ROWS))


# --- where blocks came from ----------------------------------------------------------------------


@pytest.mark.parametrize(("first", "then", "both"), [
    ({}, {"a": "b"}, {"a": "b"}),
    ({"a": "b"}, {}, {"a": "b"}),
    ({"0": "0", "1": "3"}, {"0": "1"}, {"0": "3"}),
    # Stages that stay hold blocks that stay.
    ({"s.0": "s.2"}, {"s": "s"}, {"s.0": "s.2"}),
    ({"s": "s"}, {"s.0": "s.2"}, {"s.0": "s.2"}),
    # The last ones were dropped: those that stay did not move, but the others are gone.
    ({"0": "0", "1": "1", "2": "4"}, {"0": "0", "1": "1"}, {"0": "0", "1": "1"}),
])  # fmt: skip
def test_provenance_is_followed_over_two_cuts(first, then, both):
    assert build.traced(first, then) == both


def test_provenance_survives_a_width_cut_of_a_shorter_network(network):
    plan = plan_depth(network, ROWS, keep=[0, 2, 3, 5, 6])
    short = cut_depth(network, plan, ROWS)
    cut = build.plan_cut(
        WidthCut(kind="width", keep=0.5), short.module, ROWS, labels=None, seed=0, family=None
    )[0]
    narrow = build.apply_cut(cut, short.module, ROWS, seed=0, family=None)
    assert build.traced(short.provenance, narrow.provenance) == short.provenance
