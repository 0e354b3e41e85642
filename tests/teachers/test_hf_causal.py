"""Every family behind one interface: its own logits, no leaks between documents, exact steps."""

import pytest
import torch
from torch import nn

from understudy.errors import ModelError
from understudy.models.causal import CausalModel, head_logits
from understudy.teachers.hf_causal import HFCausal, causal_of, load_hf_causal

t = pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "gpt2": lambda: t.GPT2LMHeadModel(
        t.GPT2Config(
            vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=2,
            eos_token_id=2, initializer_range=0.3,
        )
    ),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SMALL)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**SMALL, head_dim=8)),
    "gemma2": lambda: t.Gemma2ForCausalLM(
        t.Gemma2Config(
            **SMALL, head_dim=8, query_pre_attn_scalar=4, final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0, sliding_window=4,
        )
    ),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**SMALL, sliding_window=3)),
    "cohere": lambda: t.CohereForCausalLM(t.CohereConfig(**SMALL, logit_scale=0.3)),
    "granite": lambda: t.GraniteForCausalLM(t.GraniteConfig(**SMALL, logits_scaling=5.0)),
}  # fmt: skip


# Where attention is not PyTorch's own, its softmax is taken in float32.
CLOSE = dict.fromkeys(FAMILIES, 1e-10) | {"gemma2": 1e-5}


def made(name):
    torch.manual_seed(0)
    return FAMILIES[name]().double().eval()


def draw(rows, length, seed=1):
    return torch.randint(3, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_states_and_head_are_the_models_own_logits(name):
    network = made(name)
    model = causal_of(network, begin=None, end=None)
    assert isinstance(model, CausalModel)
    tokens = draw(2, 11)
    goal = network(tokens).logits
    torch.testing.assert_close(model(tokens), goal)
    torch.testing.assert_close(head_logits(model.states(tokens), model.head), goal)
    # One document, told by masks and places of ours.
    model.end = 2
    torch.testing.assert_close(model(tokens), goal)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_document_in_a_packed_row_is_what_it_is_alone(name):
    model = causal_of(made(name), begin=None, end=2)
    stop = torch.full((2, 1), 2)
    documents = [torch.cat([draw(2, length, length), stop], dim=1) for length in (5, 1, 8)]
    padding = torch.zeros((2, 3), dtype=torch.int64)
    logits = model(torch.cat([*documents, padding], dim=1))
    at = 0
    for document in documents:
        found = logits[:, at : at + document.shape[1]]
        torch.testing.assert_close(found, model(document), rtol=CLOSE[name], atol=CLOSE[name])
        at += document.shape[1]


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_steps_give_what_the_whole_row_gives(name):
    model = causal_of(made(name), begin=1, end=None)
    tokens = draw(2, 10)
    tokens[:, 0], tokens[0, 6] = 1, 1
    whole, past, at = model(tokens), (), 0
    for size in (4, 1, 1, 3, 1):
        told, past = model.step(tokens[:, at : at + size], past)
        at += size
        torch.testing.assert_close(told, whole[:, at - 1], rtol=CLOSE[name], atol=CLOSE[name])
    assert torch.equal(past[0], tokens)


def test_the_tokens_of_documents_are_found():
    found = causal_of(made("llama"))
    assert (found.begin, found.end, found.stop) == (1, None, (2, 1))
    assert (found.vocabulary, found.context) == (40, 64)
    same = causal_of(made("gpt2"))
    assert (same.begin, same.end, same.stop) == (None, 2, (2,))
    own = causal_of(made("llama"), begin=None, end=7)
    assert (own.begin, own.end, own.stop) == (None, 7, (2, 7))


def test_gradients_reach_the_network():
    model = causal_of(made("llama"), end=2)
    head_logits(model.states(draw(1, 4)), model.head).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_low_rank_adapters_are_seen():
    peft = pytest.importorskip("peft")
    plain = made("llama")
    tokens = draw(1, 5)
    before = causal_of(plain)(tokens)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = causal_of(peft.get_peft_model(plain, settings))
    assert not torch.allclose(model(tokens), before)
    torch.testing.assert_close(model(tokens)[:, -1], model.step(tokens)[0])


@pytest.mark.parametrize("length", [0, 65])
def test_rows_that_do_not_fit_the_context(length):
    with pytest.raises(ValueError, match=f"1 to 64 tokens, the model's context, but got {length}"):
        causal_of(made("llama"))(draw(1, length))


def test_what_cannot_be_wrapped():
    with pytest.raises(ModelError, match="a causal model of Hugging Face must be given"):
        causal_of(nn.Linear(2, 2))
    model = made("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ModelError, match="through one linear layer"):
        causal_of(model)
    with pytest.raises(ValueError, match="0 <= token < vocabulary"):
        causal_of(made("llama"), end=40)
    odd = made("llama")
    odd.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ModelError, match="has layers of linear_attention"):
        causal_of(odd)


@pytest.mark.data
@torch.no_grad()
def test_the_real_story_model_goes_on_with_its_story(shared_data):
    model = load_hf_causal(shared_data / "stories260k")
    assert isinstance(model, HFCausal)
    assert (model.begin, model.stop, model.vocabulary, model.context) == (1, (2, 1), 512, 512)
    assert not model.training
    tokens = torch.tensor([[1]])
    logits, past = model.step(tokens)
    for _ in range(20):
        tokens = torch.cat([tokens, logits.argmax(1, keepdim=True)], dim=1)
        logits, past = model.step(tokens[:, -1:], past)
    import json

    pieces = json.loads((shared_data / "stories260k" / "vocabulary.json").read_text())
    text = "".join(pieces[int(n)]["piece"] for n in tokens[0, 1:])
    assert text.startswith(" Once upon a time, there was a little girl named")
