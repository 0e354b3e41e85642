"""The divergences in closed form: their value, and their slope in the student's softened logits.

With the teacher's p and the student's q, each is a sum over outcomes of a function of (p, q). Its
derivative in q is told up to a constant, `lean`, as the gradient in the logits is
`q * (lean - sum(q * lean))` and no constant changes it. All `lean` are exactly 0 where p = q.

Tensors are `[tokens, outcomes]` and may be some columns of a whole: sums are then in parts.
"""

import torch
from torch import Tensor

from understudy.losses.vocabulary.parts import Blend, Divergence, Forward, Reverse, Skew


def forward_parts(log_goal: Tensor, log_own: Tensor) -> tuple[Tensor, Tensor]:
    """Of `KL(p || q)`: a part of the value `[tokens]`, and the slope `[tokens, outcomes]`."""
    goal = log_goal.exp()
    slope = log_own.exp().sub_(goal)
    # Where p = 0 the gap may be -inf, and 0 * inf is NaN; where q = 0 too it is NaN itself. What is
    # NaN in p or in q stays so in the value all the same.
    gap = (log_goal - log_own).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=_floor(log_goal))
    # Adding sum(q - p), which is 0 over all, takes most of the rounding out.
    return goal.mul_(gap).sum(dim=1) + slope.sum(dim=1), slope


def measured(kind: Divergence, log_goal: Tensor, log_own: Tensor) -> tuple[Tensor, Tensor]:
    """A part of the value, and a part of `sum(q * lean)`; both `[tokens]`."""
    if isinstance(kind, Forward):
        value, _ = forward_parts(log_goal, log_own)
        return value, torch.zeros_like(value)
    own, gap = log_own.exp(), log_goal - log_own
    if isinstance(kind, Reverse):
        value = _weighted(own, -gap)
        return value, value
    if isinstance(kind, Blend):
        bend = _log_blend(gap, rest=1 - kind.beta, share=kind.beta)
        mean = -(1 - kind.beta) * _weighted(own, bend)
        return mean - kind.beta * _weighted(log_goal.exp(), bend - gap), mean
    lean = _skewed_lean(kind, gap)
    if kind.direction == "forward":
        bend = _log_blend(-gap, rest=kind.skew, share=1 - kind.skew)
        value = -_weighted(log_goal.exp(), bend)
    else:
        bend = _log_blend(gap, rest=kind.skew, share=1 - kind.skew)
        value = -_weighted(own, bend)
    return value, _weighted(own, lean)


def sloped(kind: Divergence, log_goal: Tensor, log_own: Tensor, mean: Tensor) -> Tensor:
    """The slope in the student's softened logits, `[tokens, outcomes]`.

    Args:
        kind: which divergence.
        log_goal: the teacher's log probabilities.
        log_own: the student's.
        mean: `sum(q * lean)` over all outcomes, `[tokens]`.
    """
    if isinstance(kind, Forward):
        return log_own.exp().sub_(log_goal.exp())
    own, gap = log_own.exp(), log_goal - log_own
    if isinstance(kind, Reverse):
        lean = -gap
    elif isinstance(kind, Blend):
        lean = _log_blend(gap, rest=1 - kind.beta, share=kind.beta).mul_(kind.beta - 1)
    else:
        lean = _skewed_lean(kind, gap)
    lean = torch.where(own == 0, 0.0, lean)
    return own.mul_(lean.sub_(mean.unsqueeze(1)))


def _skewed_lean(kind: Skew, gap: Tensor) -> Tensor:
    rest, share = kind.skew, 1 - kind.skew
    if kind.direction == "forward":
        return torch.expm1(-_log_blend(-gap, rest=rest, share=share)).mul_(-share)
    bend = _log_blend(gap, rest=rest, share=share)
    return -bend - rest * torch.expm1(-bend)


def _log_blend(gap: Tensor, *, rest: float, share: float) -> Tensor:
    """`log(rest + share * e^gap)`, where rest + share = 1: exact at 0, and without overflow."""
    below, above = gap.clamp(max=0), gap.clamp(min=0)
    low = torch.log1p(share * torch.expm1(below))
    return low + above + torch.log1p(rest * torch.expm1(-above))


def _weighted(mass: Tensor, what: Tensor) -> Tensor:
    # Without the mask, 0 * inf is NaN where an outcome has no mass.
    return torch.where(mass == 0, 0.0, mass * what).sum(dim=1)


def _floor(like: Tensor) -> float:
    return torch.finfo(like.dtype).min / 4
