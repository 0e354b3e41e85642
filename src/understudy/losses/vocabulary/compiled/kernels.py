"""Triton kernels over tiles of logits, `[tokens, columns]`: one program per token.

They read logits as the product gave them, before the cap, and know nothing of where tiles come
from: what a row has gathered so far lies in memory, and the next tile goes on from there. Offsets
are 64 bits wide, as tokens times columns may exceed 2^31.
"""

from typing import no_type_check

import triton
import triton.language as tl

from understudy.losses.vocabulary.compiled.formulas import (
    EVENLY,
    FORWARD,
    HEAT,
    MIXED,
    NOTHING,
    POOLED,
    SHARE,
    SURELY,
    goal_logits,
    grown,
    leaning,
    own_logits,
    valued,
)


@triton.jit(do_not_specialize=["start"])
@no_type_check
def pick(
    tile, stride, ids, found, start, columns, numbers, k, CAPPED: tl.constexpr, K: tl.constexpr
):
    """Take out the softened logits of `ids` `[tokens, k]` that lie in this tile."""
    row, slots = tl.program_id(0).to(tl.int64), tl.arange(0, K)
    spots = tl.load(ids + row * k + slots, mask=slots < k, other=-1) - start
    inside = (slots < k) & (spots >= 0) & (spots < columns)
    logits, _ = own_logits(tile + row * stride + spots, inside, numbers, CAPPED, False)
    tl.store(found + row * k + slots, logits, mask=inside)


@triton.jit(do_not_specialize=["start"])
@no_type_check
def put(tile, stride, ids, values, start, columns, k, ADDED: tl.constexpr, K: tl.constexpr):
    """Write values `[tokens, k]` to the places of `ids` in this tile, or add them there."""
    row, slots = tl.program_id(0).to(tl.int64), tl.arange(0, K)
    spots = tl.load(ids + row * k + slots, mask=slots < k, other=-1) - start
    inside = (slots < k) & (spots >= 0) & (spots < columns)
    value = tl.load(values + row * k + slots, mask=inside, other=0.0)
    if ADDED:
        # A draw may come twice.
        tl.atomic_add(tile + row * stride + spots, value, mask=inside)
    else:
        tl.store(tile + row * stride + spots, value, mask=inside)


