"""How far two sets of answers are apart, in a unit that means the same for every teacher."""

from math import inf

import torch
from jaxtyping import Float
from torch import Tensor


def difference(
    found: Float[Tensor, " batch *width"], expected: Float[Tensor, " rows *columns"], *, output: str
) -> float:
    """The largest difference between two answers to the same rows.

    Logits of two classes or more are compared as log-probabilities, in nats: a student learns
    from these, and a constant that is added to a whole row changes nothing. Other answers are
    compared column by column, in standard deviations of the column over the rows; a column that
    does not vary, in shares of its own size.

    Args:
        found: answers in question, per row or per token.
        expected: answers of the module as it is.
        output: what they are called, `logits` or `values`.

    Returns:
        0 or more; infinite where the shapes differ, or one answer is finite and the other not.
    """
    if found.shape != expected.shape:
        return inf
    one, other = (answer.detach().double().flatten(0, -2) for answer in (found, expected))
    if output == "logits" and one.shape[1] > 1:
        one, other = one.log_softmax(dim=1), other.log_softmax(dim=1)
        unit = torch.ones((), dtype=torch.float64, device=one.device)
    else:
        spread = other.std(dim=0, correction=0)
        size = other.abs().amax(dim=0)
        unit = torch.where(spread > 1e-6 * size, spread, size).clamp_min(1e-12)
    apart = (one - other).abs() / unit
    # Equal infinities are no difference, though what they differ by is no number.
    apart = torch.where(one == other, torch.zeros_like(apart), apart)
    return float(apart.nan_to_num(nan=inf, posinf=inf).max())
