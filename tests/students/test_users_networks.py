"""Cuts of networks as users write them: odd configurations, sums outside of blocks, own layers."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.features.blocks import blocks
from understudy.students.blocks.surgery import units
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.importance import importance
from understudy.students.quantized.aware import finish_aware, prepare_aware
from understudy.students.quantized.folded import foldable, watch
from understudy.students.sharing import cut_sharing, plan_sharing
from understudy.students.width import cut_width, plan_width


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def branch(width):
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = branch(16)

    def forward(self, x):
        return x + self.f(x)


class Configured(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@dataclass(frozen=True)
class Frozen:
    n_layer: int = 4


@dataclass(frozen=True, slots=True)
class Slotted:
    n_layer: int = 4


class AsClass:
    n_layer = 4


def named(config):
    return "AsClass itself" if config is AsClass else type(config).__name__


@pytest.mark.parametrize(
    "config",
    [{"n_layer": 4}, [4], "tiny", (1, 2), Frozen(), Slotted(), AsClass, AsClass()],
    ids=named,
)
def test_any_kind_of_configuration_lets_blocks_go_and_stays_as_it_is(config):
    network = Configured(config).eval()
    before = repr(network.config), getattr(network.config, "n_layer", None)
    student = cut_depth(network, plan_depth(network, draw(4, 16), keep=2), draw(4, 16)).module
    assert len(student.blocks) == 2
    assert (repr(network.config), getattr(network.config, "n_layer", None)) == before


@pytest.mark.parametrize("config", [Frozen(), Slotted(), AsClass()], ids=named)
def test_what_a_configuration_counts_is_counted_again_in_the_student(config):
    if isinstance(config, AsClass):
        config.n_layer = 4
    network = Configured(config)
    student = cut_depth(network, plan_depth(network, draw(4, 16), keep=2), draw(4, 16)).module
    assert student.config.n_layer == 2
    assert network.config.n_layer == 4


class Around(nn.Module):
    """Adds what its blocks give by itself: as attributes, or in a list."""

    def __init__(self, *, listed, scaled=False, in_place=False):
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 2)
        self.a, self.b, self.c = branch(16), branch(16), branch(16)
        self.scale = nn.Parameter(torch.full((16,), 0.5)) if scaled else None
        self.in_place = in_place
        if listed:
            self.blocks = nn.ModuleList([self.a, self.b, self.c])
            del self.a, self.b, self.c
        self.listed = listed

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks if self.listed else (self.a, self.b, self.c):
            made = block(x)
            if self.scale is not None:
                made = self.scale * made
            if self.in_place:
                x += made
            else:
                x = x + made
        return self.head(x)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_blocks_that_the_code_around_adds_are_dropped_as_zeros(listed, scaled, in_place):
    network = Around(listed=listed, scaled=scaled, in_place=in_place).eval()
    rows = draw(4, 8)
    assert all(unit.outer and unit.removable for unit in units(network, rows))
    student = cut_depth(network, plan_depth(network, rows, keep=[0]), rows).module
    block = network.blocks[0] if listed else network.a
    start = network.stem(rows)
    goal = network.head(start + block(start) * (0.5 if scaled else 1))
    assert torch.allclose(student(rows), goal, atol=1e-6)
    assert not torch.allclose(student(rows), network(rows), atol=1e-3)


def test_what_adds_itself_is_not_taken_for_what_is_added():
    network = Configured(None).eval()
    assert not any(unit.outer for unit in units(network, draw(4, 16)))

    class Late(Configured):
        def forward(self, x):
            one = self.blocks[1](self.blocks[0](x))
            two = self.blocks[2](one)
            return self.head(self.blocks[3](two) + (one + two))

    late = units(Late(None).eval(), draw(4, 16))
    assert not any(unit.outer for unit in late)


@pytest.mark.parametrize("by", ["importance", "cosine", "skip", "taylor"])
def test_importance_of_what_is_added_outside_is_that_of_the_same_sum_inside(by):
    class Inside(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f = f

        def forward(self, x):
            return x + self.f(x)

    outside, rows = Around(listed=True).eval(), draw(40, 8)
    inside = nn.Sequential(
        outside.stem, nn.Sequential(*(Inside(block) for block in outside.blocks)), outside.head
    )
    found = importance(outside, rows, by=by)
    same = importance(inside.eval(), rows, by=by)
    assert list(found.scores.values()) == pytest.approx(list(same.scores.values()), rel=1e-4)
    assert list(found.coefficients.values()) == pytest.approx(
        list(same.coefficients.values()), rel=1e-3
    )


class Mix(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.fc(self.norm(x))


class Last(nn.Module):
    """Maps with their channels behind the places."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 24, 4, 4), nn.Linear(24, 5)
        self.blocks = nn.Sequential(*(Mix(24) for _ in range(4)))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_the_cosine_of_maps_with_channels_last_is_over_channels():
    network, rows = Last().eval(), draw(16, 3, 32, 32)
    found = importance(network, rows, by="cosine").scores["blocks.0"]
    with torch.no_grad():
        given = network.stem(rows).permute(0, 2, 3, 1)
        made = network.blocks[0](given)
    goal = (1 - F.cosine_similarity(given, made, dim=-1)).mean()
    assert found == pytest.approx(float(goal), rel=1e-5)


class NormedWith(nn.BatchNorm2d):
    """A normalisation with its activation, as image libraries have them."""

    def forward(self, x):
        return F.relu(super().forward(x))


