"""A pretrained encoder with a fresh head: what it answers, and what it refuses."""

import pytest
import torch

from understudy.errors import ModelError
from understudy.students.depth import cut_depth, plan_depth
from understudy.teachers.hf_encoder import HFEncoder

transformers = pytest.importorskip("transformers")
FACTS = {"vocabulary": 40, "pad": 0, "length": 16, "width": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of random weights as `save_pretrained` writes it."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )
    place = tmp_path_factory.mktemp("bert")
    transformers.BertModel(config).save_pretrained(place)
    return str(place)


def texts(*lengths, longest=12):
    rows = torch.arange(1, longest + 1).repeat(len(lengths), 1)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = 0
    return rows


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_padding_makes_no_difference_and_a_text_of_padding_is_answered(pool, folder):
    network = HFEncoder(folder=folder, **FACTS, pool=pool).eval()
    rows = texts(12, 5, 0)
    together = network(rows)
    assert together.shape == (3, 3)
    assert together.isfinite().all()
    torch.testing.assert_close(network(rows[1:2, :5]), together[1:2], atol=1e-5, rtol=1e-5)


def test_asked_once_per_token_it_answers_from_each_tokens_own_state(folder):
    network = HFEncoder(folder=folder, **FACTS, each_token=True).eval()
    rows = texts(12, 5, 0)
    together = network(rows)
    assert together.shape == (3, 12, 3)
    assert together.isfinite().all()
    torch.testing.assert_close(network(rows[1:2, :5]), together[1:2, :5], atol=1e-5, rtol=1e-5)
    assert (together[0, 0] - together[0, 1]).abs().max() > 0


def test_every_weight_learns_unless_it_is_frozen(folder):
    for freeze, still in (("none", 0), ("embeddings", 1), ("encoder", None)):
        network = HFEncoder(folder=folder, **FACTS, freeze=freeze)
        network(texts(12, 5)).square().sum().backward()
        frozen = [name for name, weights in network.named_parameters() if weights.grad is None]
        assert len(frozen) == still or (still is None and all("encoder" in n for n in frozen))
        assert network.head.weight.grad is not None
    assert len(frozen) > 10


def test_it_can_be_cut_in_depth_and_the_student_knows_its_layers(folder):
    network, rows = HFEncoder(folder=folder, **FACTS).eval(), texts(12, 5, 9)
    plan = plan_depth(network, rows, keep=2)
    student = cut_depth(network, plan, rows)
    assert len(student.module.encoder.encoder.layer) == 2
    assert student.provenance == {
        "encoder.encoder.layer.0": "encoder.encoder.layer.0",
        "encoder.encoder.layer.1": "encoder.encoder.layer.3",
    }
    assert student.module(rows).shape == (3, 3)


def test_a_tokenizer_of_another_model_is_refused(folder):
    law = (
        "belong together, but the tokenizer has 41 ids and .* has vectors for 40: name the model's"
    )
    with pytest.raises(ModelError, match=law):
        HFEncoder(folder=folder, **{**FACTS, "vocabulary": 41})


def test_texts_longer_than_the_positions_are_refused(folder):
    with pytest.raises(
        ModelError, match=r"up to 21 tokens and .* 20 positions: set `max_length: 20`"
    ):
        HFEncoder(folder=folder, **{**FACTS, "length": 21})


def test_a_model_that_is_not_there_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path / "missing"), "nobody/has-this-model"):
        with pytest.raises(ModelError) as error:
            HFEncoder(folder=name, **FACTS)
        assert "\n" not in str(error.value)
        assert name in str(error.value)


def test_a_dropout_outside_its_bounds_is_refused(folder):
    with pytest.raises(ValueError, match="`0 <= dropout < 1`"):
        HFEncoder(folder=folder, **FACTS, dropout=1.0)
