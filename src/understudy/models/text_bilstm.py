"""Two long short-term memories, one from each end of the text."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.models.arguments import check_dropout, check_sizes
from understudy.models.token_masks import backwards, check_vocabulary, max_over, real_tokens


class TextBiLSTM(nn.Module):
    """Token ids `[batch, longest]` to `[batch, width]`, by LSTMs that read both ways.

    The second one reads every text from its own last token on, so rows of any length go through
    together and an exported file needs no packing. The largest state over the tokens is answered
    from, through one hidden layer.

    Args:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        width: answers per row.
        dim: numbers per token.
        hidden: the states of each direction, and the size of the hidden layer.
        layers: how many of both are stacked.
        dropout: the share of numbers dropped before each layer while training.
        each_token: whether every token is answered for, `[batch, longest, width]`, from its own
            states instead of the largest.

    Raises:
        ValueError: a size is below 1, `pad` is no id, or the dropout is outside 0 to 1.

    Paper:
        Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural
        Networks", section 3.1 (which answers from the last states).

    Example:
        >>> net = TextBiLSTM(vocabulary=50, pad=0, width=2, dim=8, hidden=6)
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
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.1,
        each_token: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, width=width, dim=dim, hidden=hidden, layers=layers)
        check_dropout(dropout)
        check_vocabulary(vocabulary, pad)
        self.pad, self.each_token = pad, each_token
        self.embedding = nn.Embedding(vocabulary, dim)
        sizes = [dim] + [2 * hidden] * (layers - 1)
        self.onwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.back = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, width)

    def forward(
        self, ids: Int64[Tensor, " batch longest"]
    ) -> Float[Tensor, " batch *longest width"]:
        """One row of answers per text, or per token."""
        mask = real_tokens(ids, self.pad)
        states: Tensor = self.embedding(ids)
        for onwards, back in zip(self.onwards, self.back, strict=True):
            states = self.dropout(states)
            first, _ = onwards(states)
            second, _ = back(backwards(states, mask))
            states = torch.cat([first, backwards(second, mask)], dim=2)
        pooled = self.dropout(states if self.each_token else max_over(states, mask))
        answers: Tensor = self.head(self.dropout(torch.relu(self.hidden(pooled))))
        return answers
