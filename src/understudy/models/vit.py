"""A vision transformer with a class token and learned positions, in plain PyTorch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models.arguments import check_dropout, check_rows, check_sizes


class VisionTransformer(nn.Module):
    """`[batch, channels, height, image_width]` to `[batch, width]`, by attention over patches.

    Blocks normalise first and are listed in `blocks`; the answer is read from the class token.
    Linear layers start from Xavier's uniform distribution with a bias of 0. Dropout follows the
    positions and every linear layer but `qkv` and the head.

    Args:
        channels: of the image.
        height: of the image, in pixels.
        image_width: of the image, in pixels.
        width: answers per row.
        patch: side of a patch in pixels; it must divide both sides of the image.
        dim: numbers per token; `heads` must divide it.
        depth: how many blocks.
        heads: attention heads per block.
        mlp_ratio: the size of a block's hidden layer, in multiples of `dim`.
        dropout: the share of activations dropped while training.

    Raises:
        ValueError: a size is below 1, something does not divide as it must, or the dropout is
            outside 0 to 1.

    Paper:
        Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.

    Example:
        >>> net = VisionTransformer(
        ...     channels=1, height=8, image_width=8, width=10, patch=4, dim=16, depth=2, heads=2
        ... )
        >>> net(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        image_width: int,
        width: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, height=height, image_width=image_width, width=width)
        check_sizes(patch=patch, dim=dim, depth=depth, heads=heads)
        check_dropout(dropout)
        inner = _inner(dim, mlp_ratio)
        if height % patch or image_width % patch:
            raise ValueError(
                "`height % patch == 0` and `image_width % patch == 0` must hold, but got "
                f"{height=}, {image_width=}, {patch=}"
            )
        if dim % heads:
            raise ValueError(f"`dim % heads == 0` must hold, but got {dim=}, {heads=}")
        self.row = (channels, height, image_width)
        tokens = (height // patch) * (image_width // patch) + 1
        self.patches = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, dim))
        self.positions = nn.Parameter(torch.empty(1, tokens, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim,
                attention=SelfAttention(dim, heads=heads, dropout=dropout),
                mlp=FeedForward(dim, inner=inner, dropout=dropout),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, width)
        self._initialise()

    def forward(
        self, inputs: Float[Tensor, " batch channels height image_width"]
    ) -> Float[Tensor, " batch width"]:
        """One row of answers per image.

        Raises:
            ValueError: the images are not of the size that the network was built for.
        """
        check_rows(inputs, self.row)
        patches = self.patches(inputs).flatten(2).transpose(1, 2)
        first = self.class_token.expand(patches.shape[0], -1, -1)
        tokens = self.dropout(torch.cat([first, patches], dim=1) + self.positions)
        for block in self.blocks:
            tokens = block(tokens)
        answers: Tensor = self.head(self.norm(tokens[:, 0]))
        return answers

    def _initialise(self) -> None:
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each normalised first and added to its input."""

    def __init__(self, dim: int, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = mlp

    def forward(
        self, tokens: Float[Tensor, " batch tokens dim"], mask: Tensor | None = None
    ) -> Tensor:
        """The tokens after this block, `[batch, tokens, dim]`; `mask` is added to all scores."""
        near = self.norm1(tokens)
        tokens = tokens + (self.attention(near) if mask is None else self.attention(near, mask))
        answer: Tensor = tokens + self.mlp(self.norm2(tokens))
        return answer


class SelfAttention(nn.Module):
    """Every token looks at every token, in `heads` independent ways."""

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        # A constant of its own, as attention that lost some heads is narrower than its tokens.
        self.head_dim = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, " batch tokens dim"], mask: Tensor | None = None
    ) -> Tensor:
        """What each token gathered, `[batch, tokens, dim]`; `mask` is added to all scores."""
        batch, count, _ = tokens.shape
        split = self.qkv(tokens).reshape(batch, count, 3, self.heads, self.head_dim)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        joined = mixed.transpose(1, 2).reshape(batch, count, self.heads * self.head_dim)
        answer: Tensor = self.dropout(self.proj(joined))
        return answer


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, on each token by itself."""

    def __init__(self, dim: int, *, inner: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, " batch tokens dim"]) -> Tensor:
        """The tokens, transformed, `[batch, tokens, dim]`."""
        hidden = self.dropout(F.gelu(self.up(tokens)))
        answer: Tensor = self.dropout(self.down(hidden))
        return answer


def _inner(dim: int, mlp_ratio: float) -> int:
    # The first comparison also refuses NaN, the second infinity.
    if not 1 <= dim * mlp_ratio < float("inf"):
        raise ValueError(
            f"`dim * mlp_ratio >= 1` must hold, but got {dim=}, {mlp_ratio=}: usual is 4"
        )
    return int(dim * mlp_ratio)
