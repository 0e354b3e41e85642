"""Kept branches that are multiplied by a factor."""

import pytest
import torch
from torch.nn import functional as F

from students.depth_cases import CASES, IMAGES, lively, perceptron, resnet, vit
from understudy.errors import ModelError
from understudy.students.blocks.surgery import units
from understudy.students.depth import DepthPlan, cut_depth, plan_depth


def changed(network, path, rows, scale=1.5):
    """The parameters of a block that a factor changes, all by that factor."""
    whole = tuple(unit.path for unit in units(network, rows))
    plan = plan_depth(network, rows, keep=len(whole), scales={path: scale})
    assert plan.scales == {path: scale}
    module = cut_depth(network, plan, rows).module
    names = []
    for name, value in module.named_parameters():
        before = network.get_parameter(name)
        if not torch.equal(value, before):
            assert torch.allclose(value, scale * before)
            names.append(name.removeprefix(f"{path}."))
    return sorted(names)


SCALED = {
    "resnet_a": ("stages.1.0", ["norm2.bias", "norm2.weight"]),
    "resnet_b": ("stages.1.0", ["norm2.bias", "norm2.weight"]),
    "vit": (
        "blocks.2",
        ["attention.proj.bias", "attention.proj.weight", "mlp.down.bias", "mlp.down.weight"],
    ),
    "bert": (
        "encoder.encoder.layer.1",
        [
            "attention.output.dense.bias",
            "attention.output.dense.weight",
            "output.dense.bias",
            "output.dense.weight",
        ],
    ),
    "distilbert": (
        "transformer.layer.3",
        ["attention.out_lin.bias", "attention.out_lin.weight", "ffn.lin2.bias", "ffn.lin2.weight"],
    ),
    "llama": ("model.layers.0", ["mlp.down_proj.weight", "self_attn.o_proj.weight"]),
    "gpt2": (
        "transformer.h.1",
        ["attn.c_proj.bias", "attn.c_proj.weight", "mlp.c_proj.bias", "mlp.c_proj.weight"],
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_factor_goes_into_the_last_layers_of_the_branches(name):
    make, rows = CASES[name]
    path, names = SCALED[name]
    assert changed(lively(make()), path, rows) == names


def test_a_scaled_residual_block_adds_so_much_of_its_branch():
    network = lively(resnet())
    plan = plan_depth(network, IMAGES, keep=4, by="first", scales={"stages.1.0": 0.25})
    module = cut_depth(network, plan, IMAGES).module
    block, maps = network.stages[1][0], IMAGES[:, :2]
    with torch.no_grad():
        branch = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(maps)))))
        goal = F.relu(0.25 * branch + block.shortcut(maps))
        assert torch.allclose(module.stages[1][0](maps), goal, rtol=0, atol=1e-12)


def test_a_scaled_layer_adds_so_much_of_both_branches():
    network = lively(vit())
    plan = plan_depth(network, IMAGES, keep=2, scales={"blocks.3": -0.5})
    module = cut_depth(network, plan, IMAGES).module
    block, tokens = network.blocks[3], torch.randn(2, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        middle = tokens - 0.5 * block.attention(block.norm1(tokens))
        goal = middle - 0.5 * block.mlp(block.norm2(middle))
        assert torch.allclose(module.blocks[1](tokens), goal, rtol=0, atol=1e-12)


def test_what_cannot_be_scaled_is_said_and_left():
    network = lively(perceptron())
    paths = [unit.path for unit in units(network, IMAGES)]
    plan = plan_depth(network, IMAGES, keep=2, scales=dict.fromkeys(paths, 0.5))
    assert plan.scales == {}
    assert plan.unscaled == plan.keep
    assert any("cannot scale" in line for line in plan.lines())
    forced = DepthPlan(keep=plan.keep, drop=plan.drop, scales={plan.keep[0]: 0.5})
    with pytest.raises(ModelError, match=r"cannot be scaled by 0\.5"):
        cut_depth(network, forced, IMAGES)


@pytest.mark.parametrize(
    ("scales", "law"),
    [({"stages.7": 1.0}, r"stages\.7 is none"), ({"stages.0.0": float("nan")}, "finite numbers")],
)
def test_odd_scales_are_refused(scales, law):
    with pytest.raises(ModelError, match=law):
        plan_depth(resnet(8), IMAGES.float(), keep=3, scales=scales)