def test_a_normalisation_that_does_more_keeps_doing_it_in_eight_bits():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), NormedWith(8), nn.Conv2d(8, 8, 3, bias=False),
        NormedWith(8), nn.Flatten(), nn.Linear(8 * 12 * 12, 5),
    ).eval()  # fmt: skip
    rows = draw(32, 3, 16, 16)
    aware = prepare_aware(network, rows)
    done, _ = finish_aware(aware)
    size = network(rows).abs().max()
    assert (aware(rows) - network(rows)).abs().max() < 0.2 * size
    assert torch.allclose(done(rows), network(rows), atol=1e-5)


def test_a_layer_with_a_parametrised_weight_is_not_folded():
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
    network = nn.Sequential(conv, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 2)).eval()
    rows = draw(16, 3, 8, 8)
    assert foldable(network, watch(network, rows[:2])) == {}
    done, _ = finish_aware(prepare_aware(network, rows))
    assert torch.allclose(done(rows), network(rows), atol=1e-5)


@pytest.mark.parametrize("tokens", [10, 32])
def test_a_normalisation_over_tokens_is_not_folded_into_a_linear_layer(tokens):
    network = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(tokens), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * tokens, 2),
    ).eval()  # fmt: skip
    network[1].running_mean.copy_(draw(tokens))
    network[1].running_var.copy_(draw(tokens).abs() + 0.5)
    rows = draw(8, tokens, 16)
    done, _ = finish_aware(prepare_aware(network, rows))
    assert torch.allclose(done(rows), network(rows), atol=1e-5)


def test_pytorchs_own_transformer_is_rounded_at_rest_too():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    network = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(160, 3)).eval()
    rows = draw(64, 5, 32)
    aware = prepare_aware(network, rows).eval()
    with torch.no_grad():
        quick = aware[0](rows)
        assert (quick - network[0](rows)).abs().max() > 1e-4
    assert torch.allclose(quick, aware[0](rows), atol=1e-5)
    done, _ = finish_aware(aware)
    assert done[0].layers[0].activation_relu_or_gelu == 1
    assert done[0].use_nested_tensor == network[0].use_nested_tensor


class Mlp(nn.Sequential):
    """Such as torchvision's."""

    def __init__(self, width, hidden):
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, width)
        )


class Encoder(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = Mlp(width, 64)

    def forward(self, x):
        y = self.one(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.two(x))


def test_a_feed_forward_that_is_a_class_made_from_a_sequence_is_narrowed():
    network = nn.Sequential(Encoder(), Encoder(), nn.Flatten(), nn.Linear(160, 3))
    plan = plan_width(network, draw(8, 5, 32), keep=0.5)
    student = cut_width(network, plan, draw(8, 5, 32)).module
    assert student[0].mlp[0].out_features == student[1].mlp[3].in_features == 32


class Hybrid(nn.Module):
    """Convolutions, then attention."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1),
            nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 96, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(96, 32, 1),
        )  # fmt: skip
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.encoder(self.body(x).flatten(2).transpose(1, 2)).mean(1))


def test_convolutions_before_attention_are_narrowed_too():
    network, rows = Hybrid().eval(), draw(4, 3, 32, 32)
    plan = plan_width(network, rows, keep=0.5)
    student = cut_width(network, plan, rows).module
    assert [student.body[place].out_channels for place in (0, 3, 6, 8)] == [64, 32, 48, 32]
    assert student.encoder.layers[0].linear1.out_features == 32
    assert dict(plan.whole)["body.0"] == "as the first layer"
    halved = plan_width(network, rows, parameters=0.5)
    whole, left = halved.parameters
    assert left <= 0.5 * whole


class Two(nn.Module):
    """Classes, and the vector that they were told from."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 5)

    def forward(self, x):
        found = self.two(self.one(x).relu()).relu().mean((2, 3))
        return self.fc(found), found


class TwoHeads(Two):
    """Two answers that share their trunk."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(32, 7)

    def forward(self, x):
        found = self.two(self.one(x).relu()).relu().mean((2, 3))
        return self.fc(found), self.other(found)


@pytest.mark.parametrize(("kind", "wide"), [(Two, 32), (TwoHeads, 16)])
def test_no_answer_of_several_becomes_narrower(kind, wide):
    network, rows = kind().eval(), draw(4, 3, 16, 16)
    plan = plan_width(network, rows, keep=0.5, protect_ends=False)
    student = cut_width(network, plan, rows).module
    assert [t.shape for t in student(rows)] == [t.shape for t in network(rows)]
    assert (student.one.out_channels, student.two.out_channels) == (8, wide)


class Scaled(nn.Module):
    def __init__(self, width, number):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), float(number)))

    def forward(self, x):
        return x + self.layer_scale * self.conv(x)


def test_scales_per_channel_stay_each_blocks_own_in_whatever_form():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Sequential(*(Scaled(8, n) for n in range(4))), nn.Flatten(),
        nn.Linear(8 * 64, 5),
    )  # fmt: skip
    rows = draw(4, 3, 8, 8)
    student = cut_sharing(network, plan_sharing(network, rows, groups=2), rows).module
    assert [block.layer_scale[0].item() for block in student[1]] == [0, 1, 2, 3]
    assert student[1][0].conv.weight is student[1][1].conv.weight


class Attend(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        self.to_qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.to_qkv(self.norm(x)).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v))


class Nested(nn.Module):
    """Layers as lists of their parts."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, width), nn.LayerNorm(width))
        self.layers = nn.ModuleList(nn.ModuleList([Attend(width), branch(width)]) for _ in range(6))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.embed(x)
        for attend, forward in self.layers:
            x = attend(x) + x
            x = forward(x) + x
        return self.head(x.mean(1))


def test_layers_that_are_lists_of_parts_are_the_blocks():
    assert blocks(Nested()) == tuple(f"layers.{n}.1" for n in range(6))
