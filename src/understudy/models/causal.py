"""What a causal language model is to every other room: states, a head, and one step at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.vocabulary import LinearHead

Past = tuple[Tensor, ...]
"""What a model remembers of tokens that it has read: the tokens `[batch, past]`, then keys and
values, `[batch, heads, past, dim]` each, layer by layer. Empty before the first step."""


@runtime_checkable
class CausalModel(Protocol):
    """A network that says after every token what comes next; also an `nn.Module`.

    Losses read `states` and `head`, which are its logits without the `[tokens, vocabulary]` matrix;
    generation and the exported file use `step`. `models.GPT` and `teachers.hf_causal.HFCausal` are
    such models.

    Several documents may lie in one row, one after the other, and no token sees another document:
    one begins with the token `begin`, and behind the token `end`. So what a model says of a
    document in a packed row is what it says of it alone. Padding at the end changes nothing.

    Attributes:
        vocabulary: how many logits there are per token.
        context: the most tokens of a row.
        begin: the token that a document begins with; None where there is none.
        end: the token that a document ends with; None where there is none.
        stop: the tokens after which a text is over.
        training: as of any module.
    """

    vocabulary: int
    context: int
    begin: int | None
    end: int | None
    stop: tuple[int, ...]
    training: bool

    @property
    def head(self) -> LinearHead:
        """From states to logits, with the parameters themselves."""

    def states(self, tokens: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch length dim"]:
        """What goes into the head, after the final norm."""

    def step(
        self, tokens: Int64[Tensor, " batch length"], past: Past = ()
    ) -> tuple[Float[Tensor, " batch vocabulary"], Past]:
        """Logits after the last of the new tokens, and what is remembered of all of them."""

    def __call__(
        self, tokens: Int64[Tensor, " batch length"]
    ) -> Float[Tensor, " batch length vocabulary"]:
        """Logits after every token."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As of any module."""

    def train(self, mode: bool = True) -> nn.Module:
        """As of any module."""

    def eval(self) -> nn.Module:
        """As of any module."""


class DocumentModel(nn.Module, ABC):
    """A `CausalModel` that is made of one way through its layers, which is all that differs.

    Attributes:
        context: the most tokens of a row.
        begin: the token that a document begins with; None where there is none.
        end: the token that a document ends with; None where there is none. Without either a row is
            one document.
    """

    context: int
    begin: int | None
    end: int | None

    @property
    @abstractmethod
    def head(self) -> LinearHead:
        """From states to logits, with the parameters themselves."""

    @abstractmethod
    def _through(
        self, tokens: Tensor, mask: Tensor | None, places: Tensor | None, past: Past | None
    ) -> tuple[Tensor, Past]:
        """States of the new tokens, and keys and values of all, layer by layer.

        Args:
            tokens: the new ones.
            mask: of `seen`; None where a row is one document and nothing was before.
            places: of `seen`; None with the mask.
            past: keys and values before; None where nobody remembers, and none come back.
        """

    def states(self, tokens: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch length dim"]:
        """What goes into the head.

        Raises:
            ValueError: a row has no tokens, or more than the context holds.
        """
        check_tokens(tokens, context=self.context)
        if self.begin is None and self.end is None:
            return self._through(tokens, None, None, None)[0]
        _, mask, places = seen(tokens, begin=self.begin, end=self.end)
        return self._through(tokens, mask, places, None)[0]

    def step(
        self, tokens: Int64[Tensor, " batch length"], past: Past = ()
    ) -> tuple[Float[Tensor, " batch vocabulary"], Past]:
        """Logits after the last of the new tokens, and what is remembered of all of them.

        Args:
            tokens: those that follow what is remembered.
            past: what the step before gave; empty at the start.

        Raises:
            ValueError: there are no new tokens, or more in all than the context holds.
        """
        before = past[0] if past else None
        check_tokens(tokens, before, context=self.context)
        every, mask, places = seen(tokens, before, begin=self.begin, end=self.end)
        states, memory = self._through(tokens, mask, places, past[1:])
        return head_logits(states[:, -1], self.head), (every, *memory)

    def forward(
        self, tokens: Int64[Tensor, " batch length"]
    ) -> Float[Tensor, " batch length vocabulary"]:
        """Logits after every token.

        Raises:
            ValueError: a row has no tokens, or more than the context holds.
        """
        return head_logits(self.states(tokens), self.head)


def head_logits(
    states: Float[Tensor, " *axes dim"], head: LinearHead
) -> Float[Tensor, " *axes vocabulary"]:
    """The logits of a head, with its bias, scale and soft cap, differentiable.

    Example:
        >>> head = LinearHead(weight=torch.eye(2), soft_cap=2.0)
        >>> head_logits(torch.tensor([[0.0, 100.0]]), head)
        tensor([[0., 2.]])
    """
    logits = F.linear(states, head.weight, head.bias)
    if head.scale != 1:
        logits = logits * head.scale
    if head.soft_cap is not None:
        logits = (logits / head.soft_cap).tanh() * head.soft_cap
    return logits


def seen(
    tokens: Int64[Tensor, " batch length"],
    past: Int64[Tensor, " batch past"] | None = None,
    *,
    begin: int | None,
    end: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which tokens see which, and where in its document each new token stands.

    Args:
        tokens: the new ones.
        past: those before them.
        begin: the token that a document begins with.
        end: the token that a document ends with.

    Returns:
        All tokens `[batch, past + length]`; whether a new token sees one of them, bool `[batch, 1,
        length, past + length]`; the place of each new token in its document, int64 `[batch,
        length]`.

    Example:
        >>> _, mask, places = seen(torch.tensor([[4, 9, 5, 6]]), begin=None, end=9)
        >>> mask[0, 0, 3].tolist(), places.tolist()
        ([False, False, True, True], [[0, 1, 0, 1]])
    """
    every = tokens if past is None else torch.cat([past, tokens], dim=1)
    before = every.shape[1] - tokens.shape[1]
    at = torch.arange(every.shape[1], device=tokens.device)
    mask = (at[before:, None] >= at[None, :]).expand(tokens.shape[0], -1, -1)
    document = torch.zeros_like(every)
    if begin is not None:
        document = document + (every == begin).long().cumsum(dim=1)
    if end is not None:
        # The end itself is still of the document that it ends.
        ends = (every == end).long()
        document = document + ends.cumsum(dim=1) - ends
    if begin is not None or end is not None:
        mask = mask & (document[:, before:, None] == document[:, None, :])
    # A document lies in one piece, so the number of tokens seen is the place.
    return every, mask.unsqueeze(1), mask.long().sum(dim=2) - 1


def check_tokens(tokens: Tensor, before: Tensor | None = None, *, context: int) -> None:
    """Refuse rows that a causal model cannot read, after those `before` them.

    Raises:
        ValueError: there are no tokens, or more than the context holds.
    """
    if torch.compiler.is_exporting():
        return
    past = 0 if before is None else before.shape[1]
    length = past + tokens.shape[1]
    if tokens.shape[1] < 1 or length > context:
        beside = f" after {past}" if past else ""
        raise ValueError(
            f"a row must have 1 to {context} tokens, the model's context, but got "
            f"{tokens.shape[1]}{beside}: cut it into rows of {context}"
        )


def check_token(token: int, vocabulary: int) -> None:
    """Refuse a token that begins or ends documents and is none.

    Raises:
        ValueError: naming both.
    """
    if not 0 <= token < vocabulary:
        raise ValueError(
            f"`0 <= token < vocabulary` must hold for the tokens that begin and end documents, but "
            f"got {token} and {vocabulary=}"
        )
