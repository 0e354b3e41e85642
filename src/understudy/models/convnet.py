"""The small convolutional network that every tutorial starts from."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from understudy.models.arguments import check_dropout, check_layers, check_rows, check_sizes


class ConvNet(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, then one hidden layer.

    `[batch, channels, height, image_width]` to `[batch, width]`. Every pooling halves the image,
    rounding down.

    Args:
        channels: of the image.
        height: of the image, in pixels.
        image_width: of the image, in pixels.
        width: answers per row.
        filters: how many each convolution has, in order.
        hidden: the size of the hidden layer.
        dropout: the share of hidden activations dropped while training.

    Raises:
        ValueError: a size is below 1, the dropout outside 0 to 1, or the image too small to be
            halved so often.

    Example:
        >>> import torch
        >>> net = ConvNet(channels=1, height=28, image_width=28, width=10)
        >>> net(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        image_width: int,
        width: int,
        filters: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(
            channels=channels, height=height, image_width=image_width, width=width, hidden=hidden
        )
        check_layers("filters", filters)
        check_dropout(dropout)
        side, halvings = min(height, image_width), len(filters)
        if side < 2**halvings:
            raise ValueError(
                "`min(height, image_width) >= 2 ** len(filters)` must hold, but got "
                f"{height=}, {image_width=}, filters={list(filters)}: use at most "
                f"{side.bit_length() - 1} filters"
            )
        self.row = (channels, height, image_width)
        layers: list[nn.Module] = []
        before = channels
        for count in filters:
            convolution = nn.Conv2d(before, count, kernel_size=3, padding=1)
            layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
            before = count
        self.body = nn.Sequential(*layers)
        pooled = before * (height >> halvings) * (image_width >> halvings)
        self.hidden = nn.Sequential(nn.Linear(pooled, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(hidden, width)

    def forward(
        self, inputs: Float[Tensor, " batch channels height image_width"]
    ) -> Float[Tensor, " batch width"]:
        """One row of answers per image.

        Raises:
            ValueError: the images are not of the size that the network was built for.
        """
        check_rows(inputs, self.row)
        answers: Tensor = self.head(self.hidden(self.body(inputs).flatten(1)))
        return answers
