"""Masks of tokens and the mean over what they leave."""

import pytest
import torch

from understudy.losses.tokens import mean_where, real_tokens, same_shape


def test_without_a_mask_all_tokens_are_real():
    found = real_tokens(None, torch.zeros(1), batch=2, tokens=3)
    assert found.dtype == torch.bool
    assert torch.equal(found, torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(3, 2).bool(), torch.ones(2).bool()])
def test_anything_but_one_bool_per_token_is_refused(mask):
    with pytest.raises(ValueError, match=r"`mask` must be bool \[batch, tokens\] = \(2, 3\), but"):
        real_tokens(mask, torch.zeros(1), batch=2, tokens=3)


def test_the_mean_is_over_what_counts_and_nothing_else():
    values = torch.tensor([[[1.0, 3.0], [torch.nan, 5.0]], [[1.0, 2.0], [3.0, 4.0]]])
    tokens = torch.tensor([[True, False], [False, False]])
    assert torch.equal(mean_where(values, tokens.unsqueeze(2)), torch.tensor([2.0, 0.0]))
    everything = torch.ones(2, 2, 2, dtype=torch.bool)
    assert mean_where(values, everything)[1] == 2.5


def test_shapes_are_checked_against_their_axes():
    states = torch.zeros(2, 3, 4)
    own, goal = same_shape(states.half(), states.clone().requires_grad_(), axes="batch, tokens, w")
    assert own.dtype == torch.float32
    assert not goal.requires_grad
    with pytest.raises(ValueError, match=r"got student \(2, 3, 4\) and teacher \(1, 3, 4\)"):
        same_shape(states, states[:1], axes="batch, tokens, width")
    with pytest.raises(ValueError, match=r"must be \[batch, width\], .* but got \(2, 3, 4\)"):
        same_shape(states, states, axes="batch, width")
    with pytest.raises(ValueError, match=r"none of them 0 but the batch, but got \(2, 0, 4\)"):
        same_shape(states[:, :0], states[:, :0], axes="batch, tokens, width")
