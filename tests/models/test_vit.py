"""The vision transformer."""

import numpy as np
import pytest
import torch

from understudy.models import VisionTransformer
from understudy.models.vit import FeedForward, SelfAttention, TransformerBlock

SMALL = {
    "channels": 2,
    "height": 8,
    "image_width": 12,
    "width": 3,
    "patch": 4,
    "dim": 8,
    "depth": 2,
    "heads": 2,
}


def test_its_size_is_what_paper_and_pencil_say(count):
    embedding = (2 * 4 * 4 * 8 + 8) + 8 + 7 * 8
    attention, mlp, norms = (8 * 24 + 24) + (8 * 8 + 8), (8 * 32 + 32) + (32 * 8 + 8), 4 * 8
    total = embedding + 2 * (attention + mlp + norms) + 2 * 8 + (8 * 3 + 3)
    assert count(VisionTransformer(**SMALL)) == total


# Base and tiny, with 16-pixel patches of 224-pixel images and 1,000 classes, as published.
@pytest.mark.parametrize(
    ("dim", "heads", "parameters"), [(768, 12, 86_567_656), (192, 3, 5_717_416)]
)
def test_it_has_the_published_number_of_parameters(dim, heads, parameters, count):
    with torch.device("meta"):
        network = VisionTransformer(
            channels=3,
            height=224,
            image_width=224,
            width=1000,
            patch=16,
            dim=dim,
            depth=12,
            heads=heads,
        )
    assert count(network) == parameters


def test_attention_agrees_with_a_float64_reference():
    torch.manual_seed(0)
    attention = SelfAttention(6, heads=3, dropout=0.0).double()
    tokens = torch.randn(2, 4, 6, dtype=torch.float64)
    qkv, qkv_bias, proj, proj_bias = (w.detach().numpy() for w in attention.parameters())
    expected = np.zeros((2, 4, 6))
    for row, x in enumerate(tokens.numpy()):
        query, key, value = np.split(x @ qkv.T + qkv_bias, 3, axis=1)
        mixed = np.zeros((4, 6))
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            scores = np.exp(query[:, part] @ key[:, part].T / np.sqrt(2))
            mixed[:, part] = scores / scores.sum(axis=1, keepdims=True) @ value[:, part]
        expected[row] = mixed @ proj.T + proj_bias
    torch.testing.assert_close(attention(tokens).detach(), torch.tensor(expected))


def test_a_block_normalises_first_and_adds_each_part_to_its_input():
    torch.manual_seed(0)
    attention, mlp = SelfAttention(6, heads=3, dropout=0.0), FeedForward(6, inner=9, dropout=0.0)
    block = TransformerBlock(6, attention=attention, mlp=mlp)
    tokens = 3 + 2 * torch.randn(2, 4, 6)

    def normalised(x):
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()

    halfway = tokens + attention(normalised(tokens))
    torch.testing.assert_close(block(tokens), halfway + mlp(normalised(halfway)))


def test_the_feed_forward_network_is_two_layers_around_the_exact_gelu():
    mlp = FeedForward(6, inner=9, dropout=0.0).double()
    tokens = torch.randn(2, 4, 6, dtype=torch.float64)
    hidden = tokens @ mlp.up.weight.T + mlp.up.bias
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.down.weight.T + mlp.down.bias)


def test_the_order_of_patches_is_known_only_by_their_positions():
    network = VisionTransformer(**SMALL).eval()
    images = torch.randn(2, 2, 8, 12)
    moved = images.roll(4, dims=3)
    assert not torch.allclose(network(images), network(moved))
    torch.nn.init.zeros_(network.positions)
    torch.testing.assert_close(network(images), network(moved))


def test_blocks_are_listed_by_name():
    network = VisionTransformer(**SMALL)
    names = dict(network.named_modules())
    assert {"blocks.0.attention.qkv", "blocks.1.attention.proj", "blocks.1.mlp.up"} <= set(names)
    assert len(network.blocks) == 2


def test_a_ratio_sets_the_size_of_the_hidden_layer():
    network = VisionTransformer(**SMALL, mlp_ratio=1.5)
    assert network.blocks[0].mlp.up.out_features == 12


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ({"patch": 5}, r"`height % patch == 0` .* got height=8, image_width=12, patch=5"),
        ({"image_width": 10}, r"`image_width % patch == 0` must hold, .* image_width=10, patch=4"),
        ({"heads": 3}, r"`dim % heads == 0` must hold, but got dim=8, heads=3"),
        ({"mlp_ratio": 0.1}, r"`dim \* mlp_ratio >= 1` must hold, but got dim=8, mlp_ratio=0.1"),
        ({"mlp_ratio": float("nan")}, r"must hold, but got dim=8, mlp_ratio=nan"),
        ({"mlp_ratio": float("inf")}, r"must hold, but got dim=8, mlp_ratio=inf"),
    ],
)
def test_what_does_not_divide_is_refused_with_its_values(wrong, law):
    with pytest.raises(ValueError, match=law):
        VisionTransformer(**{**SMALL, **wrong})


def test_images_of_another_size_are_refused_with_both_sizes():
    network = VisionTransformer(**SMALL)
    law = r"shape \(2, 8, 12\), as the network was built, but got inputs of shape \(5, 2, 12, 8\)"
    with pytest.raises(ValueError, match=law):
        network(torch.zeros(5, 2, 12, 8))
