"""Attention heads and hidden units of transformers."""

import pytest
import torch
from torch import nn

from students.width_cases import same, size, unheard
from understudy.errors import ModelError
from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

pytest.importorskip("torch_pruning")


class Wrapped(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(32, 3)

    def forward(self, ids):
        return self.head(self.encoder(ids).last_hidden_state[:, 0])


class Encoder(nn.Module):
    """PyTorch's own attention, in which heads and tokens are as wide as each other."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids):
        return self.layers(self.words(ids))


def bert(transformers):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64,
    )  # fmt: skip
    return transformers.BertModel(config)


def distilbert(transformers):
    config = transformers.DistilBertConfig(
        vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    return transformers.DistilBertModel(config)


def llama(transformers, keys=2):
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=keys, intermediate_size=64, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2(transformers):
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


LANGUAGE = {
    "bert": bert,
    "distilbert": distilbert,
    "llama": llama,
    "one key": lambda transformers: llama(transformers, keys=1),
    "gpt2": gpt2,
    "wrapped": lambda transformers: Wrapped(bert(transformers)),
    "torch": lambda transformers: Encoder(),
}


def spoken(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return LANGUAGE[name](transformers).double().eval()


def words():
    return torch.randint(3, 50, (5, 9), generator=torch.Generator().manual_seed(1))


def said(net):
    found = net(words())
    return getattr(found, "logits", getattr(found, "last_hidden_state", found))


@pytest.mark.parametrize("by", ["taylor", "activation"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_a_cut_transformer_is_the_whole_one_without_what_nobody_hears(name, by):
    net = spoken(name)
    whole = said(net)
    plan = plan_width(net, words(), keep=0.5, by=by)
    student = cut_width(net, WidthPlan.from_data(plan.to_data()), words()).module
    same(said(student), said(unheard(net, plan)))
    assert torch.equal(said(net), whole)
    assert not torch.allclose(said(student), whole)
    assert plan.parameters == (size(net), size(student))
    assert {new / old for _, _, old, new in plan.widths} == {0.5}
    kinds = {kind for _, kind, _, _ in plan.widths}
    assert kinds == ({"units"} if name == "torch" else {"heads", "units"})
    assert "the tokens' width" in plan.lines()[-1]


@pytest.mark.parametrize(("keep", "heads", "keys"), [(0.5, 4, 1), (0.75, 6, 2), (0.25, 2, 2)])
def test_queries_that_share_keys_go_together_or_evenly(keep, heads, keys):
    net = spoken("llama")
    plan = plan_width(net, words(), keep=keep)
    student = cut_width(net, plan, words()).module
    same(said(student), said(unheard(net, plan)))
    attention = student.model.layers[0].self_attn
    assert attention.q_proj.out_features == attention.o_proj.in_features == heads * 4
    assert attention.k_proj.out_features == keys * 4
    assert attention.num_key_value_groups == heads // keys
    assert ("model.layers.0.self_attn", "heads", 8, heads) in plan.widths
    assert student.config.num_attention_heads == heads
    assert student.config.num_key_value_heads == keys
    assert student.config.intermediate_size == int(64 * keep)
    assert (net.config.num_attention_heads, net.config.num_key_value_heads) == (8, 2)
    assert student.lm_head.weight is student.model.embed_tokens.weight
    with pytest.raises(ModelError, match=r"8 heads in 2 groups that share keys and keep=0.6: use"):
        plan_width(net, words(), keep=0.6)


def test_a_configuration_says_nothing_where_layers_differ():
    net = spoken("bert")
    plan = plan_width(net, words(), keep=0.5, protect=["encoder.layer.0.attention.self"])
    student = cut_width(net, plan, words()).module
    assert student.config.num_attention_heads == 4
    assert student.config.intermediate_size == 32
    heads = [layer.attention.self.num_attention_heads for layer in student.encoder.layer]
    assert heads == [4, 2]


def test_a_head_that_is_zero_goes_first_and_is_not_missed():
    net = spoken("bert")
    attention = net.encoder.layer[1].attention
    with torch.no_grad():
        for layer in (attention.self.query, attention.self.key, attention.self.value):
            layer.weight[8:16] = 0
            layer.bias[8:16] = 0
        attention.output.dense.weight[:, 8:16] = 0
    others = [f"encoder.layer.{n}.intermediate" for n in (0, 1)] + ["encoder.layer.0"]
    for by in ("magnitude", "taylor", "activation", "gradient"):
        plan = plan_width(net, words(), keep=0.75, by=by, protect=others)
        assert [gone for _, gone in plan.cuts] == [tuple(range(8, 16))]
        same(said(cut_width(net, plan, words()).module), said(net), 1e-13)


def test_a_transformer_meets_a_parameter_target_by_its_hidden_units():
    net = spoken("bert")
    plan = plan_width(net, words(), parameters=0.8)
    left = size(cut_width(net, plan, words()).module)
    assert plan.parameters[1] == left
    assert 0.79 * size(net) <= left <= 0.8 * size(net)
    with pytest.raises(ModelError, match=r"`parameters` must be at least .*but got 0.1"):
        plan_width(net, words(), parameters=0.1)
