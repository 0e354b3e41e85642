"""Texts from a causal language model: the likeliest token after token, or drawn ones.

Rows of a batch may begin with prompts of different lengths, and none is padded: all rows are
equally long at any time, and while a row's prompt is not over, its next token is the prompt's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from understudy.deployed.sampling import Sampling
from understudy.errors import DataError
from understudy.models.causal import CausalModel

Prompts = Sequence[Tensor] | Sequence[Sequence[int]]


@torch.no_grad()
def generate(
    model: CausalModel,
    prompts: Prompts,
    *,
    most: int,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
    stop: Sequence[int] | None = None,
) -> list[Tensor]:
    """How a model goes on with each prompt: int64 `[tokens]` per prompt, without the prompt.

    A text is over with a stop token, which is its last one, after `most` tokens, or where the
    context is full. The model is asked in evaluation mode and left as it was. The likeliest tokens
    of a row are the same in any batch, but for rounding; drawn ones depend on the whole batch.

    Args:
        model: the model.
        prompts: tokens to go on from, at least one and fewer than the context each.
        most: the most new tokens of a row.
        sampling: how tokens are drawn; None takes the likeliest.
        generator: that draws, on the model's device; None is PyTorch's own.
        stop: tokens after which a text is over; None for the model's own.

    Raises:
        DataError: a prompt is empty, fills the context, or holds a token outside the vocabulary.
        ValueError: `most` is below 1.

    Example:
        >>> from understudy.models import GPT
        >>> net = GPT(vocabulary=20, context=16, dim=8, depth=1, heads=1)
        >>> [len(row) for row in generate(net, [[3, 4], [5]], most=6)]
        [6, 6]
    """
    if most < 1:
        raise ValueError(f"`most >= 1` must hold, but got {most=}")
    rows = [torch.as_tensor(prompt, dtype=torch.int64) for prompt in prompts]
    check_prompts(rows, vocabulary=model.vocabulary, context=model.context)
    if not rows:
        return []
    device = next(model.parameters()).device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    longest = (lengths + most).clamp(max=model.context)
    table = torch.zeros((len(rows), int(longest.max())), dtype=torch.int64, device=device)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row.to(device)
    stops = torch.tensor(model.stop if stop is None else tuple(stop), device=device)
    ends = torch.zeros_like(lengths)
    at = int(lengths.min())
    with _evaluating(model):
        logits, past = model.step(table[:, :at])
        while True:
            told = _chosen(logits, sampling, generator)
            own = at >= lengths
            table[:, at] = torch.where(own, told, table[:, at])
            over = own & (torch.isin(table[:, at], stops) | (at + 1 >= longest))
            at += 1
            ends = torch.where(over & (ends == 0), at, ends)
            if bool((ends > 0).all()):
                break
            logits, past = model.step(table[:, at - 1 : at], past)
    bounds = zip(lengths.tolist(), ends.tolist(), strict=True)
    return [table[number, first:last] for number, (first, last) in enumerate(bounds)]


def filtered(
    logits: Float[Tensor, " batch vocabulary"], sampling: Sampling
) -> Float[Tensor, " batch vocabulary"]:
    """The log probabilities that tokens are drawn from; -inf where one may not be drawn.

    Example:
        >>> logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
        >>> filtered(logits, Sampling(top_p=0.8)).exp().round(decimals=3)
        tensor([[0.6670, 0.3330, 0.0000]])
    """
    scaled = torch.promote_types(logits.dtype, torch.float32)
    told = logits.to(scaled)
    # Next to no temperature is rounded to one that can be divided by.
    told = (told - told.amax(dim=1, keepdim=True)) / max(sampling.temperature, 1e-30)
    if sampling.top_k is None and sampling.top_p is None:
        return told.log_softmax(dim=1)
    found, order = told.sort(dim=1, descending=True, stable=True)
    if sampling.top_k is not None:
        found[:, sampling.top_k :] = -torch.inf
    if sampling.top_p is not None:
        mass = found.softmax(dim=1)
        found = found.masked_fill(mass.cumsum(dim=1) - mass >= sampling.top_p, -torch.inf)
    return torch.empty_like(told).scatter_(1, order, found.log_softmax(dim=1))


def check_prompts(prompts: Sequence[Tensor], *, vocabulary: int, context: int) -> None:
    """Refuse prompts that a model cannot go on from.

    Raises:
        DataError: naming the first of them.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not 1 <= len(prompt) < context:
            raise DataError(
                f"a prompt must have 1 to {context - 1} tokens, as the context holds {context} "
                "with those that follow, but "
                f"prompt {number} has {len(prompt)}: cut its beginning"
            )
        least, largest = int(prompt.min()), int(prompt.max())
        if least < 0 or largest >= vocabulary:
            raise DataError(
                f"`0 <= token < {vocabulary}` must hold, the model's vocabulary, but prompt "
                f"{number} has tokens from {least} to {largest}: encode it with the model's own "
                "tokenizer"
            )


def _chosen(
    logits: Tensor, sampling: Sampling | None, generator: torch.Generator | None
) -> Int64[Tensor, " batch"]:
    if sampling is None:
        return logits.argmax(dim=1)
    shares = filtered(logits, sampling).exp()
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


@contextmanager
def _evaluating(model: CausalModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
