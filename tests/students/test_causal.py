"""Students cut from causal language models: they generate, stay tied, and are read again."""

import pytest
import torch

from understudy.errors import ModelError
from understudy.models.gpt import GPT
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.students.depth import cut_depth, plan_depth
from understudy.students.low_rank.cutting import cut_low_rank, frame_low_rank, plan_low_rank
from understudy.students.width.cutting import cut_width, plan_width
from understudy.teachers.hf_causal import causal_of

t = pytest.importorskip("transformers")
WORDS = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(1))
SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
    "tie_word_embeddings": True,
}  # fmt: skip


def gpt2():
    config = t.GPT2Config(
        vocab_size=40, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return t.GPT2LMHeadModel(config)


FAMILIES = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
    "untied": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL | {"tie_word_embeddings": False})),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SMALL)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL, head_dim=8)),
    "gpt2": gpt2,
}
# What these families' own configurations can say: a head's size apart from the tokens' width.
SAVED = ("llama", "untied", "qwen2", "qwen3")


OURS = {
    "gpt": lambda: GPT(
        vocabulary=40, context=64, dim=32, depth=3, heads=4, kv_heads=2, mlp_ratio=3
    ),
    "gpt, untied": lambda: GPT(
        vocabulary=40, context=64, end=3, dim=32, depth=3, heads=4, norm="layer", mlp="gelu",
        tied=False,
    ),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    return (FAMILIES | OURS)[name]().double().eval()


def logits(module):
    with torch.no_grad():
        return module(WORDS).logits


def tied(module):
    return module.get_input_embeddings().weight is module.get_output_embeddings().weight


def cut(kind, net):
    if kind == "depth":
        return cut_depth(net, plan_depth(net, WORDS, keep=2), WORDS)
    if kind == "width":
        return cut_width(net, plan_width(net, WORDS, keep=0.5, by="activation"), WORDS)
    return cut_low_rank(net, plan_low_rank(net, WORDS.repeat(6, 1), energy=0.8), WORDS)


@pytest.mark.parametrize("kind", ["depth", "width", "low_rank"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_language_model_generates_stays_tied_and_remembers(name, kind, tmp_path):
    net = made(name)
    student = cut(kind, net)
    module, prefix = student.module, "transformer.h" if name == "gpt2" else "model.layers"
    assert tied(module) == tied(net) == (name != "untied")
    now, before = (sum(p.numel() for p in m.parameters()) for m in (module, net))
    assert now < before
    assert list(student.provenance) == [f"{prefix}.{n}" for n in range(2 if kind == "depth" else 3)]
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    how["attention_mask"] = torch.ones_like(WORDS)
    spoken = module.generate(WORDS, use_cache=True, **how)
    assert torch.equal(spoken, module.generate(WORDS, use_cache=False, **how))
    # Into a frame with other weights: the file holds what is tied once, and it stays tied.
    save_weights(module, tmp_path / "w.safetensors")
    other = cut(kind, net).module
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    written = read_weights(tmp_path / "w.safetensors")
    assert len(written) == len(module.state_dict()) - tied(module)
    load_into(other, written, source="w")
    assert torch.equal(logits(other), logits(module))
    assert tied(other) == tied(module)


@pytest.mark.parametrize("kind", ["depth", "width", "low_rank"])
@pytest.mark.parametrize("name", OURS)
def test_a_cut_network_of_ours_is_still_a_causal_model(name, kind):
    net = made(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(4)
    student = cut(kind, net)
    module = student.module
    kept = range(2 if kind == "depth" else 3)
    assert list(student.provenance) == [f"blocks.{n}" for n in kept]
    last = module.embedding if module.output is None else module.output
    assert module.head.weight is last.weight
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        whole, past = module(WORDS), ()
        for place in range(WORDS.shape[1]):
            told, past = module.step(WORDS[:, place : place + 1], past)
            torch.testing.assert_close(told, whole[:, place])
    if kind == "width":
        attention = module.blocks[0].attention
        assert (attention.heads, attention.kv_heads) == (2, 1 if name == "gpt" else 2)
        assert attention.query.out_features == 16
        assert module.blocks[0].mlp.up.out_features == net.blocks[0].mlp.up.out_features // 2


@pytest.mark.parametrize("kind", ["depth", "width"])
@pytest.mark.parametrize("name", SAVED)
def test_the_librarys_own_saving_gives_the_same_student(name, kind, tmp_path):
    module = cut(kind, made(name)).module
    module.save_pretrained(tmp_path)
    again = type(module).from_pretrained(tmp_path).double().eval()
    torch.testing.assert_close(logits(again), logits(module), rtol=0, atol=1e-5)
    assert tied(again) == tied(module)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_rotary_positions_of_a_narrower_student_are_still_relative(name):
    module = cut("width", made(name)).module
    places = torch.arange(WORDS.shape[1])[None]
    with torch.no_grad():
        here, there = (module(WORDS, position_ids=places + by).logits for by in (0, 17))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
    heads = module.model.layers[0].self_attn
    assert (heads.q_proj.out_features, heads.k_proj.out_features) == (16, 8)


def test_heads_that_do_not_divide_are_refused_with_shares_that_do():
    net = made("qwen2")
    with pytest.raises(ModelError, match=r"4 heads in 2 groups that share keys and keep=0\.3: use"):
        plan_width(net, WORDS, keep=0.3)


def test_what_is_tied_may_have_any_of_its_names_but_only_one_value(tmp_path):
    net = made("llama")
    state = dict(net.state_dict())
    embedding = state.pop("model.embed_tokens.weight")
    other = FAMILIES["llama"]().double()
    load_into(other, state, source="w")
    assert torch.equal(other.model.embed_tokens.weight, embedding)
    with pytest.raises(ModelError, match=r"are one tensor in the model, but w holds two different"):
        load_into(other, {**state, "model.embed_tokens.weight": embedding + 1}, source="w")
    save_weights(net, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"missing: lm_head\.weight"):
        load_into(made("untied"), read_weights(tmp_path / "w.safetensors"), source="w")


def test_a_low_rank_frame_is_filled_by_trained_weights():
    net = made("llama")
    plan = plan_low_rank(net, WORDS.repeat(6, 1), energy=0.8)
    trained = cut_low_rank(net, plan, WORDS).module
    frame = frame_low_rank(made("llama"), plan).module
    load_into(frame, trained.state_dict(), source="trained")
    assert torch.equal(logits(frame), logits(trained))
    assert tied(frame)


@pytest.mark.parametrize("kind", ["depth", "width", "low_rank"])
def test_a_model_of_the_library_is_cut_inside_its_causal_wrapping(kind):
    net = causal_of(made("llama")).double().eval()
    student = cut(kind, net)
    module = student.module
    kept = range(2 if kind == "depth" else 3)
    assert list(student.provenance) == [f"network.model.layers.{n}" for n in kept]
    assert module.head.weight is module.network.model.embed_tokens.weight
    with torch.no_grad():
        whole, past = module(WORDS), ()
        for place in range(WORDS.shape[1]):
            told, past = module.step(WORDS[:, place : place + 1], past)
            torch.testing.assert_close(told, whole[:, place])
    assert len(past) == 1 + 2 * len(kept)
