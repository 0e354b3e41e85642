"""The laws of a task, for language modelling; and what its scores are worth."""

import math

import numpy as np
import pytest
import torch

from conformance.task import TaskCase, TaskLaws
from understudy.errors import DataError, ModelError
from understudy.evaluate.by_row import by_row
from understudy.evaluate.language import bits_per_byte, surprise_of
from understudy.evaluate.quality import row_values
from understudy.losses.vocabulary import LinearHead
from understudy.tasks.language_model import LanguageModel

TASK = LanguageModel(vocabulary=7, end=0, special=(0, 6))


def condensed(answers, labels):
    """As scores read them: nats and the likeliest token; what came and its bytes."""
    truth = torch.stack([labels, torch.ones_like(labels)], dim=1)
    return TASK.condensed(answers, labels).numpy(), truth.numpy()


class TestLanguageModel(TaskLaws):
    @pytest.fixture
    def case(self):
        return TaskCase(
            task=TASK,
            labels=lambda count, draw: torch.randint(1, 6, (count,), generator=draw),
            perfect=lambda labels: 1e4 * torch.nn.functional.one_hot(labels, 7).float(),
            unlabelled=-1,
            told=condensed,
        )


def test_bits_per_byte_are_the_nats_of_text_over_its_bytes():
    draw = np.random.default_rng(0)
    outputs = np.stack([draw.exponential(size=8), draw.integers(1, 6, 8)], axis=1)
    tokens = np.array([1, 2, 0, 3, 4, 6, 5, 1])
    labels = np.stack([tokens, np.array([3, 1, 0, 2, 0, 0, 4, 1])], axis=1)
    score, _ = TASK.scores
    text = ~np.isin(tokens, (0, 6))
    wanted = outputs[text, 0].sum() / 11 / math.log(2)
    assert score.value(outputs, labels) == pytest.approx(wanted)
    assert bits_per_byte(outputs[text, 0].sum(), 11) == pytest.approx(wanted)
    rows = by_row(score, np.array([3, 5]))
    assert rows.value(outputs, labels) == pytest.approx(wanted)
    assert len(row_values(rows, outputs, labels)) == 2
    with pytest.raises(DataError, match="bytes"):
        bits_per_byte(1.0, 0)
    # A special token that stands in a text is free, and so are its bytes: they pay for no other.
    labels[5, 1] = 13
    assert score.value(outputs, labels) == pytest.approx(wanted)


def test_agreement_is_the_share_of_positions_with_the_same_likeliest_token():
    teacher = np.array([[0.1, 1.0], [0.2, 2.0], [0.3, 3.0], [0.4, 4.0]])
    own = np.array([[9.0, 1.0], [9.0, 2.0], [9.0, 5.0], [9.0, 4.0]])
    (score,) = TASK.fidelity(teacher)
    assert score.value(own, np.zeros((4, 2))) == 0.75


def test_surprise_is_that_of_a_softmax_piece_by_piece(monkeypatch):
    torch.manual_seed(0)
    states = torch.randn(9, 4, dtype=torch.float64)
    head = LinearHead(
        weight=torch.randn(7, 4, dtype=torch.float64),
        bias=torch.randn(7, dtype=torch.float64),
        scale=0.5,
        soft_cap=3.0,
    )
    labels = torch.randint(0, 7, (9,))
    logits = 3.0 * torch.tanh(0.5 * (states @ head.weight.t() + head.bias) / 3.0)
    wanted = -logits.log_softmax(1)[torch.arange(9), labels]
    whole = surprise_of(states, labels, head=head)
    torch.testing.assert_close(whole.nats, wanted)
    assert torch.equal(whole.best, logits.argmax(1))
    monkeypatch.setattr("understudy.evaluate.language.AT_ONCE", 20)
    torch.testing.assert_close(surprise_of(states, labels, head=head).nats, wanted)
    torch.testing.assert_close(surprise_of(logits, labels).nats, wanted)
    few = surprise_of(states, labels % 5, head=head, columns=5)
    cut = -logits[:, :5].log_softmax(1)[torch.arange(9), labels % 5]
    torch.testing.assert_close(few.nats, cut)


def test_what_cannot_be_judged_is_refused():
    logits = torch.zeros(3, 7)
    with pytest.raises(DataError, match="one of the model's 7, but got tokens from 1 to 8"):
        surprise_of(logits, torch.tensor([1, 8, 2]))
    logits[1, 2] = torch.nan
    with pytest.raises(ModelError, match="position 1 of these has none"):
        surprise_of(logits, torch.tensor([1, 2, 3]))
    assert len(surprise_of(logits[:0], torch.zeros(0, dtype=torch.int64)).nats) == 0
