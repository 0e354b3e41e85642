"""Attention that nothing announces or that has a form of its own stays whole; the rest goes."""

import json

import pytest
import torch
from torch import nn

from students.width_cases import same, size, unheard
from understudy.errors import ModelError
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

pytest.importorskip("torch_pruning")


class Mixed(nn.Module):
    """One layer of a user's transformer, whose heads nothing announces, or an MLP-Mixer's."""

    def __init__(self, dim, tokens, kind):
        super().__init__()
        self.kind, self.count = kind, 4
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        if kind == "mixer":
            self.across = nn.Sequential(
                nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens)
            )
        else:
            self.asks, self.told, self.said = (nn.Linear(dim, dim) for _ in range(3))
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, given):
        way = self.norm1(given)
        if self.kind == "mixer":
            mixed = self.across(way.transpose(1, 2)).transpose(1, 2)
        else:
            rows, tokens, _ = way.shape
            asks, told, said = (
                part(way).view(rows, tokens, self.count, -1).transpose(1, 2)
                for part in (self.asks, self.told, self.said)
            )
            mixed = (asks @ told.mT / asks.shape[-1] ** 0.5).softmax(-1) @ said
            mixed = mixed.transpose(1, 2).flatten(2)
            mixed = nn.functional.pad(mixed, (0, given.shape[-1] - mixed.shape[-1]))
        given = given + mixed
        return given + self.ff(self.norm2(given))


class Words(nn.Module):
    def __init__(self, kind, dim=16):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(30, dim)
        self.layers = nn.ModuleList([Mixed(dim, 10, kind) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 3)

    def forward(self, rows):
        tokens = 2 * self.words(rows)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(self.norm(tokens).mean(1))


def sentences(count=6):
    return torch.randint(0, 30, (count, 10), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["heads", "mixer"])
def test_heads_and_tokens_that_nobody_announces_are_left_whole_and_the_rest_is_exact(kind):
    net, given = Words(kind).double(), sentences()
    plan = plan_width(net, given, keep=0.5)
    cut = {path: (old, new) for path, _, old, new in plan.widths}
    assert cut["layers.0.ff.0"] == cut["layers.1.ff.0"] == (32, 16)
    assert not any(name in path for path in cut for name in ("asks", "told", "said"))
    same(cut_width(net, plan, given).module(given), unheard(net, plan)(given))


def test_the_width_of_tokens_may_go_where_the_ends_are_not_protected():
    net, given = Words("mixer").double(), sentences()
    plan = plan_width(net, given, keep=0.5, protect_ends=False)
    assert plan.parameters[1] == size(cut_width(net, plan, given).module)


HUGGING = {
    "T5": (
        "T5EncoderModel",
        {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4},
    ),
    "GPTNeoX": ("GPTNeoXForSequenceClassification", {}),
    "Phi3": ("Phi3ForSequenceClassification", {"num_key_value_heads": 2}),
    "DebertaV2": (
        "DebertaV2ForSequenceClassification",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
}


@pytest.mark.parametrize("name", HUGGING)
def test_attention_of_unknown_form_stays_whole_and_hidden_units_go(name):
    transformers = pytest.importorskip("transformers")
    kind, own = HUGGING[name]
    sizes = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if name != "T5":
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 32, "max_position_embeddings": 32}
    torch.manual_seed(0)
    net = getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**sizes, **own))
    net, given = net.double().eval(), sentences()
    plan = plan_width(net, given, keep=0.5)
    assert {(old, new) for _, _, old, new in plan.widths} >= {(32, 16)}
    assert not any(kind == "heads" for _, kind, _, _ in plan.widths)
    assert plan.whole
    student = cut_width(net, WidthPlan.from_data(json.loads(json.dumps(plan.to_data()))), given)
    found, whole = (m(given)[0] for m in (student.module, unheard(net, plan)))
    same(found, whole)
    assert plan.parameters == (size(net), size(student.module))


class Interleaved(nn.Module):
    """Questions, keys and values lie head by head in one layer; it may cast its rows."""

    def __init__(self, casts):
        super().__init__()
        self.casts, self.num_heads = casts, 4
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, rows):
        rows = rows.float() if self.casts else rows
        heads = self.qkv(rows).view(*rows.shape[:2], self.num_heads, 12).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(*heads.chunk(3, -1))
        return self.proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("size", [1.0, 0.02])
@pytest.mark.parametrize("casts", [False, True])
def test_heads_stay_whole_in_a_network_of_one_precision_or_of_small_weights_too(casts, size):
    torch.manual_seed(0)
    net = nn.Sequential(Interleaved(casts), Interleaved(casts), nn.Flatten(), nn.Linear(80, 3))
    with torch.no_grad():
        for layer in (net[0], net[1]):
            layer.qkv.weight.mul_(size)
    with pytest.raises(ModelError, match="mixes its channels by their number"):
        plan_width(net, torch.randn(8, 5, 16), keep=0.5)
