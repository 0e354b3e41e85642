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
from understudy.labels.codecs.bits import Numbers
from understudy.labels.codecs.form import Part, Parts
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
from understudy.labels.codecs.steps import COARSEST, FEWEST, FINEST, SLACK, Counts, deal, fineness

# No listed mass but the largest is below FEWEST steps, nor is what is written for the rest.
ORDER = FEWEST.bit_length() - 1
# How many numbers are decoded together.
CHUNK = 2**15

Logs = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class TopP:
    """The fewest classes that hold `p` of the mass at T = 1, `k` at most, and what all others hold.

    Every mass is a whole number of steps, and a step is a power of 2, at most half of the smallest
    listed mass. That is coarse for small masses, each of which hardly counts, and fine for large
    ones; it costs 5 to 7 bits each. The steps are dealt out by largest remainders, so that listed
    classes and rest weigh exactly 1 together: nothing is renormalised.

    A class takes 1.5 to 2.5 bytes in all, its number included: less where likely classes are near
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
            "each mass, and that of the rest, is at most one step off; a step is at most 2**-10 "
            "and half of the smallest listed mass, but never below 2**-17"
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
        """Two bytes per position (three where k is large), and a `body` of different length.

        `head` has the width of gaps in its low 5 bits and the fineness of steps above it; `unary`
        says where in the body the fields begin. The body has pairs: the likeliest class with the
        rest's steps, then all others in order, as gaps, with theirs. The likeliest one's steps are
        what is missing to 1.

        Raises:
            StoreError: not more than k classes, or a position without a finite largest logit.
        """
        del seed
        self.check(values.shape[1:])
        ids = np.empty((len(values), self.k), np.int64)
        mass, rest = np.empty(ids.shape), np.empty(len(values))
        for rows in chunks(values):
            ids[rows] = largest(values[rows], self.k)
            mass[rows], rest[rows] = weigh(values[rows], ids[rows])
        np.exp(mass, out=mass)
        np.exp(rest, out=rest)
        listed = np.arange(self.k) < self._counts(mass)[:, None]
        rest += np.where(listed, 0, mass).sum(axis=1)
        mass[~listed] = 0
        fine = fineness(mass, rest)
        pairs, widths = _pairs(ids, deal(mass, rest, fine), listed)
        code = _code(values.shape[1])
        packed = code.pack(pairs, widths)
        return {
            "head": ((fine - COARSEST) << 5 | widths).astype(np.uint8),
            "unary": packed.unary.astype(code.unary_type(self.k, 2**FINEST + FEWEST)),
            "body": packed.body,
        }

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Outcomes:
        """`k` places per position: the likeliest class, then all others in order, then -1."""
        head, unary, body = array(parts, "head"), array(parts, "unary"), stream(parts, "body")
        ids = np.full((len(head), self.k), -1, np.int64)
        log_mass = np.full(ids.shape, -np.inf, np.float32)
        rest = np.empty(len(head), np.float32)
        packed = Packed(body=body, unary=unary.astype(np.int64))
        for rows, portion in packed.portions(max(1, CHUNK // self.k)):
            pairs = _code(shape[0]).unpack(portion, head[rows] & 31)
            found, logs, left = _listed(pairs, (head[rows] >> 5).astype(np.int32) + COARSEST)
            listed = np.arange(self.k, dtype=np.int32) < pairs.counts.astype(np.int32)[:, None]
            ids[rows][listed], log_mass[rows][listed], rest[rows] = found, logs, left
        return Outcomes(
            ids=torch.from_numpy(ids),
            log_mass=torch.from_numpy(log_mass),
            rest=torch.from_numpy(rest),
            classes=shape[0],
        )

    def _counts(self, mass: Masses) -> Counts:
        """Classes to list per position, where `mass` `[positions, k]` has the largest first."""
        enough = (np.cumsum(mass, axis=1) < self.p * (1 - SLACK)).sum(axis=1) + 1
        told = (mass >= FEWEST * 2.0**-FINEST).sum(axis=1)
        found: Counts = np.minimum(np.maximum(enough, self.minimum), np.maximum(told, 1))
        return found


def _code(classes: int) -> Code:
    return Code(order=ORDER, lead=(classes - 1).bit_length())


def _pairs(ids: Ids, steps: Counts, listed: NDArray[np.bool_]) -> tuple[Pairs, NDArray[np.uint8]]:
    """What is packed, and the width of gaps per position."""
    # Places that are not listed come last, so that `listed` is true of the sorted ones too.
    order = np.argsort(np.where(listed, ids, np.iinfo(np.int64).max)[:, 1:], axis=1)
    others = np.take_along_axis(ids[:, 1:], order, axis=1)
    gaps = np.diff(others, axis=1, prepend=-1) - 1
    weights = np.take_along_axis(steps[:, 1:-1], order, axis=1)
    pairs = Pairs(
        gaps=np.concatenate([ids[:, :1], gaps], axis=1)[listed],
        weights=np.concatenate([steps[:, -1:] + FEWEST, weights], axis=1)[listed],
        counts=listed.sum(axis=1),
    )
    return pairs, best_widths(gaps, listed[:, 1:])


def _listed(pairs: Pairs, fine: Numbers) -> tuple[Numbers, Logs, Logs]:
    """Classes and log masses, joined; log of the rest per position. Overwrites the pairs."""
    first = pairs.counts.cumsum() - pairs.counts
    ids, steps = pairs.gaps, pairs.weights
    top, left = ids[first], steps[first] - FEWEST
    steps[first] = (1 << fine) + FEWEST - np.add.reduceat(steps, first, dtype=np.int32)
    ids += 1
    # The sum runs on from row to row, and may wrap: differences within a row stay right.
    ids[first] = 0
    ids.cumsum(dtype=np.int32, out=ids)
    ids -= (ids[first] + 1).repeat(pairs.counts)
    ids[first] = top
    unit = (fine * math.log(2)).astype(np.float32)
    log_mass = steps.astype(np.float32)
    np.log(log_mass, out=log_mass)
    log_mass -= unit.repeat(pairs.counts)
    with np.errstate(divide="ignore"):
        return ids, log_mass, np.log(left.astype(np.float32)) - unit
