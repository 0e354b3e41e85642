"""Which tokens of a text count: padding is no token, and no term may learn from it."""

import inspect
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.objective.terms import Term


def with_real(batch: Batch, pad: int | None) -> Batch:
    """The batch with its real tokens marked, where its rows are token ids."""
    rows = batch.inputs
    if pad is None or batch.real is not None or rows.ndim != 2 or rows.is_floating_point():
        return batch
    return replace(batch, real=rows != pad)


def takes_mask(loss: nn.Module) -> bool:
    """Whether a loss can be told which tokens count."""
    return "mask" in inspect.signature(loss.forward).parameters


def mask_for(term: Term, sides: Sequence[Tensor], real: Tensor | None) -> dict[str, Tensor]:
    """What a term's loss is told of padding: nothing where it compares no tokens.

    Args:
        term: whose loss is called.
        sides: what it compares, of one side: `[batch, tokens, width]`, or by heads `[batch, heads,
            tokens, ...]`; all else has no tokens.
        real: bool `[batch, tokens]`; None where rows are no texts.

    Raises:
        ModelError: it compares tokens, and would count padding too.
    """
    if real is None or not any(_of_tokens(side, real) for side in sides):
        return {}
    if not takes_mask(term.loss):
        raise ModelError(
            f"`{term.name}` would count padding as tokens: compare tokens of texts with a term "
            "that takes a mask (tinybert_hidden, tinybert_attention, pkd, minilm, minilm_v2, "
            "hint; of your own: an argument `mask` of its `forward`), or their means "
            "(`adapter: {kind: flat}`)"
        )
    return {"mask": real}


def _of_tokens(side: Tensor, real: Tensor) -> bool:
    axis = {3: 1, 4: 2}.get(side.ndim)
    return axis is not None and side.shape[axis] == real.shape[1]


def kept_rows(extra: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The chosen rows of everything that has one entry per row."""
    return {name: value[rows] for name, value in extra.items()}
