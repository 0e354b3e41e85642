"""Classes drawn from the teacher: few bytes, and right on average."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.contracts import Outcomes
from understudy.labels.codecs.bits import Integers, joined
from understudy.labels.codecs.form import Part, Parts
from understudy.labels.codecs.listing import (
    Ids,
    Logits,
    Masses,
    check_classes,
    check_fewer,
    check_peak,
    chunks,
    largest,
    smallest_unsigned,
    weigh,
)
from understudy.labels.codecs.pairs import Code, Packed, Pairs, best_widths
from understudy.labels.codecs.parts import array, stream

# How many numbers are decoded together.
CHUNK = 2**15
# Bits of a uniform number: with a row number in front they still fit into a float64.
UNIFORM_BITS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """Classes drawn with replacement from the teacher at T = 1, and how often each came.

    The share of a class in the draws has its probability as expectation, so that the gradient of a
    cross entropy with them has the full one as expectation too. A list of the likeliest classes
    has not, however long it is; but a single position is far noisier here, and only T = 1 makes
    sense.

    With `exact` the likeliest classes are stored as they are, and the draws are from all others:
    still right on average, and much less noisy.

    Fifty draws have some 5 to 30 classes and take 15 to 45 bytes; an exact class takes 5 to 8
    more. What is drawn is a function of the seed and the logits alone.

    Attributes:
        draws: per position.
        exact: how many of the likeliest classes are not left to chance.

    Raises:
        ValueError: `draws` is not positive, or `exact` is negative.

    Paper:
        Anshumann et al. 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation in
        LLMs", section 3; the exact part is our own.
    """

    draws: int = 50
    exact: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(
                f"`draws >= 1` must hold, but got draws={self.draws}: usual is 25 to 100"
            )
        if self.exact < 0:
            raise ValueError(
                f"`exact >= 0` must hold, but got exact={self.exact}: usual is 0 to 16"
            )

    @property
    def kind(self) -> str:
        """`sampled`."""
        return "sampled"

    @property
    def parameters(self) -> dict[str, Any]:
        """Draws, and classes that are exact."""
        return {"draws": self.draws, "exact": self.exact}

    @property
    def error(self) -> str:
        """Noise without bias."""
        rest = " of what the exact ones leave" if self.exact else ""
        return (
            f"no bias: weights have the probabilities as expectation, and the deviation of "
            f"{self.draws} draws{rest}; entropies are within 2**-11 (0.05 %)"
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
        """Refuse what is no distribution, or leaves nothing to draw from.

        Raises:
            StoreError: the law, `exact`, the classes, and a number that fits.
        """
        check_classes(shape)
        check_fewer("exact", self.exact, shape)

    def encode(self, values: NDArray[np.float32], *, seed: int = 0) -> dict[str, Part]:
        """Pairs of a gap between sorted classes and how often the class came, as bytes.

        `head` `[positions]` is the width of gaps, `unary` says where in the `body` the fields
        begin, `entropy` is float16. With exact classes also `ids` and `log_mass`
        `[positions, exact]` and the log of the `rest`, in float32.

        Args:
            values: logits `[positions, classes]`.
            seed: from 0 up; another one gives other draws.

        Raises:
            StoreError: not more than `exact` classes, or a position without a finite largest logit.
        """
        self.check(values.shape[1:])
        uniform = _uniform(seed, len(values) * self.draws).reshape(len(values), self.draws)
        drawn = np.empty(uniform.shape, np.int64)
        ids = np.empty((len(values), self.exact), np.int64)
        log_mass, rest = np.empty(ids.shape), np.zeros(len(values))
        entropy, some = np.empty(len(values)), np.empty(len(values), np.bool_)
        for rows in chunks(values):
            mass, entropy[rows] = _masses(values[rows])
            if self.exact:
                ids[rows] = largest(values[rows], self.exact)
                log_mass[rows], rest[rows] = weigh(values[rows], ids[rows])
                np.put_along_axis(mass, ids[rows], 0, axis=1)
            drawn[rows], some[rows] = _draw(mass, uniform[rows])
        pairs, widths = _pairs(drawn, some)
        packed = CODE.pack(pairs, widths)
        parts: dict[str, Part] = {
            "head": widths,
            "unary": packed.unary.astype(CODE.unary_type(self.draws, self.draws)),
            "body": packed.body,
            "entropy": entropy.astype(np.float16),
        }
        if self.exact:
            parts["ids"] = ids.astype(smallest_unsigned(values.shape[1] - 1))
            parts["log_mass"] = log_mass.astype(np.float32)
            parts["rest"] = rest.astype(np.float32)
        return parts

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Outcomes:
        """The exact classes, the likeliest first, then those that were drawn, in order, then -1."""
        head, unary, body = array(parts, "head"), array(parts, "unary"), stream(parts, "body")
        drawn = min(self.draws, shape[0] - self.exact)
        ids = np.full((len(head), self.exact + drawn), -1, np.int64)
        log_mass = np.full(ids.shape, -np.inf, np.float32)
        rest = np.zeros(len(head), np.float32)
        if self.exact:
            ids[:, : self.exact] = array(parts, "ids")
            log_mass[:, : self.exact] = array(parts, "log_mass")
            # A class that is ruled out may have been among the likeliest where few are not.
            ids[np.isneginf(log_mass)] = -1
            rest = array(parts, "rest").astype(np.float32)
        unit = rest - np.float32(math.log(self.draws))
        packed = Packed(body=body, unary=unary.astype(np.int64))
        for rows, portion in packed.portions(max(1, CHUNK // self.draws)):
            pairs = CODE.unpack(portion, head[rows])
            listed = np.arange(drawn) < pairs.counts[:, None]
            logs = np.log(pairs.weights.astype(np.float32)) + np.repeat(unit[rows], pairs.counts)
            ids[rows, self.exact :][listed] = _classes(pairs)
            log_mass[rows, self.exact :][listed] = logs
        return Outcomes(
            ids=torch.from_numpy(ids),
            log_mass=torch.from_numpy(log_mass),
            rest=torch.full((len(head),), -torch.inf),
            classes=shape[0],
            sampled=True,
            entropy=torch.from_numpy(array(parts, "entropy").astype(np.float32)),
        )


CODE = Code(order=0)


def _uniform(seed: int, count: int) -> Masses:
    """Numbers from 0 to below 1, from the generator's raw words: these never change."""
    words = np.random.Philox(key=seed).random_raw(count)
    found: Masses = (words >> np.uint64(64 - UNIFORM_BITS)).astype(np.float64)
    found *= 2.0**-UNIFORM_BITS
    return found


