"""Hidden states and head give the model's own logits, or the logits are read."""

import pytest
import torch
import transformers

from integrations.models import VOCABULARY, Bare, llama
from understudy.errors import ModelError
from understudy.integrations.transformers.reading import Reader, logits_in
from understudy.losses.vocabulary import HiddenLabels
from understudy.losses.vocabulary.tiles import Projection

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "pad_token_id": 0,
    "initializer_range": 0.5, "max_position_embeddings": 32,
}  # fmt: skip


def build(kind, **settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **settings})
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


MODELS = {
    "untied": lambda: llama(8).float(),
    "tied": lambda: llama(8, tie_word_embeddings=True).float(),
    "capped": lambda: build("Gemma2", final_logit_softcapping=2.0, query_pre_attn_scalar=4),
    "scaled": lambda: build("Cohere", logit_scale=0.3),
    "divided": lambda: build("Granite", logits_scaling=5.0),
    "bias": lambda: build("Phi", partial_rotary_factor=0.5),
}


@pytest.fixture
def inputs():
    draw = torch.Generator().manual_seed(0)
    return {"input_ids": torch.randint(1, VOCABULARY, (2, 6), generator=draw)}


@pytest.mark.parametrize("name", MODELS)
def test_states_and_head_are_the_models_logits(inputs, name):
    model = MODELS[name]()
    told, answer = Reader()(model, inputs, bare=model, whole=True)
    assert isinstance(told, HiddenLabels)
    assert (told.head.bias is not None) == (name == "bias")
    head = told.head
    found = Projection(
        told.hidden.detach(), weight=head.weight.detach(),
        bias=None if head.bias is None else head.bias.detach(), scale=float(head.scale),
        soft_cap=head.soft_cap, temperature=1.0, kept=None,
    ).first(slice(0, VOCABULARY))  # fmt: skip
    torch.testing.assert_close(found, model(**inputs).logits.detach(), rtol=1e-4, atol=1e-5)
    assert set(answer) == {"logits"}
    short = Reader()(model, inputs, bare=model)[1]
    assert short["logits"].shape == (2, 1, VOCABULARY)


class Twice(transformers.LlamaForCausalLM):
    """A model that does something to its logits that no setting tells of."""

    def forward(self, *given, logits_to_keep=0, **named):
        answer = super().forward(*given, logits_to_keep=logits_to_keep, **named)
        answer.logits = 2 * answer.logits
        return answer


def test_where_the_head_is_not_all_the_logits_are_read(inputs):
    model = Twice(llama(8).config)
    told, _ = Reader()(model, inputs, bare=model)
    torch.testing.assert_close(told, model(**inputs).logits)


def test_where_nobody_can_tell_the_logits_are_read(inputs):
    model = llama(8)
    told, answer = Reader()(Bare(model), inputs, bare=Bare(model))
    assert told is answer["logits"]


def test_looking_does_not_change_the_model(inputs):
    model = llama(8, attention_dropout=0.5).train()
    state = torch.get_rng_state()
    Reader()(model, inputs, bare=model)
    first = torch.get_rng_state()
    torch.set_rng_state(state)
    model(**inputs)
    assert torch.equal(first, torch.get_rng_state())
    assert model.training


@pytest.mark.parametrize("answer", [torch.zeros(2, 3), {"loss": 1.0}, None])
def test_an_answer_without_logits(answer):
    with pytest.raises(ModelError, match=r"must answer with logits \[batch, length, vocabulary\]"):
        logits_in(answer)
