"""Zero-shot teachers: directions, scale and offsets from texts without labels."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.teachers.sentence_tokenizer import SentenceTokenizer
from understudy.teachers.text_teacher import TextTeacher
from understudy.teachers.zero_shot import SPREAD, TextsToLogits, calibrate, directions

WORDS = {"good": [1.0, 0.0, 0.2], "bad": [0.0, 1.0, 0.2], "a film that is": [0.1, 0.1, 3.0]}


def embed(texts):
    """Vectors of words, summed."""
    sums = [sum(np.array(v) for word, v in WORDS.items() if word in text) for text in texts]
    return torch.tensor(np.array(sums), dtype=torch.float32)


def test_a_class_is_the_mean_of_the_unit_vectors_of_its_descriptions():
    found = directions(embed, {"neg": ["bad", "a film that is bad"], "pos": ["good"]})
    units = nn.functional.normalize(embed(["bad", "a film that is bad"]), dim=1)
    assert torch.allclose(found[0], nn.functional.normalize(units.mean(dim=0), dim=0), atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-6)
    told = directions(embed, {"neg": ["bad"], "pos": ["good"]}, template="a film that is {}")
    wanted = embed(["a film that is good"])
    assert torch.allclose(told[1], nn.functional.normalize(wanted, dim=1)[0], atol=1e-6)
    with pytest.raises(ModelError, match="two of neg, pos have one direction"):
        directions(embed, {"neg": ["good"], "pos": ["good"]})


def cosines(rows=400, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = 0.3 + 0.1 * torch.randn(rows, classes, generator=generator)
    # One class is nearer to everything, as some descriptions are.
    return found + torch.tensor([0.2, 0.0, 0.0])[:classes]


@pytest.mark.parametrize("prior", [None, [1 / 3] * 3, [0.9, 0.07, 0.03]])
def test_scale_and_offsets_give_the_entropy_and_the_mean_that_are_asked_for(prior):
    told = cosines()
    scale, offsets = calibrate(told, prior=prior)
    logs = (scale * told + offsets).double().log_softmax(dim=1)
    entropy = float(-(logs.exp() * logs).sum(dim=1).mean())
    shares = prior or [1 / 3] * 3
    most = -sum(share * math.log(share) for share in shares)
    if prior is None:
        assert torch.equal(offsets, torch.zeros(3))
    else:
        assert torch.allclose(logs.exp().mean(dim=0), torch.tensor(shares).double(), atol=2e-3)
    assert entropy == pytest.approx(SPREAD * most, rel=0.02)


def test_offsets_do_not_depend_on_what_all_classes_have_in_common_nor_on_the_order_of_texts():
    told = cosines()
    scale, offsets = calibrate(told, prior=[1 / 3] * 3)
    moved = calibrate(told.flip(0) - 0.25, prior=[1 / 3] * 3)
    assert moved[0] == pytest.approx(scale, rel=1e-4)
    assert torch.allclose(moved[1], offsets, atol=1e-3)
    assert float(offsets.mean()) == pytest.approx(0, abs=1e-5)
    # Another range of cosines is another scale, and the same answers.
    halved = calibrate(told / 2, prior=[1 / 3] * 3)
    assert halved[0] == pytest.approx(2 * scale, rel=1e-4)


def test_a_scale_that_is_told_is_kept_and_texts_that_are_alike_are_refused():
    assert calibrate(cosines(), scale=7.0)[0] == 7.0
    with pytest.raises(ModelError, match="texts that differ"):
        calibrate(torch.full((10, 2), 0.4))


class Letters(SentenceTokenizer):
    """A tokenizer of letters."""

    def __init__(self):
        self.pad, self.length = 0, 9

    def encode(self, texts):
        return [[ord(letter) - 96 for letter in text] for text in texts]


class Sums(nn.Module):
    """The sum of ids and how many are padding."""

    def forward(self, ids):
        return torch.stack([ids.sum(dim=1), (ids == 0).sum(dim=1)], dim=1).float()


def test_texts_are_answered_in_their_order_with_like_lengths_together():
    ask = TextsToLogits(Sums(), Letters(), batch_size=2)
    found = ask(["aaa", "b", "cc", "dddd", "e"])
    assert found[:, 0].tolist() == [3, 2, 6, 16, 5]
    assert float(found[:, 1].sum()) == 1, "one text is filled up by one token"
    with pytest.raises(ModelError, match="these rows are pairs"):
        ask([("a", "b")])


def batch(ids):
    return Batch(inputs=torch.zeros(len(ids), 3), ids=torch.tensor(ids))


def test_a_teacher_of_texts_finds_them_by_id():
    asked = []

    def predict(texts):
        asked.append(texts)
        return np.array([[len(text), 0.0] for text in texts])

    texts = [("one",), ("three",), ("fifteen",)]
    teacher = TextTeacher(
        predict, texts=texts, ids=np.array([30, 10, 20]), output="logits", width=2
    )
    assert teacher.offers == {"logits"}
    assert teacher(batch([20, 30, 20])).tensor("logits")[:, 0].tolist() == [7, 3, 7]
    assert asked == [["fifteen", "one", "fifteen"]]
    with pytest.raises(ModelError, match="1 of 2 ids have none \\(the first is 11\\)"):
        teacher(batch([10, 11]))
    with pytest.raises(ModelError, match="these rows have none"):
        teacher(Batch(inputs=torch.zeros(2, 3)))


def test_pairs_are_given_as_pairs_and_probabilities_become_logits():
    def predict(texts):
        assert texts == [("a", "b")]
        return np.array([[0.25, 0.75]])

    teacher = TextTeacher(
        predict,
        texts=[("a", "b")],
        ids=np.array([4]),
        output="logits",
        width=2,
        answers="probabilities",
    )
    found = teacher(batch([4])).tensor("logits").softmax(dim=1)
    assert torch.allclose(found, torch.tensor([[0.25, 0.75]]))
