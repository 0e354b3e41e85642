"""How well a language model knows a text: bits per byte, and how often it agrees with another.

Bits per byte is what a text costs, the nats of its tokens divided by its bytes and by ln 2: so
models with different tokenizers are compared. Tokens that stand for no text cost nothing. A model
is told by two numbers per position: no `[rows, length, vocabulary]` ever exists.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from understudy.errors import DataError, ModelError
from understudy.evaluate.quality import Moments, Score, mean_score, moment_score
from understudy.losses.vocabulary import LinearHead
from understudy.losses.vocabulary.tiles import Projection

AT_ONCE: Final = 2**23
"""How many logits are looked at together: 32 MB of them."""


class Surprise(NamedTuple):
    """What a model says of some positions.

    Attributes:
        nats: float64 `[positions]`, minus the log probability of what came.
        best: int64 `[positions]`, the token that it finds likeliest.
    """

    nats: Float64[Tensor, " positions"]
    best: Int64[Tensor, " positions"]


@torch.inference_mode()
def surprise_of(
    states: Float[Tensor, " positions dim"],
    labels: Int64[Tensor, " positions"],
    *,
    head: LinearHead | None = None,
    columns: int | None = None,
) -> Surprise:
    """What came at each position, in nats, some positions at a time.

    Args:
        states: the model's, before its head; or logits, where there is no head.
        labels: what came.
        head: the model's.
        columns: how many leading columns are tokens; None for all of them. The others, such as
            padding, have no mass.

    Raises:
        DataError: a label is outside the vocabulary.
        ModelError: a value is not finite.
    """
    width = len(head.weight) if head is not None else states.shape[1]
    width = width if columns is None else min(width, columns)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < width:
        raise DataError(
            f"every token must be one of the model's {width}, but got tokens from "
            f"{int(labels.min())} to {int(labels.max())}: use the model's own tokenizer"
        )
    step = max(1, AT_ONCE // max(width, 1))
    nats, best = [labels.new_zeros(0).double()], [labels.new_zeros(0)]
    for start in range(0, len(labels), step):
        some = slice(start, start + step)
        logits = _logits(states[some], head)[:, :width]
        own = logits.gather(1, labels[some, None])[:, 0]
        nats.append((logits.logsumexp(dim=1) - own).double())
        best.append(logits.argmax(dim=1))
    found = Surprise(torch.cat(nats), torch.cat(best))
    wrong = ~found.nats.isfinite()
    if wrong.any():
        raise ModelError(
            "a model must give every token that came a finite logarithm, but position "
            f"{int(wrong.nonzero()[0])} of these has none ({int(wrong.sum())} of {len(wrong)}): "
            "its weights or its states are not finite"
        )
    return found


def _logits(states: Tensor, head: LinearHead | None) -> Tensor:
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    if head is None:
        return wide
    projection = Projection(
        wide,
        weight=head.weight.detach(),
        bias=None if head.bias is None else head.bias.detach(),
        scale=float(head.scale),
        soft_cap=None if head.soft_cap is None else float(head.soft_cap),
        temperature=1.0,
        kept=None,
    )
    return projection.first(slice(0, len(head.weight)))


def bits_per_byte(nats: float | int, bytes_: float | int) -> float:
    """Nats of a text as bits per byte of it.

    Raises:
        DataError: there are no bytes.
    """
    if not bytes_ > 0:
        raise DataError(f"a text must have bytes to be paid for, but got {bytes_}")
    return float(nats / bytes_ / math.log(2))


def bits_per_byte_score(special: tuple[int, ...]) -> Score:
    """What a text costs: of positions, outputs `[positions, 2]` and labels `[positions, 2]`.

    Outputs are nats of what came and the likeliest token, labels what came and its bytes. The score
    is the nats of all text over its bytes, whatever a token is; `special` ones are free, and bytes
    that one of them stands for are not counted either, or text would be had for nothing.
    """

    def rows(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        paid = ~np.isin(labels[:, 0], special)
        return np.stack([outputs[:, 0] * paid, labels[:, 1].astype(np.float64) * paid], axis=1)

    def finish(means: np.ndarray) -> np.ndarray:
        nats, bytes_ = means[..., 0], means[..., 1]
        known = np.asarray(bytes_ > 0)
        found = np.full(known.shape, np.nan)
        return np.asarray(np.divide(nats, bytes_ * math.log(2), out=found, where=known))

    moments = Moments(rows=rows, finish=finish)
    return moment_score(name="bits_per_byte", higher_is_better=False, moments=moments, unit="bits")


NATS_PER_TOKEN: Final[Score] = mean_score(
    name="nats_per_token",
    higher_is_better=False,
    per_row=lambda outputs, _: np.asarray(outputs[:, 0], np.float64),
    unit="nats",
)


def same_token_score(teacher: Float[np.ndarray, " positions 2"]) -> Score:
    """How often a model finds the same token likeliest as the teacher does."""
    return mean_score(
        name="agreement",
        higher_is_better=True,
        per_row=lambda outputs, _: np.asarray(outputs[:, 1] == teacher[:, 1], np.float64),
        unit="share",
    )
