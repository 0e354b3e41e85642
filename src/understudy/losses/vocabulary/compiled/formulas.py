"""What the kernels compute for one row of columns: softened logits, log sums, divergences.

The formulas are those of ../kinds.py and ../tiles.py. Constants come in a tensor, as Triton would
round a Python float to float32. Comparisons are written so that NaN goes through: a GPU's
`max(NaN, 0)` is 0. `log1p`, `expm1` and `tanh` are written out, as Triton's interpreter has no
`libdevice`.
"""

from typing import Final, no_type_check

import triton
import triton.language as tl

# Which divergence; POOLED is that of a list, of which only the sum over k + 1 outcomes is needed.
NOTHING: Final = tl.constexpr(0)
FORWARD: Final = tl.constexpr(1)
REVERSE: Final = tl.constexpr(2)
BLEND: Final = tl.constexpr(3)
SKEW_FORWARD: Final = tl.constexpr(4)
SKEW_REVERSE: Final = tl.constexpr(5)
POOLED: Final = tl.constexpr(6)

# Where the constants lie.
OWN_PEAK: Final = tl.constexpr(0)
GOAL_PEAK: Final = tl.constexpr(1)
GOAL_COOL: Final = tl.constexpr(2)
HEAT: Final = tl.constexpr(3)
SHARE: Final = tl.constexpr(4)
EVENLY: Final = tl.constexpr(5)
SURELY: Final = tl.constexpr(6)
MIXED: Final = tl.constexpr(7)


@triton.jit
@no_type_check
def log_after_one(x):
    """`log(1 + x)`, exact where 1 + x rounds to 1."""
    up = 1.0 + x
    near = up - 1.0
    return tl.where(near == 0.0, x, tl.log(up) * (x / tl.where(near == 0.0, 1.0, near)))


@triton.jit
@no_type_check
def exp_less_one(x):
    """`exp(x) - 1` of what is not large, exact near 0."""
    up = tl.exp(x)
    near = up - 1.0
    # The error of `up` is in both parts of the quotient, and goes out.
    middle = (near == 0.0) | (near == -1.0)
    curved = near * (x / tl.where(middle, 1.0, tl.log(tl.where(middle, 2.0, up))))
    return tl.where(near == 0.0, x, tl.where(near == -1.0, -1.0, curved))


@triton.jit
@no_type_check
def bent(x):
    """`tanh(x)`."""
    away = exp_less_one(-2.0 * tl.abs(x))
    size = -away / (2.0 + away)
    return tl.where(x < 0.0, -size, size)


@triton.jit
@no_type_check
def own_logits(place, inside, numbers, CAPPED: tl.constexpr, POOLING: tl.constexpr):
    """The student's softened logits, and how steep its cap is there; -inf outside.

    Pooling, what was taken out stays -inf: a cap would lift it.
    """
    raw = tl.load(place, mask=inside, other=0.0)
    if POOLING:
        inside = inside & (raw != -float("inf"))
    steep = tl.where(inside, 1.0, 0.0).to(raw.dtype)
    if CAPPED:
        curve = bent(raw)
        steep = 1.0 - curve * curve
        raw = tl.load(numbers + OWN_PEAK) * curve
    return tl.where(inside, raw, -float("inf")), steep


@triton.jit
@no_type_check
def goal_logits(place, inside, numbers, CAPPED: tl.constexpr, COOLED: tl.constexpr):
    """The teacher's softened logits, from any precision; -inf outside."""
    raw = tl.load(place, mask=inside, other=0.0).to(numbers.dtype.element_ty)
    if CAPPED:
        raw = tl.load(numbers + GOAL_PEAK) * bent(raw)
    if COOLED:
        raw = raw * tl.load(numbers + GOAL_COOL)
    return tl.where(inside, raw, -float("inf"))


@triton.jit
@no_type_check
def grown(peak, total, x):
    """A running logsumexp, as a peak and a sum, with some more columns."""
    top = tl.max(x, axis=0)
    top = tl.where(peak > top, peak, top)
    finite = tl.where(top == -float("inf"), 0.0, top)
    return top, total * tl.exp(peak - finite) + tl.sum(tl.exp(x - finite), axis=0)


@triton.jit
@no_type_check
def log_blend(gap, rest, share):
    """`log(rest + share * e^gap)`, where rest + share = 1: exact at 0, and without overflow."""
    below, above = tl.where(gap > 0.0, 0.0, gap), tl.where(gap > 0.0, gap, 0.0)
    low = log_after_one(share * exp_less_one(below))
    return low + above + log_after_one(rest * exp_less_one(-above))


@triton.jit
@no_type_check
def weighted(mass, what):
    """0 where there is no mass, whatever it weighs."""
    return tl.where(mass == 0.0, 0.0, mass * what)


@triton.jit
@no_type_check
def leaning(gap, mixed, KIND: tl.constexpr):
    """The derivative of a divergence in q, up to a constant."""
    if KIND == REVERSE:
        return -gap
    elif KIND == BLEND:
        return (mixed - 1.0) * log_blend(gap, 1.0 - mixed, mixed)
    elif KIND == SKEW_FORWARD:
        bend = log_blend(-gap, mixed, 1.0 - mixed)
        return (mixed - 1.0) * exp_less_one(-bend)
    else:
        bend = log_blend(gap, mixed, 1.0 - mixed)
        return -bend - mixed * exp_less_one(-bend)


@triton.jit
@no_type_check
def valued(log_goal, log_own, mixed, KIND: tl.constexpr):
    """A part of the value, and a part of `sum(q * lean)`, of each column."""
    goal, own, gap = tl.exp(log_goal), tl.exp(log_own), log_goal - log_own
    if KIND == FORWARD:
        # Adding sum(q - p), which is 0 over all, takes most of the rounding out.
        return weighted(goal, gap) + (own - goal), own * 0.0
    else:
        mean = weighted(own, leaning(gap, mixed, KIND))
        if KIND == REVERSE:
            return mean, mean
        elif KIND == BLEND:
            bend = log_blend(gap, 1.0 - mixed, mixed)
            return mean - mixed * weighted(goal, bend - gap), mean
        elif KIND == SKEW_FORWARD:
            return -weighted(goal, log_blend(-gap, mixed, 1.0 - mixed)), mean
        else:
            return -weighted(own, log_blend(gap, mixed, 1.0 - mixed)), mean