@triton.jit(do_not_specialize=["rows"])
@no_type_check
def look(
    tile,
    stride,
    goal,
    goal_stride,
    goal_rows,
    sums,
    rows,
    columns,
    numbers,
    TOLD: tl.constexpr,
    HARD: tl.constexpr,
    POOLING: tl.constexpr,
    CAPPED: tl.constexpr,
    GOAL_CAPPED: tl.constexpr,
    COOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The log sums of both sides, and what hard labels need, in one pass.

    `sums` `[7, tokens]`: peak and sum of the student, of the teacher, of the student at temperature
    1, and the sum of the student's softened logits.
    """
    row = tl.program_id(0).to(tl.int64)
    own = tile + row * stride
    at = sums + row
    own_peak, own_sum = tl.load(at), tl.load(at + rows)
    goal_peak, goal_sum = tl.load(at + 2 * rows), tl.load(at + 3 * rows)
    hard_peak, hard_sum = tl.load(at + 4 * rows), tl.load(at + 5 * rows)
    plain_sum = tl.load(at + 6 * rows)
    if TOLD:
        theirs = goal + tl.load(goal_rows + row) * goal_stride
    for first in range(0, columns, BLOCK):
        places = first + tl.arange(0, BLOCK)
        inside = places < columns
        x, _ = own_logits(own + places, inside, numbers, CAPPED, POOLING)
        own_peak, own_sum = grown(own_peak, own_sum, x)
        if TOLD:
            y = goal_logits(theirs + places, inside, numbers, GOAL_CAPPED, COOLED)
            goal_peak, goal_sum = grown(goal_peak, goal_sum, y)
        if HARD:
            hard_peak, hard_sum = grown(hard_peak, hard_sum, x * tl.load(numbers + HEAT))
            plain_sum += tl.sum(tl.where(inside, x, 0.0), axis=0)
    tl.store(at, own_peak)
    tl.store(at + rows, own_sum)
    if TOLD:
        tl.store(at + 2 * rows, goal_peak)
        tl.store(at + 3 * rows, goal_sum)
    if HARD:
        tl.store(at + 4 * rows, hard_peak)
        tl.store(at + 5 * rows, hard_sum)
        tl.store(at + 6 * rows, plain_sum)


@triton.jit
@no_type_check
def weigh(
    tile,
    stride,
    goal,
    goal_stride,
    goal_rows,
    own_total,
    goal_total,
    values,
    means,
    columns,
    numbers,
    KIND: tl.constexpr,
    CAPPED: tl.constexpr,
    GOAL_CAPPED: tl.constexpr,
    COOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The value, and the mean that the slope needs."""
    row = tl.program_id(0).to(tl.int64)
    own = tile + row * stride
    theirs = goal + tl.load(goal_rows + row) * goal_stride
    mine, told = tl.load(own_total + row), tl.load(goal_total + row)
    mixed = tl.load(numbers + MIXED)
    value, mean = tl.load(values + row), tl.load(means + row)
    for first in range(0, columns, BLOCK):
        places = first + tl.arange(0, BLOCK)
        inside = places < columns
        x, _ = own_logits(own + places, inside, numbers, CAPPED, False)
        y = goal_logits(theirs + places, inside, numbers, GOAL_CAPPED, COOLED)
        part, pull = valued(y - told, x - mine, mixed, KIND)
        value += tl.sum(tl.where(inside, part, 0.0), axis=0)
        mean += tl.sum(tl.where(inside, pull, 0.0), axis=0)
    tl.store(values + row, value)
    tl.store(means + row, mean)


@triton.jit(do_not_specialize=["start"])
@no_type_check
def slope(
    tile,
    stride,
    goal,
    goal_stride,
    goal_rows,
    own_total,
    goal_total,
    hard_total,
    values,
    means,
    labels,
    start,
    columns,
    numbers,
    KIND: tl.constexpr,
    HARD: tl.constexpr,
    CAPPED: tl.constexpr,
    GOAL_CAPPED: tl.constexpr,
    COOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The slope in the logits before the cap, written over them.

    Of a forward divergence the value is summed on the way. Of a pooled one `own_total` is the
    logsumexp of the pool, and `means` what of the slope goes to it as a whole.
    """
    row = tl.program_id(0).to(tl.int64)
    own = tile + row * stride
    mine, mean = tl.load(own_total + row), tl.load(means + row)
    if (KIND != NOTHING) & (KIND != POOLED):
        theirs = goal + tl.load(goal_rows + row) * goal_stride
        told, mixed = tl.load(goal_total + row), tl.load(numbers + MIXED)
    if KIND == FORWARD:
        value = tl.load(values + row)
    if HARD:
        spot, every = tl.load(labels + row) - start, tl.load(hard_total + row)
        heat, share = tl.load(numbers + HEAT), tl.load(numbers + SHARE)
        evenly, surely = tl.load(numbers + EVENLY), tl.load(numbers + SURELY)
    for first in range(0, columns, BLOCK):
        places = first + tl.arange(0, BLOCK)
        inside = places < columns
        x, steep = own_logits(own + places, inside, numbers, CAPPED, False)
        if KIND == POOLED:
            # Nothing in the pool is above its sum; what is listed is written over.
            lower = x - mine
            pull = tl.exp(tl.where(lower > 0.0, 0.0, lower)) * mean
        elif KIND == NOTHING:
            pull = tl.where(inside, 0.0, 0.0).to(x.dtype)
        else:
            y = goal_logits(theirs + places, inside, numbers, GOAL_CAPPED, COOLED)
            log_goal, log_own = y - told, x - mine
            if KIND == FORWARD:
                part, _ = valued(log_goal, log_own, mixed, KIND)
                value += tl.sum(tl.where(inside, part, 0.0), axis=0)
                pull = tl.exp(log_own) - tl.exp(log_goal)
            else:
                mass = tl.exp(log_own)
                lean = leaning(log_goal - log_own, mixed, KIND)
                # Without its mask, 0 * inf is NaN where an outcome has no mass.
                lean = tl.where(mass == 0.0, 0.0, lean)
                pull = mass * (lean - mean)
        if HARD:
            chance = tl.exp(x * heat - every)
            pull += share * (chance - evenly - tl.where(places == spot, surely, 0.0))
        tl.store(own + places, pull * steep, mask=inside)
    if KIND == FORWARD:
        tl.store(values + row, value)
