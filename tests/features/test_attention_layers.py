"""Queries, keys and values found by name, and how many heads there are."""

from types import SimpleNamespace

import pytest
from torch import nn

from understudy import models
from understudy.errors import ModelError
from understudy.features.attention_layers import attention_layers


def block(names, heads=None, holder="heads"):
    """A block whose attention has layers of these names."""
    attention = nn.Module()
    for name in names:
        setattr(attention, name, nn.Linear(4, 4))
    if heads is not None:
        setattr(attention, holder, heads)
    made = nn.Module()
    made.norm = nn.LayerNorm(4)
    made.attention = attention
    return made


def network(inner):
    made = nn.Module()
    made.blocks = nn.ModuleList([nn.Identity(), inner])
    return made


def test_our_own_transformer():
    net = models.CATALOGUE["vit"](
        channels=1, height=8, image_width=8, width=10, patch=4, dim=8, depth=2, heads=2
    )
    found = attention_layers(net, "blocks.1")
    assert found.paths == ("blocks.1.attention.qkv",)
    assert (found.heads, found.fused) == (2, True)


@pytest.mark.parametrize("names", [("qkv",), ("c_attn", "c_proj"), ("Wqkv", "out")])
def test_one_layer_for_all_three(names):
    found = attention_layers(network(block(names, 4)), "blocks.1")
    assert found.paths == (f"blocks.1.attention.{names[0]}",)
    assert found.fused


@pytest.mark.parametrize("names", [
    ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"), ("q", "k", "v"),
])  # fmt: skip
def test_three_layers_in_the_order_query_key_value(names):
    found = attention_layers(network(block(reversed(names), 4)), "blocks.1")
    assert found.paths == tuple(f"blocks.1.attention.{name}" for name in names)
    assert not found.fused


def test_the_attention_may_be_the_block_itself():
    found = attention_layers(network(block(["qkv"], 4)), "blocks.1.attention")
    assert found.paths == ("blocks.1.attention.qkv",)


@pytest.mark.parametrize("holder", ["num_heads", "num_attention_heads", "n_heads", "n_head"])
def test_heads_by_other_names(holder):
    assert attention_layers(network(block(["qkv"], 6, holder)), "blocks.1").heads == 6


def test_heads_are_found_around_the_attention_and_in_a_config():
    net = network(block(["qkv"]))
    net.config = SimpleNamespace(num_attention_heads=12)
    assert attention_layers(net, "blocks.1").heads == 12
    net.blocks[1].heads = 3
    assert attention_layers(net, "blocks.1").heads == 3, "the nearest one counts"


def test_unknown_names_and_unknown_heads_say_what_to_write():
    with pytest.raises(ModelError, match=r"no attention with layers of a known name.*name the lay"):
        attention_layers(network(block(["alpha", "beta"], 4)), "blocks.1")
    with pytest.raises(ModelError, match=r"does not say how many.*student_heads: N"):
        attention_layers(network(block(["qkv"])), "blocks.1")
    with pytest.raises(ModelError, match="does not say how many"):
        attention_layers(network(block(["qkv"], 0)), "blocks.1")
