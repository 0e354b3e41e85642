"""Cuts in width: what is left is exact, and what goes is what the scores say."""

import json

import pytest
import torch

from students.width_cases import NETWORKS, images, made, same, size, unheard
from understudy.errors import ModelError
from understudy.export.onnx import export_onnx, stored_parameters
from understudy.models import CifarResNet
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

pytest.importorskip("torch_pruning")


@pytest.mark.parametrize("protect_ends", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_network_is_the_whole_one_without_what_nobody_hears(name, protect_ends):
    net, given = made(name), images()
    plan = plan_width(net, given, keep=0.5, by="random", protect_ends=protect_ends)
    student = cut_width(net, plan, given)
    same(student.module(given), unheard(net, plan)(given))
    assert not torch.allclose(student.module(given), net(given))
    assert plan.parameters == (size(net), size(student.module))
    assert size(student.module) < size(net)
    loss = student.module.train()(given).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in student.module.parameters())


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("by", ["magnitude", "taylor", "activation", "gradient"])
def test_channels_that_are_zero_go_first_and_are_not_missed(by, even):
    net, given = made("padded"), images()
    dead = {"stages.0.1.conv1": [0, 2, 5, 7], "stages.2.0.conv1": list(range(3, 19))}
    with torch.no_grad():
        for path, channels in dead.items():
            block = net.get_submodule(path.rpartition(".")[0])
            block.conv1.weight[channels] = 0
            block.norm1.weight[channels] = 0
            block.norm1.bias[channels] = 0
            block.conv2.weight[:, channels] = 0
    others = [f"stages.{n}" for n in (1,)] + [
        "stages.0.0", "stages.2.1", "stages.2.0.conv2", "stages.2.0.norm2",
    ]  # fmt: skip
    plan = plan_width(net, given, keep=0.5, by=by, even=even, protect=others)
    assert sum(old - new for _, _, old, new in plan.widths) == 20
    # A channel that no row wakes is as good as dead to what looks at the rows, and may go instead.
    if even or by == "magnitude":
        assert {gone for _, gone in plan.cuts} == {tuple(c) for c in dead.values()}
    same(cut_width(net, plan, given).module(given), net(given), 1e-13)


@pytest.mark.parametrize("name", NETWORKS)
def test_keeping_everything_changes_nothing(name):
    net, given = made(name), images()
    plan = plan_width(net, given, keep=1.0)
    assert plan.cuts == ()
    student = cut_width(net, plan, given).module
    assert torch.equal(student(given), net(given))
    assert student is not net


@pytest.mark.parametrize("name", ["padded", "projected", "convnet", "vit", "plain"])
@pytest.mark.parametrize("even", [True, False])
def test_a_parameter_target_is_met_from_below(name, even):
    net, given = made(name), images()
    plan = plan_width(net, given, parameters=0.6, even=even)
    left = size(cut_width(net, plan, given).module)
    assert plan.parameters[1] == left <= 0.6 * size(net)
    # The smallest network's units are few and large.
    assert left >= (0.55 if name == "plain" else 0.58) * size(net)
    if even:
        assert plan_width(net, given, parameters=int(0.6 * size(net))) == plan


def test_a_plan_written_and_read_gives_the_same_student():
    for name in ("padded", "vit"):
        net, given = made(name), images()
        plan = plan_width(net, given, keep=0.5, by="taylor", protect_ends=False)
        again = WidthPlan.from_data(json.loads(json.dumps(plan.to_data())))
        assert again == plan
        one, two = (cut_width(net, p, given) for p in (plan, again))
        assert one.provenance == two.provenance
        state = two.module.state_dict()
        assert all(torch.equal(values, state[n]) for n, values in one.module.state_dict().items())
        # A run cuts a fresh network of the same form and then loads what was trained.
        torch.manual_seed(9)
        fresh = cut_width(NETWORKS[name]().double(), again, given).module
        fresh.load_state_dict(one.module.state_dict())
        assert torch.equal(fresh.eval()(given), one.module(given))


def test_normalisation_keeps_the_statistics_of_the_kept_channels():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    student = cut_width(net, plan, given).module
    gone = next(g for layers, g in plan.cuts if ("stages.0.0.norm1", "out") in layers)
    kept = [c for c in range(8) if c not in gone]
    cut, whole = student.stages[0][0].norm1, net.stages[0][0].norm1
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(cut, name), getattr(whole, name)[kept])
    assert cut.num_features == 4


