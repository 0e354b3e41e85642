"""Exported decoders: their models' own texts, any batch, length and past, and eight bits."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from understudy.data.language_tokens import read_coder, train_coder
from understudy.deployed.generating import Decoder
from understudy.errors import DataError, ExportError
from understudy.export.decoder import export_decoder
from understudy.export.decoder_forms import decoder_int8, decoder_parity
from understudy.models import GPT
from understudy.models.generating import generate

SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def network(name):
    t = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "gpt2":
        config = t.GPT2Config(
            vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=2,
            eos_token_id=2, initializer_range=0.3,
        )  # fmt: skip
        return t.GPT2LMHeadModel(config).eval()
    more = {"qwen3": {"head_dim": 8}}
    more["gemma2"] = {
        "head_dim": 8, "query_pre_attn_scalar": 4, "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 5.0, "sliding_window": 4,
    }  # fmt: skip
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2"}[name]
    config = getattr(t, f"{kind}Config")(**{**SMALL, **more.get(name, {})})
    return getattr(t, f"{kind}ForCausalLM")(config).eval()


def told(decoder, model, tokens, sizes):
    """Logits of file and model after each of some steps."""
    at, past, memory, found, goal = 0, (), (), [], []
    for size in sizes:
        new = tokens[:, at : at + size]
        logits, past = decoder.step(new.numpy(), past)
        with torch.no_grad():
            own, memory = model.step(new, memory)
        found.append(logits)
        goal.append(own.numpy())
        at += size
    return np.stack(found), np.stack(goal)


@pytest.fixture(scope="module")
def shakespeare(shared_data, tmp_path_factory):
    """A small model that learned a little Shakespeare, its tokenizer and its file."""
    (book,) = (shared_data / "tinyshakespeare").glob("*.txt")
    text = book.read_text()[:60_000]
    coder = train_coder([text], size=320)
    torch.manual_seed(0)
    net = GPT(
        vocabulary=384, context=96, end=coder.end, dim=40, depth=2, heads=4, kv_heads=2
    )  # fmt: skip
    tokens = torch.from_numpy(coder.encode([text])[0].tokens).long()
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(120):
        starts = torch.randint(0, len(tokens) - 33, (16,), generator=draw)
        rows = torch.stack([tokens[at : at + 33] for at in starts])
        loss = nn.functional.cross_entropy(net(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 4
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    export_decoder(net, path, tokenizer=coder.describe(), metadata={"task": '"language_model"'})
    return net.eval(), coder, path


@pytest.mark.data
def test_a_trained_model_goes_on_as_its_file_does(shakespeare):
    net, coder, path = shakespeare
    prompts = [coder.prompt(text) for text in ("First Citizen:\n", "MENENIUS:\nWhat", "O")]
    parity = decoder_parity(net, path, prompts, most=64, exact=True)
    assert (parity.same_texts, parity.same_tokens) == (1.0, 1.0)
    assert parity.max_abs_difference < 1e-3
    decoder = Decoder.open(path)
    assert decoder.metadata["task"] == "language_model"
    ids = coder.prompt("First Citizen:\n")
    goal = coder.decode([*ids, *generate(net, [ids], most=64)[0].tolist()])
    text = "First Citizen:\n" + "".join(decoder.stream("First Citizen:\n", most=64))
    assert text == goal
    assert len(set(text)) > 8


@pytest.mark.data
def test_any_batch_length_and_past_and_documents_apart(shakespeare):
    net, coder, path = shakespeare
    decoder = Decoder.open(path)
    draw = torch.Generator().manual_seed(0)
    for batch, sizes in ((1, (1, 1, 1)), (3, (7, 1, 4)), (2, (1, 9, 1))):
        tokens = torch.randint(0, 384, (batch, sum(sizes)), generator=draw)
        tokens[0, sum(sizes) // 2] = coder.end
        found, goal = told(decoder, net, tokens, sizes)
        np.testing.assert_allclose(found, goal, atol=2e-4)


@pytest.mark.data
def test_the_file_is_as_large_as_its_weights_and_equal_models_give_equal_bytes(
    shakespeare, tmp_path
):
    net, coder, path = shakespeare
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    extra = path.stat().st_size - weights - len(coder.content)
    # The graph, its names and the metadata; a second embedding would be 61 kB more.
    assert 0 < extra < 60_000
    again = export_decoder(
        net, tmp_path / "b.onnx", tokenizer=coder.describe(), metadata={"task": '"language_model"'}
    )
    assert again.read_bytes() == path.read_bytes()
    assert net.head.weight.requires_grad


@pytest.mark.data
def test_eight_bits_are_small_and_nearly_the_same(shakespeare, tmp_path):
    net, coder, path = shakespeare
    small = decoder_int8(path, tmp_path / "small.onnx")
    prompts = [coder.prompt(text) for text in ("First Citizen:\n", "MENENIUS:\nWhat", "O")]
    parity = decoder_parity(net, small, prompts)
    assert parity.same_tokens > 0.9
    assert 0 < parity.max_abs_difference < 1
    decoder = Decoder.open(small)
    assert decoder.metadata["precision"] == "weight_int8"
    assert decoder.coder.encode("O") == coder.prompt("O")
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    overhead = path.stat().st_size - weights
    # Rows of 40 numbers take two blocks of 32.
    assert small.stat().st_size - overhead < weights / 2
    # The embedding is the head: no table of its own is left.
    tables = [
        tensor for tensor in onnx.load(small).graph.initializer if list(tensor.dims)[:1] == [384]
    ]
    assert sorted(tuple(tensor.dims) for tensor in tables) == [(384, 2), (384, 2), (384, 2, 32)]
    four = decoder_int8(path, tmp_path / "four.onnx", bits=4)
    assert four.stat().st_size < small.stat().st_size


# Llama's fast test is the story model.
@pytest.mark.parametrize(
    "name",
    [
        "gemma2",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("llama", "gpt2", "qwen2", "qwen3")),
    ],
)
def test_the_families_of_hugging_face(name, tmp_path):
    from understudy.teachers.hf_causal import causal_of

    model = causal_of(network(name), begin=None, end=2)
    path = export_decoder(model, tmp_path / "d.onnx")
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 40, (2, 12), generator=draw)
    tokens[0, 5] = 2
    found, goal = told(Decoder.open(path), model, tokens, (4, 1, 6, 1))
    np.testing.assert_allclose(found, goal, atol=2e-4)
    decoder_parity(model, path, [[5, 6], [7]], most=16, exact=True)


@pytest.mark.data
def test_the_real_story_model_tells_its_story(shared_data, tmp_path):
    from understudy.teachers.hf_causal import load_hf_causal

    folder = shared_data / "stories260k"
    model, coder = load_hf_causal(folder), read_coder(folder)
    path = export_decoder(model, tmp_path / "d.onnx", tokenizer=coder.describe())
    prompts = [coder.prompt(text) for text in ("", "Tom and his dog", "The sun")]
    assert decoder_parity(model, path, prompts, most=64, exact=True).tokens == 3 * 64
    text = "".join(Decoder.open(path).stream("", most=64))
    assert text.startswith("Once upon a time, there was a little girl named Lily.")
    small = decoder_int8(path, tmp_path / "small.onnx")
    assert path.stat().st_size > 3 * small.stat().st_size
    assert decoder_parity(model, small, prompts, most=64).same_tokens > 0.95


def test_what_cannot_be_exported(tmp_path):
    net = GPT(vocabulary=20, context=8, dim=8, depth=1, heads=1)
    coder = train_coder(["a b"], size=260)
    with pytest.raises(ExportError, match=r"tokenizer\s+has token \d+ and the model 20 logits"):
        export_decoder(net, tmp_path / "d.onnx", tokenizer=coder.describe())
    with pytest.raises(ExportError, match="cannot be exported as a decoder: no way"):
        export_decoder(Lost(vocabulary=20, context=8, dim=8, depth=1, heads=1), tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


class Lost(GPT):
    """Does not step."""

    def step(self, tokens, past=()):
        raise RuntimeError("no way")


def test_a_file_that_goes_another_way_is_refused(tmp_path):
    from deployed.decoder_cases import decoder_file, follows

    path = decoder_file(tmp_path / "d.onnx", follows(("a", "b"), ("b", "c"), ("c", "a")))
    net = GPT(vocabulary=266, context=12, dim=8, depth=1, heads=1)
    parity = decoder_parity(net, path, [[260], [261]], most=6)
    assert parity.same_texts == 0
    assert parity.tokens == 12
    with pytest.raises(ExportError, match=r"d\.onnx goes another way after 0 of 6 tokens"):
        decoder_parity(net, path, [[260]], most=6, exact=True)
    with pytest.raises(DataError, match="compared on prompts, but got none"):
        decoder_parity(net, path, [])
    (tmp_path / "odd.onnx").write_text(json.dumps({}))
    with pytest.raises(ExportError, match="cannot be opened as an ONNX model"):
        decoder_int8(tmp_path / "odd.onnx", tmp_path / "small.onnx")
    with pytest.raises(ExportError, match="has no linear layer"):
        decoder_int8(path, tmp_path / "small.onnx")
