"""The static encoder as a network of a recipe: its start is computed, then it is trained."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from understudy.models.arguments import check_sizes
from understudy.models.token_masks import check_vocabulary
from understudy.students.static.encoder import StaticEncoder


class Static(nn.Module):
    """Token ids `[batch, longest]` to vectors `[batch, width]` of length 1: a vector per token.

    In a run its vectors begin as a ridge regression of the teacher's on the tokens of the training
    texts, and its weights as those of rare and frequent tokens. Tokens that a tokenizer puts around
    every text add nothing, so it needs none of them at work.

    Args:
        vocabulary: how many ids there are.
        pad: the id that fills rows up.
        width: numbers per vector.
        frequency: the share of all tokens at which one weighs a half; see `sif_weights`.
        strength: how strongly a token is drawn to what the teacher says of it alone.
        steps: the most steps of the regression's solver.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> net = Static(vocabulary=50, pad=0, width=4)
        >>> net(torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0]])).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        pad: int,
        width: int,
        frequency: float = 1e-3,
        strength: float = 0.1,
        steps: int = 10,
    ) -> None:
        super().__init__()
        check_sizes(vocabulary=vocabulary, width=width, steps=steps)
        check_vocabulary(vocabulary, pad)
        for name, value in (("frequency", frequency), ("strength", strength)):
            # Also refuses NaN.
            if not value > 0:
                raise ValueError(f"`{name} > 0` must hold, but got {name}={value}")
        self.frequency, self.strength, self.steps = frequency, strength, steps
        # What it would be without a teacher; a run puts the regression's in its place.
        start = torch.randn(vocabulary, width).numpy() * np.float32(0.02)
        self.table = StaticEncoder(start, pad=pad)
        self.register_buffer("left_out", torch.zeros(vocabulary, dtype=torch.bool))

    def forward(self, ids: Int64[Tensor, " batch longest"]) -> Float[Tensor, " batch width"]:
        """One vector per row of token ids; zeros for a row without any that counts."""
        told: Tensor = self.table(ids.where(~cast(Tensor, self.left_out)[ids], self.table.pad))
        return told

    @torch.no_grad()
    def begin(
        self,
        vectors: Float32[np.ndarray, " vocabulary width"],
        weights: Float32[np.ndarray, " vocabulary"],
        left_out: Sequence[int],
    ) -> None:
        """Take a start.

        Args:
            vectors: such as `ClosedForm.vectors`.
            weights: above 0, such as `sif_weights`.
            left_out: ids that add nothing to a text.
        """
        self.table.vectors.copy_(torch.from_numpy(vectors))
        self.table.log_weights.copy_(torch.from_numpy(np.log(weights)))
        cast(Tensor, self.left_out)[list(left_out)] = True

    def folded(self) -> Float32[np.ndarray, " vocabulary width"]:
        """Every vector times its token's weight, zeros for what adds nothing: what is saved."""
        table = self.table.folded()
        table[cast(Tensor, self.left_out).cpu().numpy()] = 0.0
        return table
