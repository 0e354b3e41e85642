"""A multilayer perceptron: the student for tables, features and small images."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.arguments import check_dropout, check_layers, check_sizes


class MLP(nn.Module):
    """Fully connected layers with ReLU: `[batch, ...]`, flattened, to `[batch, width]`.

    Args:
        inputs: numbers per row, once flattened.
        width: answers per row.
        hidden: the size of each hidden layer; none makes it a linear model.
        dropout: the share of activations dropped after each hidden layer while training.

    Raises:
        ValueError: a size is below 1, or the dropout outside 0 to 1.

    Example:
        >>> import torch
        >>> MLP(inputs=64, width=10, hidden=[32])(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, *, inputs: int, width: int, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, width=width)
        check_layers("hidden", hidden)
        check_dropout(dropout)
        self.inputs = inputs
        layers: list[nn.Module] = []
        before = inputs
        for size in hidden:
            layers += [nn.Linear(before, size), nn.ReLU(), nn.Dropout(dropout)]
            before = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, width)

    def forward(self, inputs: Float[Tensor, " batch *row"]) -> Float[Tensor, " batch width"]:
        """One row of answers per row of inputs.

        Raises:
            ValueError: a row does not have `inputs` numbers.
        """
        rows = inputs.flatten(1)
        if rows.shape[1] != self.inputs:
            raise ValueError(
                f"every row must have {self.inputs} numbers, as the network was built, but got "
                f"inputs of shape {tuple(inputs.shape)}"
            )
        answers: Tensor = self.head(self.body(rows))
        return answers
