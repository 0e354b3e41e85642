"""What the networks of texts share: which tokens are real, and sums over those alone."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def real_tokens(ids: Int64[Tensor, " batch longest"], pad: int) -> Bool[Tensor, " batch longest"]:
    """Which tokens are no padding."""
    return ids != pad


def mean_over(
    states: Float[Tensor, " batch longest dim"], mask: Bool[Tensor, " batch longest"]
) -> Float[Tensor, " batch dim"]:
    """The mean over the real tokens; zeros where there is none."""
    shares = mask.unsqueeze(2).to(states.dtype)
    return (states * shares).sum(dim=1) / shares.sum(dim=1).clamp(min=1)


def max_over(
    states: Float[Tensor, " batch longest dim"], mask: Bool[Tensor, " batch longest"]
) -> Float[Tensor, " batch dim"]:
    """The largest over the real tokens; zeros where there is none."""
    lowest = torch.finfo(states.dtype).min
    found = states.masked_fill(~mask.unsqueeze(2), lowest).amax(dim=1)
    return found.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def backwards(
    states: Float[Tensor, " batch longest dim"], mask: Bool[Tensor, " batch longest"]
) -> Float[Tensor, " batch longest dim"]:
    """Every text turned round within its own length; padding stays where it is."""
    places = torch.arange(mask.shape[1], device=mask.device)
    count = torch.where(mask, places + 1, 0).amax(dim=1, keepdim=True)
    turned = torch.where(places < count, count - 1 - places, places)
    return states.gather(1, turned.unsqueeze(2).expand(-1, -1, states.shape[2]))


def attention_mask(
    mask: Bool[Tensor, " batch longest"], dtype: torch.dtype
) -> Float[Tensor, " batch 1 1 longest"]:
    """What is added to scores, so that padding is not looked at.

    Not minus infinity: a text without tokens would be divided by nothing.
    """
    blocked = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return blocked.masked_fill(~mask, -1e9).unsqueeze(1).unsqueeze(1)


def check_vocabulary(vocabulary: int, pad: int) -> None:
    """Refuse a padding id that is no id.

    Raises:
        ValueError: naming both.
    """
    if not 0 <= pad < vocabulary:
        raise ValueError(f"`0 <= pad < vocabulary` must hold, but got {pad=}, {vocabulary=}")
