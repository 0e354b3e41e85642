"""A small causal language model, in plain PyTorch."""

from typing import Literal

import torch
from torch import Tensor, nn

from understudy.losses.vocabulary import LinearHead
from understudy.models.arguments import check_dropout, check_sizes
from understudy.models.causal import DocumentModel, Past, check_token
from understudy.models.gpt_blocks import CausalAttention, CausalBlock, Gelu, Rotary, SwiGLU

Norm = Literal["rms", "layer"]
Mlp = Literal["swiglu", "gelu"]


class GPT(DocumentModel):
    """Token ids `[batch, length]` to logits of the next token `[batch, length, vocabulary]`.

    Blocks normalise first and are listed in `blocks`; positions are rotary and begin anew with
    every document. A `CausalModel`.

    Args:
        vocabulary: how many ids there are.
        context: the most tokens of a row.
        begin: the token that a document begins with; None where there is none.
        end: the token that a document ends with; None where there is none. Without either a row is
            one document.
        dim: numbers per token; `heads` must divide it into even parts.
        depth: how many blocks.
        heads: attention heads per block.
        kv_heads: heads of keys and values, which divide `heads` (grouped-query attention); None for
            as many.
        mlp_ratio: the size of a block's hidden layer, in multiples of `dim`; `swiglu` takes two
            thirds of it twice, so that either has as many parameters.
        norm: `rms` or `layer`.
        mlp: `swiglu` or `gelu`.
        tied: whether the head is the embedding.
        dropout: the share of activations dropped while training.
        base: of the rotary angles.

    Raises:
        ValueError: a size is below 1, the heads do not divide, `begin` or `end` is no id, or the
            dropout is outside 0 to 1.

    Paper:
        Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3;
        with Su et al. 2021 (RoFormer, section 3.2), Shazeer 2020 (GLU variants) and Ainslie et al.
        2023 (GQA, section 2.2).

    Example:
        >>> net = GPT(vocabulary=50, context=16, dim=16, depth=2, heads=2)
        >>> net(torch.tensor([[5, 6, 7]])).shape
        torch.Size([1, 3, 50])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        context: int,
        begin: int | None = None,
        end: int | None = None,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        mlp_ratio: float | int = 4.0,
        norm: Norm = "rms",
        mlp: Mlp = "swiglu",
        tied: bool = True,
        dropout: float | int = 0.0,
        base: float | int = 10000.0,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        check_sizes(vocabulary=vocabulary, context=context, dim=dim, depth=depth)
        check_sizes(heads=heads, kv_heads=kv_heads)
        check_dropout(dropout)
        _check_choices(norm=norm, mlp=mlp)
        if dim % (2 * heads):
            raise ValueError(
                f"`dim % (2 * heads) == 0` must hold, as rotary positions turn pairs of numbers, "
                f"but got {dim=}, {heads=}"
            )
        if heads % kv_heads:
            raise ValueError(f"`heads % kv_heads == 0` must hold, but got {heads=}, {kv_heads=}")
        # The first comparison also refuses NaN, the second infinity.
        if not 1 <= dim * mlp_ratio < float("inf"):
            raise ValueError(f"`dim * mlp_ratio >= 1` must hold, but got {dim=}, {mlp_ratio=}")
        self.vocabulary, self.context, self.begin, self.end = vocabulary, context, begin, end
        self.stop = tuple(token for token in (end, begin) if token is not None)
        for token in self.stop:
            check_token(token, vocabulary)
        self.embedding = nn.Embedding(vocabulary, dim)
        self.dropout = nn.Dropout(dropout)
        self.rotary = Rotary(dim // heads, base=base)
        self.blocks = nn.ModuleList(
            CausalBlock(
                _norm(norm, dim),
                CausalAttention(dim, heads=heads, kv_heads=kv_heads, dropout=dropout),
                _norm(norm, dim),
                _mlp(mlp, dim, ratio=mlp_ratio, dropout=dropout),
            )
            for _ in range(depth)
        )
        self.norm = _norm(norm, dim)
        self.output = None if tied else nn.Linear(dim, vocabulary, bias=False)
        self._initialise()

    @property
    def head(self) -> LinearHead:
        """The embedding where it is tied, else the last layer."""
        last: nn.Module = self.embedding if self.output is None else self.output
        return LinearHead(weight=last.get_parameter("weight"))

    def _through(
        self, tokens: Tensor, mask: Tensor | None, places: Tensor | None, past: Past | None
    ) -> tuple[Tensor, Past]:
        if places is None:
            places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        states = self.dropout(self.embedding(tokens))
        angles = self.rotary(places, states.dtype)
        memory: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            kept = past[2 * number : 2 * number + 2] if past else ()
            states, told = block(states, angles, mask, kept)
            memory += told if past is not None else ()
        return self.norm(states), tuple(memory)

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # What is added to the stream is smaller the more of it is added (GPT-2's form).
                shrunk = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(
                    parameter, std=0.02 / (2 * len(self.blocks)) ** 0.5 * shrunk or 0.02
                )


def _norm(kind: Norm, dim: int) -> nn.Module:
    return nn.RMSNorm(dim, eps=1e-6) if kind == "rms" else nn.LayerNorm(dim, eps=1e-6)


def _mlp(kind: Mlp, dim: int, *, ratio: float | int, dropout: float | int) -> nn.Module:
    if kind == "gelu":
        return Gelu(dim, inner=int(dim * ratio), dropout=dropout)
    return SwiGLU(dim, inner=max(1, round(dim * ratio * 2 / 3)), dropout=dropout)


def _check_choices(**given: str) -> None:
    known = {"norm": ("rms", "layer"), "mlp": ("swiglu", "gelu")}
    for name, value in given.items():
        if value not in known[name]:
            raise ValueError(f"`{name}` must be one of {', '.join(known[name])}, but got {value!r}")
