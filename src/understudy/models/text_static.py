"""The mean of token vectors and a linear layer: the fastest network of texts."""

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.models.arguments import check_dropout, check_layers, check_sizes
from understudy.models.token_masks import check_vocabulary, mean_over, real_tokens


class TextStatic(nn.Module):
    """Token ids `[batch, longest]` to `[batch, width]`, by the mean of a vector per token.

    It knows no order. What it costs hardly grows with the text.

    Args:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        width: answers per row.
        dim: numbers per token.
        hidden: the size of each hidden layer between the mean and the answer.
        dropout: the share of numbers dropped before each layer while training.

    Raises:
        ValueError: a size is below 1, `pad` is no id, or the dropout is outside 0 to 1.

    Paper:
        Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification", section 2.

    Example:
        >>> import torch
        >>> net = TextStatic(vocabulary=50, pad=0, width=2, dim=8)
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
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, width=width, dim=dim)
        check_layers("hidden", hidden)
        check_dropout(dropout)
        check_vocabulary(vocabulary, pad)
        self.pad = pad
        self.embedding = nn.Embedding(vocabulary, dim)
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        before = dim
        for size in hidden:
            layers += [nn.Linear(before, size), nn.ReLU(), nn.Dropout(dropout)]
            before = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, width)

    def forward(self, ids: Int64[Tensor, " batch longest"]) -> Float[Tensor, " batch width"]:
        """One row of answers per text."""
        mean = mean_over(self.embedding(ids), real_tokens(ids, self.pad))
        answers: Tensor = self.head(self.body(mean))
        return answers
