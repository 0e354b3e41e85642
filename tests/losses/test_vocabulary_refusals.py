"""Fused losses over vocabularies: what is refused, and in which words."""

import math

import pytest
import torch

from losses.vocabulary_cases import KINDS, TOKENS, VOCABULARY, K, drawn, student, told
from understudy.errors import TrainingError
from understudy.losses.vocabulary import (
    Blend,
    DenseLabels,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Pieces,
    Reverse,
    Skew,
    vocabulary_loss,
)


def test_widths_that_no_padding_explains_are_refused():
    hidden, head = student()
    labels = DenseLabels(logits=drawn(TOKENS, VOCABULARY + 1024))
    with pytest.raises(ValueError, match=r"one tokenizer.*vocabulary=23"):
        vocabulary_loss(hidden, head, labels)
    assert vocabulary_loss(hidden, head, labels, vocabulary=23).loss > 0


@pytest.mark.parametrize("where", ["student", "teacher"])
@pytest.mark.parametrize("form", ["hidden", "dense"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_nan_names_its_token(where, form, kind):
    _, labels = told(form)
    hidden, head = student()
    if where == "student":
        hidden = hidden.detach().index_fill(0, torch.tensor([4]), math.nan)
    elif form == "hidden":
        bad = labels.hidden.index_fill(0, torch.tensor([4]), math.nan)
        labels = HiddenLabels(hidden=bad, head=labels.head)
    else:
        labels = DenseLabels(logits=labels.logits.index_fill(0, torch.tensor([4]), math.nan))
    with pytest.raises(TrainingError, match=rf"token 4 is nan \(1 of 7 tokens\): the {where}'s"):
        vocabulary_loss(hidden, head, labels, divergence=kind)


def listed(**changed):
    _, labels = told("listed")
    fields = {n: getattr(labels, n) for n in ("ids", "log_mass", "rest", "sampled", "entropy")}
    return ListedLabels(**{**fields, **changed})


_, DENSE = told("dense")


BROKEN = {
    "label": ({"labels": torch.full((TOKENS,), 23), "hard_weight": 1}, "label 23 at token 0"),
    "negative label": ({"labels": torch.full((TOKENS,), -1), "hard_weight": 1}, "label -1"),
    "short labels": ({"labels": torch.zeros(3, dtype=torch.int64), "hard_weight": 1}, "`labels`"),
    "integer mask": ({"mask": torch.ones(TOKENS, dtype=torch.int64)}, "`mask.dtype"),
    "short mask": ({"mask": torch.ones(2, dtype=torch.bool)}, "`mask` must be"),
    "no labels": ({"hard_weight": 1.0}, "`labels` must be there"),
    "smoothing": ({"label_smoothing": 1.0}, "label_smoothing < 1"),
    "temperature": ({"temperature": 0}, "temperature > 0"),
    "soft weight": ({"soft_weight": 0}, "soft_weight > 0"),
    "hard weight": ({"hard_weight": -1.0}, "hard_weight >= 0"),
    "denominator": ({"denominator": 0}, "denominator > 0"),
    "denominators": ({"denominator": torch.ones(2)}, "must be one number"),
    "vocabulary": ({"vocabulary": 24}, "vocabulary <= 23"),
    "one column": ({"vocabulary": 1}, "2 columns or more"),
    "nothing": ({"teacher": None}, "something to learn"),
    "rows": ({"teacher": DenseLabels(logits=DENSE.logits[:-1])}, "one row per token"),
    "teacher's head": (
        {"teacher": HiddenLabels(hidden=DENSE.logits, head=LinearHead(weight=torch.ones(23, 4)))},
        "teacher.hidden.shape",
    ),
    "listed id": ({"teacher": listed(ids=torch.full((TOKENS, K + 1), 23))}, "-1 <= ids < 23"),
    "int32 ids": ({"teacher": listed(ids=listed().ids.int())}, "ids.dtype"),
    "list shapes": ({"teacher": listed(log_mass=torch.zeros(TOKENS, 2))}, "log_mass.shape"),
    "rest": ({"teacher": listed(rest=torch.zeros(2))}, "`rest` must be"),
    "no entropy": ({"teacher": listed(sampled=True)}, "`entropy` must be there"),
    "sampled at T": (
        {"teacher": listed(sampled=True, entropy=torch.zeros(TOKENS)), "temperature": 2},
        "temperature == 1",
    ),
    "sampled reverse": (
        {"teacher": listed(sampled=True, entropy=torch.zeros(TOKENS)), "divergence": Reverse()},
        "Forward",
    ),
}


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("name", BROKEN)
def test_what_means_nothing_is_refused(name):
    given, words = BROKEN[name]
    hidden, head = student()
    with pytest.raises(ValueError, match=words):
        vocabulary_loss(hidden, head, **{"teacher": DENSE, **given})


@pytest.mark.usefixtures("as_users_run_it")
def test_hidden_states_of_another_shape_are_refused():
    hidden, head = student()
    with pytest.raises(ValueError, match="flatten"):
        vocabulary_loss(hidden.unsqueeze(0), head, DENSE)
    with pytest.raises(ValueError, match=r"\(7, 4\) and weight \(23, 5\)"):
        vocabulary_loss(hidden[:, :4], head, DENSE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearHead(weight=torch.ones(3)), "weight"),
        (lambda: LinearHead(weight=torch.ones(3, 2), bias=torch.ones(2)), "bias.shape"),
        (lambda: LinearHead(weight=torch.ones(3, 2), soft_cap=0.0), "soft_cap > 0"),
        (lambda: LinearHead(weight=torch.ones(3, 2), scale=math.nan), "scale > 0"),
        (lambda: Blend(beta=1.0), "0 < beta < 1"),
        (lambda: Skew(skew=0.0), "0 < skew < 1"),
        (lambda: Skew(direction="up"), "`direction` must be one of"),
        (lambda: Pieces(tokens=0, columns=1), "tokens >= 1"),
    ],
)
def test_parts_that_mean_nothing_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
