"""Scores of positions with texts as rows: against loops and scikit-learn's definitions."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from understudy.errors import DataError
from understudy.evaluate.by_row import MACRO_F1, by_row, class_f1
from understudy.evaluate.quality import ACCURACY, CALIBRATION, NLL, Score, interval, row_values


@pytest.fixture
def told():
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 9, 40)
    count = int(lengths.sum())
    labels = draw.integers(0, 4, count)
    answers = draw.normal(size=(count, 4))
    answers[np.arange(count), labels] += 1.0
    return answers, labels, lengths


@pytest.mark.parametrize("score", [MACRO_F1, ACCURACY, NLL, CALIBRATION], ids=lambda s: s.name)
def test_the_score_itself_stays_and_its_rows_are_texts(score, told):
    answers, labels, lengths = told
    wrapped = by_row(score, lengths)
    whole = interval(score, answers[None], labels, draws=200)
    found = interval(wrapped, answers[None], labels, draws=200)
    assert found.value == pytest.approx(whole.value)
    values = row_values(wrapped, answers, labels)
    assert values.shape == (40,)
    assert values.mean() == pytest.approx(whole.value)
    # Left out by hand: the text's positions, all of them.
    owner = np.repeat(np.arange(40), lengths)

    def without(text):
        kept = owner != text
        return score.value(answers[kept], labels[kept])

    text, other = int(lengths.argmax()), 0
    goal = 39 * (without(other) - without(text))
    assert values[text] - values[other] == pytest.approx(goal)


def test_a_class_of_one_row_counts_once():
    labels, lengths = np.array([0, 4, *[n % 4 for n in range(78)]]), np.full(40, 2)
    right, wrong = np.eye(5)[labels], np.eye(5)[np.where(labels == 4, 0, labels)]
    scored = by_row(MACRO_F1, lengths)
    one, other = (row_values(scored, answers, labels).mean() for answers in (wrong, right))
    assert one - other == pytest.approx(
        MACRO_F1.value(wrong, labels) - MACRO_F1.value(right, labels)
    )
    assert 0.2 < other - one < 0.21


def test_macro_f1_is_scikit_learns_and_leaves_no_class_out(told):
    answers, labels, _ = told
    chosen = answers.argmax(axis=1)
    expected = f1_score(labels, chosen, average="macro")
    assert MACRO_F1.value(answers, labels) == pytest.approx(expected)
    each = f1_score(labels, chosen, average=None)
    assert [class_f1(n).value(answers, labels) for n in range(4)] == pytest.approx(list(each))
    wide = np.concatenate([answers, np.full((len(answers), 1), -99.0)], axis=1)
    assert MACRO_F1.value(wide, labels) == pytest.approx(expected), "a fifth class that is nowhere"
    constant = np.zeros((len(labels), 4))
    constant[:, 2] = 1
    expected = f1_score(labels, np.full(len(labels), 2), average="macro", zero_division=0)
    assert MACRO_F1.value(constant, labels) == pytest.approx(expected)


def test_an_interval_over_texts_is_wider_where_the_tokens_of_a_text_are_alike():
    draw = np.random.default_rng(1)
    lengths = np.full(50, 20)
    right = np.repeat(draw.random(50) < 0.7, 20)
    labels = np.zeros(1000, np.int64)
    answers = np.stack([right, ~right], axis=1).astype(np.float64)
    tokens = interval(ACCURACY, answers[None], labels, draws=400)
    texts = interval(by_row(ACCURACY, lengths), answers[None], labels, draws=400)
    # Fifty independent texts, not a thousand tokens: sqrt(20) times as wide.
    ratio = (texts.high - texts.low) / (tokens.high - tokens.low)
    assert ratio == pytest.approx(np.sqrt(20), rel=0.2)


def test_what_does_not_fit_is_refused(told):
    answers, labels, lengths = told
    opaque = Score(name="odd", higher_is_better=True, value=lambda *_: 0.0)
    with pytest.raises(DataError, match="made of means over positions"):
        by_row(opaque, lengths)
    with pytest.raises(DataError, match="every scored position must belong to a text"):
        row_values(by_row(ACCURACY, lengths[:-1] + 1), answers, labels)
