"""A small transformer encoder of texts, in plain PyTorch."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.models.arguments import check_dropout, check_sizes
from understudy.models.token_masks import (
    attention_mask,
    check_vocabulary,
    mean_over,
    real_tokens,
)
from understudy.models.vit import FeedForward, SelfAttention, TransformerBlock


class TextTransformer(nn.Module):
    """Token ids `[batch, longest]` to `[batch, width]`, by attention over tokens.

    Blocks normalise first and are listed in `blocks`; the mean over the real tokens is answered
    from. Positions are learned.

    Args:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        length: the most tokens of a row.
        width: answers per row.
        dim: numbers per token; `heads` must divide it.
        depth: how many blocks.
        heads: attention heads per block.
        mlp_ratio: the size of a block's hidden layer, in multiples of `dim`.
        dropout: the share of activations dropped while training.
        each_token: whether every token is answered for, `[batch, longest, width]`, from its own
            state instead of the mean.

    Raises:
        ValueError: a size is below 1, `heads` does not divide `dim`, `pad` is no id, or the
            dropout is outside 0 to 1.

    Paper:
        Vaswani et al. 2017, "Attention Is All You Need", section 3.1 (the encoder); normalised
        first as in Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture".

    Example:
        >>> net = TextTransformer(
        ...     vocabulary=50, pad=0, length=16, width=2, dim=8, depth=2, heads=2
        ... )
        >>> net(torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0]])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        pad: int,
        length: int,
        width: int,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        each_token: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, length=length, width=width)
        check_sizes(dim=dim, depth=depth, heads=heads)
        check_dropout(dropout)
        check_vocabulary(vocabulary, pad)
        if dim % heads:
            raise ValueError(f"`dim % heads == 0` must hold, but got {dim=}, {heads=}")
        # The first comparison also refuses NaN, the second infinity.
        if not 1 <= dim * mlp_ratio < float("inf"):
            raise ValueError(f"`dim * mlp_ratio >= 1` must hold, but got {dim=}, {mlp_ratio=}")
        self.pad, self.length, self.each_token = pad, length, each_token
        self.embedding = nn.Embedding(vocabulary, dim)
        self.positions = nn.Parameter(torch.empty(1, length, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                attention=SelfAttention(dim, heads=heads, dropout=dropout),
                mlp=FeedForward(dim, inner=int(dim * mlp_ratio), dropout=dropout),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, width)
        self._initialise()

    def forward(
        self, ids: Int64[Tensor, " batch longest"]
    ) -> Float[Tensor, " batch *longest width"]:
        """One row of answers per text, or per token.

        Raises:
            ValueError: the texts have more tokens than the network has positions.
        """
        if ids.shape[1] > self.length:
            raise ValueError(
                f"a text must have at most {self.length} tokens, as the network has positions, "
                f"but got rows of {ids.shape[1]}: cut them with `max_length`"
            )
        mask = real_tokens(ids, self.pad)
        tokens = self.dropout(self.embedding(ids) + self.positions[:, : ids.shape[1]])
        blocked = attention_mask(mask, tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, blocked)
        states = self.norm(tokens)
        answers: Tensor = self.head(states if self.each_token else mean_over(states, mask))
        return answers

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
