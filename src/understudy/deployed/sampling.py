"""How the next token is taken from what a language model says: the likeliest, or drawn."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Tokens are drawn by their probability; without one of these the likeliest is taken.

    Attributes:
        temperature: what logits are divided by: below 1 the likely tokens gain, above 1 the others.
        top_k: how many of the likeliest tokens may be drawn; None for all.
        top_p: the least mass of the likeliest tokens that may be drawn, as few as reach it
            together; None for all. After `top_k`.

    Raises:
        ValueError: a number is out of its range.

    Paper:
        Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1 (top-p).

    Example:
        >>> Sampling(temperature=0.7, top_k=50).top_k
        50
    """

    temperature: float | int = 1.0
    top_k: int | None = None
    top_p: float | int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"`temperature > 0` must hold, but got {self.temperature}: for the likeliest token "
                "leave the sampling out"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k >= 1` must hold, but got {self.top_k}: usual is 40")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"`0 < top_p <= 1` must hold, but got {self.top_p}: usual is 0.9")


def probabilities(logits: NDArray[np.floating], sampling: Sampling) -> NDArray[np.float64]:
    """The distribution that a token is drawn from, `[vocabulary]`.

    Example:
        >>> probabilities(np.log([0.6, 0.3, 0.1]), Sampling(top_p=0.8)).round(3).tolist()
        [0.667, 0.333, 0.0]
    """
    told = np.asarray(logits, np.float64)
    with np.errstate(over="ignore"):  # next to no temperature: all but the likeliest are out
        scaled = np.asarray((told - told.max()) / sampling.temperature, np.float64)
    # A stable order, so that ties are the same on every machine.
    order = np.argsort(-scaled, kind="stable")[: sampling.top_k]
    mass = np.exp(scaled[order] - scaled[order[0]])
    mass /= mass.sum()
    if sampling.top_p is not None:
        before = mass.cumsum() - mass
        mass = np.where(before < sampling.top_p, mass, 0.0)
        mass /= mass.sum()
    found = np.zeros_like(scaled)
    found[order] = mass
    return found


def chosen(
    logits: NDArray[np.floating], sampling: Sampling | None, draw: np.random.Generator
) -> int:
    """The next token: the likeliest, or one that is drawn."""
    if sampling is None:
        return int(logits.argmax())
    shares = probabilities(logits, sampling).cumsum()
    return int(np.searchsorted(shares, draw.random() * shares[-1], side="right"))
