"""A fine-tuned classifier as it is: its answers, the order of its classes, and what it refuses."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from pipeline.classifier_made import make_classifier, own_logits
from understudy.errors import ModelError
from understudy.students.depth import cut_depth, plan_depth
from understudy.teachers.hf_classifier import HFClassifier, classifier_tokenizer, matched

TEXTS = ["a fine warm film", "so dull", "the plot is slow and the actors are poor", "great"] * 5
PAIRS = ["slow", "a film of great actors", "dull plot", "so so"] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tuned") / "m"
    return str(make_classifier(place, [*TEXTS, *PAIRS], labels=["bad", "good", "so so"]))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return classifier_tokenizer(folder)


def facts(tokenizer, **changes):
    known = {"vocabulary": tokenizer.vocabulary, "pad": tokenizer.pad, "length": tokenizer.length}
    return known | changes


def test_it_says_what_transformers_says_in_the_order_of_the_data(folder, tokenizer):
    network = HFClassifier(folder=folder, **facts(tokenizer))
    rows = torch.from_numpy(tokenizer(TEXTS)).long()
    told = own_logits(folder, TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(network(rows), told)
        network.match(["So so", "BAD", "good"])
        torch.testing.assert_close(network(rows), told[:, [2, 0, 1]])
        # What fills a row up makes no difference, and a row of nothing else has an answer.
        longer = torch.nn.functional.pad(rows, (0, 5), value=tokenizer.pad)
        torch.testing.assert_close(network(longer), told[:, [2, 0, 1]], atol=1e-5, rtol=1e-5)
        assert network(torch.full((1, 4), tokenizer.pad)).isfinite().all()
    assert network.note == ""
    assert "order" not in network.state_dict()


def test_the_second_of_two_texts_is_marked_as_in_its_training(folder, tokenizer):
    network = HFClassifier(folder=folder, **facts(tokenizer))
    rows = torch.from_numpy(tokenizer(TEXTS, PAIRS)).long()
    told = own_logits(folder, TEXTS, PAIRS)
    with torch.no_grad():
        assert not np.allclose(network(rows), told, atol=1e-3)
        network.reads_pairs(tokenizer, (TEXTS[0], PAIRS[0]))
        torch.testing.assert_close(network(rows), told, atol=1e-5, rtol=1e-5)


def test_it_answers_for_every_token_and_can_be_cut_in_depth(tmp_path, folder, tokenizer):
    make_classifier(tmp_path / "t", TEXTS, labels=["x", "y"], each_token=True)
    rows = torch.from_numpy(tokenizer(TEXTS[:4])).long()
    each = HFClassifier(folder=str(tmp_path / "t"), **facts(tokenizer), each_token=True)
    assert each(rows).shape == (*rows.shape, 2)
    network = HFClassifier(folder=folder, **facts(tokenizer)).eval()
    network.match(["so so", "bad", "good"])
    student = cut_depth(network, plan_depth(network, rows, keep=1), rows).module
    assert len(student.network.bert.encoder.layer) == 1
    assert student.order.tolist() == [2, 0, 1]
    assert student(rows).shape == (4, 3)


@pytest.mark.parametrize(
    ("own", "wanted", "places"),
    [
        (["neg", "pos"], ["pos", "neg"], (1, 0)),
        (["NEGATIVE", "POSITIVE"], ["positive", "negative"], (1, 0)),
        # Two classes that differ in capitals alone are told apart by them.
        (["b", "B"], ["B", "b"], (1, 0)),
        (["LABEL_1", "LABEL_0"], ["LABEL_0", "LABEL_1"], (1, 0)),
        (["LABEL_0", "LABEL_1"], ["pos", "neg"], None),
        (["0", "1"], ["1", "0"], (1, 0)),
    ],
)
def test_classes_are_matched_by_their_names(own, wanted, places):
    assert matched(own, wanted, folder="m") == places


@pytest.mark.parametrize(
    ("own", "wanted", "law"),
    [
        (["a", "b", "c"], ["a", "b"], r"as many classes, but m tells a, b, c \(3\), .* a, b \(2\)"),
        (["neg", "pos"], ["0", "1"], r"same names, but m tells neg, pos .* say `classes`"),
        (["neg", "LABEL_1"], ["neg", "pos"], "same names"),
        (["LABEL_0"], ["neg", "pos"], "as many classes"),
    ],
)
def test_other_classes_are_refused_with_both_lists(own, wanted, law):
    with pytest.raises(ModelError, match=law):
        matched(own, wanted, folder="m")


def test_names_that_a_recipe_gives_take_the_place_of_its_own(folder, tokenizer):
    told = HFClassifier(folder=folder, **facts(tokenizer), classes=["2", "1", "0"])
    told.match(["0", "1", "2"])
    assert told.order.tolist() == [2, 1, 0]
    with pytest.raises(ModelError, match="`classes` names 2, 1, 0"):
        told.match(["bad", "good", "so so"])
    with pytest.raises(ModelError, match=r"tells bad, good, so so \(3\) and `classes` names 0, 1"):
        HFClassifier(folder=folder, **facts(tokenizer), classes=["0", "1"])


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"vocabulary": 101}, "tokenizer has 101 ids and .* has vectors for 100"),
        ({"length": 60}, r"up to 60 tokens and .* 48 positions: set `max_length: 48`"),
        ({"each_token": True}, "ForTokenClassification`, but .* is a BertForSequenceClassif"),
    ],
)
def test_what_does_not_belong_to_it_is_refused(folder, tokenizer, changes, law):
    with pytest.raises(ModelError, match=law):
        HFClassifier(folder=folder, **facts(tokenizer, **changes))


def test_a_model_that_answers_from_the_padding_is_refused(folder, tokenizer, monkeypatch):
    plain = HFClassifier.forward
    # One that reads its last position, as models do that are filled up in front.
    monkeypatch.setattr(
        HFClassifier, "forward", lambda self, ids: plain(self, ids) + ids[:, -1:].float()
    )
    with pytest.raises(ModelError, match="padding behind a text must not change its answer"):
        HFClassifier(folder=folder, **facts(tokenizer))
