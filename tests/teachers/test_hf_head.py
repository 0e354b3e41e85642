"""A head is one where it gives all of the logits, and none where something else is done to them."""

import pytest
import torch
from torch import nn

from understudy.losses.vocabulary import LinearHead
from understudy.teachers.hf_head import head_agrees, head_of

t = pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 20, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0,
    "initializer_range": 0.5, "max_position_embeddings": 32,
}  # fmt: skip
TOKENS = {"input_ids": torch.tensor([[3, 4, 5]])}


def llama(kind=t.LlamaForCausalLM):
    torch.manual_seed(0)
    return kind(t.LlamaConfig(**SMALL)).eval()


class Twice(t.LlamaForCausalLM):
    """Does something to its logits that no setting tells of."""

    def forward(self, *given, logits_to_keep=0, **named):
        answer = super().forward(*given, logits_to_keep=logits_to_keep, **named)
        answer.logits = 2 * answer.logits
        return answer


def test_a_plain_head_has_the_models_own_weight():
    model = llama()
    head = head_of(model)
    assert isinstance(head, LinearHead)
    assert head.weight is model.lm_head.weight
    assert (head.scale, head.soft_cap, head.bias) == (1.0, None, None)
    assert head_agrees(model, head, TOKENS)
    twice = llama(Twice)
    assert not head_agrees(twice, head_of(twice), TOKENS)


def test_constants_are_those_of_the_configuration():
    model = llama()
    model.config.logit_scale, model.config.logits_scaling = 0.5, 4.0
    model.config.final_logit_softcapping = 30.0
    head = head_of(model)
    assert (head.scale, head.soft_cap) == (0.125, 30.0)


def test_heads_that_are_no_plain_layer():
    model = llama()
    assert head_of(nn.Linear(2, 2)) is None
    model.config.logit_twist = 2.0
    assert head_of(model) is None
    del model.config.logit_twist
    assert head_of(model) is not None
    model.lm_head = nn.Sequential(model.lm_head)
    assert head_of(model) is None


def test_looking_leaves_the_model_as_it_was():
    model = llama().train()
    head_agrees(model, head_of(model), TOKENS)
    assert model.training
