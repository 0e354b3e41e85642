"""As many classes per position as hold a share of its mass, in few bytes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.contracts import Outcomes
from understudy.labels.codecs.form import Part, Parts, Stream
from understudy.labels.codecs.listing import (
    Ids,
    Masses,
    check_fewer,
    chunks,
    largest,
    weigh,
)
from understudy.labels.codecs.pairs import Code, Packed, Pairs, best_widths
from understudy.labels.codecs.parts import array, stream

# Masses are whole multiples of a step, 2**-COARSE where that is fine enough.
COARSE, FINE = 10, 17
# No listed mass but the largest is below 2 steps: 2**ORDER.
ORDER = 1
# Rounding must not make one more class necessary, nor lose a step that is there.
SLACK = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class TopP:
    """The fewest classes that hold `p` of the mass at T = 1, `k` at most, and what all others hold.

    Every mass is a whole number of steps, and a step is a power of 2, at most half of the smallest
    listed mass. That is coarse for small masses, each of which hardly counts, and fine for large
    ones; it costs 5 to 7 bits each. The steps are dealt out by largest remainders, so that listed
    classes and rest weigh exactly 1 together: nothing is renormalised.

    A class takes 1 to 2.5 bytes in all, its number included: less where likely classes are near
    each other. Of a class that weighs less than 2**-16 nothing is told but in the rest, whatever
    `minimum` says; the likeliest class is always listed.

    Attributes:
        p: the share of the mass to list.
        k: the most classes to list.
        minimum: the fewest.

    Raises:
        ValueError: p is not above 0 and up to 1, or not 1 <= minimum <= k.

    Paper:
        Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 4, for the
        set; Balinski and Young 1982, "Fair Representation", for largest remainders.
    """

    p: float = 0.98
    k: int = 64
    minimum: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ValueError(f"`0 < p <= 1` must hold, but got p={self.p}: usual is 0.95 to 0.99")
        if not 1 <= self.minimum <= self.k:
            raise ValueError(
                f"`1 <= minimum <= k` must hold, but got minimum={self.minimum} and k={self.k}: "
                f"usual is `minimum: 1` and `k: 64`"
            )

    @property
    def kind(self) -> str:
        """`top_p`."""
        return "top_p"

    @property
    def parameters(self) -> dict[str, Any]:
        """The share, and the most and fewest classes."""
        return {"p": self.p, "k": self.k, "minimum": self.minimum}

    @property
    def error(self) -> str:
        """A step."""
        return (
            "each mass is less than one step off; a step is at most half of the smallest listed "
            "mass and 2**-10, but never below 2**-17"
        )

    @property
    def listed(self) -> bool:
        """Outcomes come back."""
        return True

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """None."""
        return MappingProxyType({})

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse what is no distribution, or has not more than k classes.

        Raises:
            StoreError: the law, k, the classes, and a k that fits.
        """
        check_fewer("k", self.k, shape)

    def encode(self, values: NDArray[np.float32], *, seed: int = 0) -> dict[str, Part]:
        del seed
        self.check(values.shape[1:])
        ids = np.empty((len(values), self.k), np.int64)
        mass = np.empty((len(values), self.k + 1))
        for rows in chunks(values):
            ids[rows] = largest(values[rows], self.k)
            logs, rest = weigh(values[rows], ids[rows])
            mass[rows] = np.exp(np.concatenate([logs, rest[:, None]], axis=1))
        counts = self._counts(mass[:, :-1])
        listed = np.arange(self.k) < counts[:, None]
        steps, finesse = _steps(mass, listed)
        pairs, widths = _pairs(ids, steps, listed, values.shape[1])
        packed = _code(values.shape[1]).pack(pairs, widths)
        return {
            "form": ((finesse - COARSE) << 5 | widths).astype(np.uint8),
            "unary": packed.unary.astype(self._unary_type),
            "body": packed.body,
        }

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Outcomes:
        form, unary, body = array(parts, "form"), array(parts, "unary"), stream(parts, "body")
        ids = np.full((len(form), self.k), -1, np.int64)
        log_mass = np.full((len(form), self.k), -np.inf, np.float32)
        rest = np.empty(len(form), np.float32)
        ends = np.concatenate([[0], np.cumsum(body.lengths, dtype=np.int64)])
        code = _code(shape[0])
        size = max(1, 2**15 // self.k)
        for start in range(0, len(form), size):
            rows = slice(start, start + size)
            content = body.content[ends[start] : ends[min(start + size, len(form))]]
            packed = Packed(
                body=Stream(content=content, lengths=body.lengths[rows]),
                unary=unary[rows].astype(np.int64),
            )
            finesse = (form[rows] >> 5).astype(np.int64) + COARSE
            pairs = code.unpack(packed, form[rows] & 31)
            first = np.cumsum(pairs.counts) - pairs.counts
            weights, gaps = pairs.weights, pairs.gaps
            top = gaps[first]
            tail = weights[first] - 2**ORDER
            gaps += 1
            gaps[first] = 0
            at = np.cumsum(gaps)
            at -= np.repeat(at[first] + 1, pairs.counts)
            at[first] = top
            weights[first] = (1 << finesse) + (1<<ORDER) - np.add.reduceat(weights, first)
            logs = np.log(weights.astype(np.float32))
            unit = (finesse * math.log(2)).astype(np.float32)
            logs -= np.repeat(unit, pairs.counts)
            if len(at) == ids[rows].size:
                ids[rows] = at.reshape(-1, self.k)
                log_mass[rows] = logs.reshape(-1, self.k)
            else:
                listed = np.arange(self.k) < pairs.counts[:, None]
                ids[rows][listed] = at
                log_mass[rows][listed] = logs
            with np.errstate(divide="ignore"):
                rest[rows] = np.log(tail.astype(np.float32)) - unit
        return Outcomes(ids=torch.from_numpy(ids), log_mass=torch.from_numpy(log_mass), rest=torch.from_numpy(rest), classes=shape[0])

    @property
    def _unary_type(self):
        return np.uint16

    def _counts(self, mass: Masses):
        enough = (np.cumsum(mass, axis=1) < self.p - SLACK).sum(axis=1) + 1
        large = (mass >= 2.0 ** (ORDER - FINE)).sum(axis=1)
        return np.clip(np.minimum(np.maximum(enough, self.minimum), large), 1, self.k)


def _code(classes):
    return Code(order=ORDER, lead=(classes - 1).bit_length())


def _steps(mass, listed):
    smallest = np.where(listed, mass[:, :-1], 1).min(axis=1, initial=1)
    with np.errstate(divide="ignore"):
        finesse = np.clip(np.ceil(-np.log2(smallest)) + ORDER, COARSE, FINE).astype(np.int64)
    # what is not listed joins the rest
    rest = mass[:, -1] + np.where(listed, 0, mass[:, :-1]).sum(axis=1)
    due = np.concatenate([np.where(listed, mass[:, :-1], 0), rest[:, None]], axis=1)
    due *= (1 << finesse)[:, None]
    steps = np.floor(due * (1 + SLACK))
    steps[:, 0] = np.maximum(steps[:, 0], 1)
    left = (1 << finesse) - steps.sum(axis=1)
    part = due - steps
    part[:, :-1][~listed] = -np.inf
    rank = np.argsort(np.argsort(-part, axis=1, kind="stable"), axis=1, kind="stable")
    steps += rank < left[:, None]
    return steps.astype(np.int64), finesse


def _pairs(ids: Ids, steps, listed, classes):
    others = np.where(listed[:, 1:], ids[:, 1:], classes)
    order = np.argsort(others, axis=1)
    others = np.take_along_axis(others, order, axis=1)
    gaps = np.diff(others, axis=1, prepend=-1) - 1
    widths = best_widths(gaps, listed[:, 1:])
    weights = np.take_along_axis(steps[:, 1:-1], order, axis=1)
    every = np.concatenate([ids[:, :1], gaps], axis=1)
    heavy = np.concatenate([steps[:, -1:] + 2**ORDER, weights], axis=1)
    return Pairs(gaps=every[listed], weights=heavy[listed], counts=listed.sum(axis=1)), widths
