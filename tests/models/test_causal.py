"""Which tokens see which, and what a head makes of states."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.losses.vocabulary import LinearHead
from understudy.models import causal
from understudy.models.causal import check_token, check_tokens, head_logits, seen

BEGIN, END = 1, 2
ROWS = st.lists(st.integers(0, 5), min_size=1, max_size=14)


def documents(row, begin, end):
    """The number of each token's document, counted by hand."""
    found, now = [], 0
    for token in row:
        now += token == begin
        found.append(now)
        now += token == end
    return found


@given(row=ROWS, cut=st.integers(0, 13), begin=st.booleans(), end=st.booleans())
def test_a_token_sees_what_came_before_it_in_its_document(row, cut, begin, end):
    first, last = BEGIN if begin else None, END if end else None
    cut = min(cut, len(row) - 1)
    told = documents(row, first, last)
    tokens = torch.tensor([row])
    every, mask, places = seen(tokens[:, cut:], tokens[:, :cut], begin=first, end=last)
    assert torch.equal(every, tokens)
    for at in range(cut, len(row)):
        goal = [j <= at and told[j] == told[at] for j in range(len(row))]
        assert mask[0, 0, at - cut].tolist() == goal
        assert int(places[0, at - cut]) == sum(goal) - 1


def test_a_head_with_all_that_a_head_may_have():
    head = LinearHead(
        weight=torch.tensor([[1.0], [2.0]]), bias=torch.tensor([0.5, 0.0]), scale=2.0, soft_cap=3.0
    )
    goal = 3 * torch.tanh(torch.tensor([[2 * 1.5, 2 * 2.0]]) / 3)
    torch.testing.assert_close(head_logits(torch.tensor([[1.0]]), head), goal)


def test_what_is_refused():
    with pytest.raises(ValueError, match="1 to 4 tokens, the model's context, but got 5: cut it"):
        check_tokens(torch.zeros(1, 5), context=4)
    with pytest.raises(ValueError, match="but got 2 after 3"):
        check_tokens(torch.zeros(1, 2), torch.zeros(1, 3), context=4)
    with pytest.raises(ValueError, match=r"`0 <= token < vocabulary` must hold .* got 7 and vocab"):
        check_token(7, 7)


def test_the_examples_in_the_manual_run():
    result = doctest.testmod(causal)
    assert result.attempted > 0
    assert result.failed == 0