def _masses(values: Logits) -> tuple[Masses, Masses]:
    """Probabilities `[rows, classes]`, and the entropy of each row in nats."""
    logs = values.astype(np.float64)
    logs -= check_peak(logs.max(axis=1))[:, None]
    mass = np.exp(logs)
    total = mass.sum(axis=1, keepdims=True)
    mass /= total
    # A class without mass has no say: 0 times -inf would be NaN.
    logs[mass == 0] = 0
    entropy = np.log(total[:, 0]) - np.einsum("rc,rc->r", mass, logs)
    return mass, np.maximum(entropy, 0)


def _draw(mass: Masses, uniform: Masses) -> tuple[Ids, NDArray[np.bool_]]:
    """One class per uniform number, sorted in each row, in proportion to `mass`.

    Returns:
        The classes, and which rows have any mass; the classes of other rows mean nothing.
    """
    sums = np.cumsum(mass, axis=1)
    total = sums[:, -1:].copy()
    sums /= np.where(total > 0, total, 1)
    # With its number in front of each row, one sorted list serves all rows.
    number = np.arange(len(mass))[:, None]
    sums += number
    places = np.searchsorted(sums.ravel(), np.sort(uniform, axis=1) + number, side="right")
    return places - number * mass.shape[1], total[:, 0] > 0


def _pairs(drawn: Ids, some: NDArray[np.bool_]) -> tuple[Pairs, NDArray[np.uint8]]:
    """Gaps and counts of the classes in sorted draws, and the width of gaps per position.

    Args:
        drawn: `[positions, draws]`.
        some: which positions had anything to draw from.
    """
    gaps = np.diff(drawn, axis=1, prepend=-1) - 1
    new = (gaps >= 0) & some[:, None]
    new[:, 0] = some
    starts = np.flatnonzero(new[some])
    times = np.diff(starts, append=np.count_nonzero(some) * drawn.shape[1])
    pairs = Pairs(gaps=gaps[new], weights=times, counts=new.sum(axis=1))
    return pairs, best_widths(gaps, new)


def _classes(pairs: Pairs) -> Integers:
    ends = np.cumsum(pairs.gaps + 1)
    found: Integers = ends - 1 - np.repeat(joined(ends, pairs.counts)[:-1], pairs.counts)
    return found
