"""Divergence of a distribution from a blend of itself and another one, exact near agreement."""

import torch
from jaxtyping import Float
from torch import Tensor


def divergence_from_blend(
    log_first: Float[Tensor, " batch outcomes"],
    log_second: Float[Tensor, " batch outcomes"],
    *,
    rest: float,
    share: float,
) -> Float[Tensor, " batch"]:
    """`KL(first || rest * first + share * second)`, where rest + share = 1, both above 0.

    It is computed from the difference of the two logarithms alone. So it is exactly 0 where they
    are equal, which `log(rest * p + share * q)` rounds away; and an outcome that the second rules
    out costs log(1 / rest), never infinity.

    Args:
        log_first: log probabilities; both sides have a gradient.
        log_second: log probabilities of the same outcomes.
        rest: how much of the first is in the blend. Not taken from `share`, as 1 - share loses
            the digits of a small one.
        share: how much of the second is in the blend.
    """
    mass = log_first.exp()
    gap = torch.where(mass > 0, log_second - log_first, 0.0)
    return -(mass * _log_blend(gap, rest=rest, share=share)).sum(dim=-1)


def _log_blend(gap: Tensor, *, rest: float, share: float) -> Tensor:
    """`log(rest + share * e^gap)` for any gap, without overflow."""
    low = _log_blend_below(gap.clamp(max=0), rest=rest, share=share)
    high = gap + _log_blend_below(-gap.clamp(min=0), rest=share, share=rest)
    return torch.where(gap <= 0, low, high)


def _log_blend_below(gap: Tensor, *, rest: float, share: float) -> Tensor:
    """The same for gaps of 0 and less: exact at 0, and far below it no less than log(rest)."""
    # The clamp keeps the branch that is not taken from an infinite slope.
    near = torch.log1p(share * torch.expm1(gap.clamp(min=-1)))
    far = torch.log(rest + share * gap.exp())
    return torch.where(gap > -1, near, far)
