"""Convolutions over token vectors, and the largest answer of each filter."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models.arguments import check_dropout, check_layers, check_sizes
from understudy.models.token_masks import check_vocabulary, max_over, real_tokens


class TextCNN(nn.Module):
    """Token ids `[batch, longest]` to `[batch, width]`, by convolutions of several widths.

    Every filter reads so many neighbouring tokens, zeros beyond both ends, and answers with its
    largest value after ReLU. How far a row is filled up makes no difference.

    Args:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        width: answers per row.
        dim: numbers per token.
        filters: of each width.
        kernels: how many tokens a filter reads, one entry per width.
        dropout: the share of numbers dropped before the answer while training.
        each_token: whether every token is answered for, `[batch, longest, width]`, from the values
            of the filters at its place instead of the largest.

    Raises:
        ValueError: a size is below 1, `kernels` is empty, `pad` is no id, or the dropout is
            outside 0 to 1.

    Paper:
        Kim 2014, "Convolutional Neural Networks for Sentence Classification", section 2.

    Example:
        >>> net = TextCNN(vocabulary=50, pad=0, width=2, dim=8, filters=4)
        >>> net(torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0]])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        pad: int,
        width: int,
        dim: int = 64,
        filters: int = 64,
        kernels: Sequence[int] = (2, 3, 4),
        dropout: float = 0.1,
        each_token: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, width=width, dim=dim, filters=filters)
        check_layers("kernels", kernels)
        check_dropout(dropout)
        check_vocabulary(vocabulary, pad)
        if not kernels:
            raise ValueError("`kernels` must name at least one width, but is empty: usual is 3")
        self.pad, self.kernels, self.each_token = pad, tuple(kernels), each_token
        self.embedding = nn.Embedding(vocabulary, dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, size) for size in kernels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(self.kernels), width)

    def forward(
        self, ids: Int64[Tensor, " batch longest"]
    ) -> Float[Tensor, " batch *longest width"]:
        """One row of answers per text, or per token."""
        mask = real_tokens(ids, self.pad)
        vectors = self.embedding(ids) * mask.unsqueeze(2)
        columns = vectors.transpose(1, 2)
        found = []
        for size, convolution in zip(self.kernels, self.convolutions, strict=True):
            wide = F.pad(columns, ((size - 1) // 2, size // 2))
            values = F.relu(convolution(wide)).transpose(1, 2)
            found.append(values if self.each_token else max_over(values, mask))
        answers: Tensor = self.head(self.dropout(torch.cat(found, dim=-1)))
        return answers
