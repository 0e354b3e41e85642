"""The k largest probabilities of each position, and what is left."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.contracts import Outcomes
from understudy.labels.codecs.form import Part, Parts
from understudy.labels.codecs.listing import (
    check_fewer,
    chunks,
    largest,
    log_sum,
    smallest_unsigned,
    weigh,
)
from understudy.labels.codecs.parts import array, check_precision

ERRORS: Mapping[str, str] = MappingProxyType(
    {
        "float32": "none but rounding: each log-probability is within 2**-22 of its size",
        "float16": (
            "each log-probability within (its size + the entropy of the k + 1 outcomes) * 2**-11 "
            "+ 1e-6 nats; the k + 1 masses are divided by their sum, which rounding moves by less"
        ),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """The log-probabilities of the k most likely classes at T = 1, and that of all others.

    So k + 1 outcomes with a mass of 1 come back: their divergence is never negative and never more
    than the one over all classes. Nothing is renormalised over the k. Classes that are ruled out
    (a logit of -inf) are never listed.

    It takes 3 to 8 bytes per class: 4 or 2 for its mass, the rest for its number. `top_p` needs
    far fewer bytes for the same total variation, and is not exact.

    Attributes:
        k: how many classes are listed.
        precision: `float32`, or `float16` for half of the bytes.

    Raises:
        ValueError: k is not positive, or another precision.

    Example:
        >>> codec = TopK(k=1)
        >>> known = codec.decode(codec.encode(np.float32([[2.0, 1.0, 1.0]])), shape=(3,))
        >>> known.ids, known.log_mass.exp(), known.rest.exp()
        (tensor([[0]]), tensor([[0.5761]]), tensor([0.4239]))
    """

    k: int = 64
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"`k >= 1` must hold, but got k={self.k}: usual is 32 to 128")
        check_precision(self.precision, ERRORS)

    @property
    def kind(self) -> str:
        """`top_k`."""
        return "top_k"

    @property
    def parameters(self) -> dict[str, Any]:
        """How many classes, and the precision."""
        return {"k": self.k, "precision": self.precision}

    @property
    def error(self) -> str:
        """That of rounding a log-probability."""
        return ERRORS[self.precision]

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
        """`ids` in the smallest type and `log_mass`, both `[positions, k]`; `rest` `[positions]`.

        Raises:
            StoreError: not more than k classes, or a position without a finite largest logit.
        """
        del seed
        self.check(values.shape[1:])
        ids = np.empty((len(values), self.k), smallest_unsigned(values.shape[1] - 1))
        log_mass = np.empty(ids.shape, self.precision)
        rest = np.empty(len(values), self.precision)
        # What is too small for float16 is less than exp(-65504), and becomes 0.
        with np.errstate(over="ignore"):
            for rows in chunks(values):
                found = largest(values[rows], self.k)
                ids[rows] = found
                log_mass[rows], rest[rows] = weigh(values[rows], found)
        return {"ids": ids, "log_mass": log_mass, "rest": rest}

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Outcomes:
        """`k` classes per position, the likeliest first, -1 where the class is ruled out."""
        ids, log_mass, rest = (array(parts, name) for name in ("ids", "log_mass", "rest"))
        every = np.concatenate([log_mass, rest[:, None]], axis=1).astype(np.float32)
        if self.precision == "float16":
            every -= log_sum(every.astype(np.float64))[:, None].astype(np.float32)
        masses = torch.from_numpy(every)
        known = torch.from_numpy(ids.astype(np.int64))
        known.masked_fill_(masses[:, :-1] == -torch.inf, -1)
        return Outcomes(
            ids=known,
            log_mass=masses[:, :-1].contiguous(),
            rest=masses[:, -1].contiguous(),
            classes=shape[0],
        )