def test_padded_shortcuts_keep_the_stages_nested():
    net, given = made("padded"), images()
    student = cut_width(net, plan_width(net, given, keep=0.5), given).module
    # The stem is kept whole, so every stage keeps its 8 channels and half of those it adds.
    assert [stage[1].conv2.out_channels for stage in student.stages] == [8, 12, 20]
    assert [stage[0].shortcut.extra for stage in student.stages[1:]] == [4, 8]
    lifted = cut_width(net, plan_width(net, given, keep=0.5, protect_ends=False), given).module
    assert [stage[1].conv2.out_channels for stage in lifted.stages] == [4, 8, 16]
    assert [stage[0].shortcut.extra for stage in lifted.stages[1:]] == [4, 8]


def test_blocks_remember_where_they_come_from():
    net, given = made("vit"), images()
    student = cut_width(net, plan_width(net, given, keep=0.5), given)
    assert student.provenance == {"blocks.0": "blocks.0", "blocks.1": "blocks.1"}
    attention = student.module.blocks[0].attention
    assert (attention.heads, attention.head_dim) == (2, 8)
    assert attention.qkv.weight.shape == (48, 32)


@pytest.mark.parametrize("by", ["magnitude", "taylor", "activation", "gradient", "random"])
def test_planning_changes_nothing_and_repeats_itself(by):
    net, given = made("projected").train(), images()
    other = plan_width(made("convnet"), given, keep=0.5)
    before = {name: values.clone() for name, values in net.state_dict().items()}
    random = torch.get_rng_state()
    one = plan_width(net, given, keep=0.5, by=by, seed=4)
    plan_width(made("plain"), given, keep=0.25, by=by)
    assert plan_width(net, given, keep=0.5, by=by, seed=4) == one
    assert plan_width(made("convnet"), given, keep=0.5) == other
    student = cut_width(net, one, given).module
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], values) for name, values in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(m.training for m in (*net.modules(), *student.modules()))


def test_widths_are_rounded_and_groups_stay_equal():
    net, given = made("plain"), images()
    plan = plan_width(net, given, keep=0.6, round_to=4)
    assert {new % 4 for path, _, _, new in plan.widths if path != "dense"} == {0}
    student = cut_width(net, plan, given).module
    assert student.wide[2].groups == 2
    assert student.deep[3].groups == student.deep[3].in_channels == student.deep[0].out_channels
    assert student.deep[4].num_features == student.deep[3].out_channels


def test_scores_compete_over_layers_where_the_cut_is_not_even():
    net, given = made("padded"), images()
    with torch.no_grad():
        net.stages[1][1].conv2.weight[:, 1:] *= 1e-3
        net.stages[1][1].conv1.weight[1:] *= 1e-3
        net.stages[1][1].norm1.weight[1:] *= 1e-3
    plan = plan_width(net, given, keep=0.7, even=False)
    shares = {path: new / old for path, _, old, new in plan.widths}
    assert min(shares, key=shares.__getitem__) == "stages.1.1.conv1"
    assert max(shares.values()) > 0.8
    same(cut_width(net, plan, given).module(given), unheard(net, plan)(given))


def test_protected_layers_stay_as_they_are():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5, protect=["stages.1"])
    student = cut_width(net, plan, given).module
    assert [tuple(p.shape) for p in student.stages[1].parameters()] == [
        tuple(p.shape) for p in net.stages[1].parameters()
    ]
    assert student.stages[2][0].conv1.out_channels == 16
    assert any("as protected" in line and "stages.1.0.conv1" in line for line in plan.lines())
    with pytest.raises(ModelError, match=r"use one of its modules, as `stages.1.0.conv2`"):
        plan_width(net, given, keep=0.5, protect=["stages.1.0.conv"])


def test_lines_say_what_is_cut_and_what_is_not():
    net, given = made("padded"), images()
    plan = plan_width(net, given, keep=0.5)
    lines = plan.lines()
    assert "0.5 of the units kept by magnitude" in lines[0]
    assert f"{plan.parameters[1]:,}" in lines[0]
    assert "  stages.0.0.conv1: 8 -> 4 channels" in lines
    assert "  kept whole, as the first layer: stem.0" in lines


@pytest.mark.parametrize("name", ["padded", "vit"])
def test_a_cut_network_can_be_exported(name, tmp_path):
    given = images().float()
    small = {"padded": CifarResNet(channels=3, width=5, depth=8, base=4).eval()}
    net = small.get(name) or made(name).float()
    student = cut_width(net, plan_width(net, given, keep=0.5, protect_ends=False), given).module
    path = export_onnx(student, given, tmp_path / "cut.onnx", metadata={})
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    found = torch.from_numpy(session.run(None, {"rows": given.numpy()})[0])
    torch.testing.assert_close(found, student(given), rtol=1e-4, atol=1e-5)
    # Batch normalisation is folded: the file holds no more than the cut network, and its constants.
    assert stored_parameters(path) < 1.05 * size(student) + 64
