"""The static encoder as a module: a table of vectors and a weight per token, both learnt."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from understudy.losses.rows import unit


class StaticEncoder(nn.Module):
    """Token ids in, the weighted mean of their vectors out, of length 1.

    A weight is learnt as its logarithm, so that it stays above 0 and one step changes a rare and a
    frequent token by the same factor. Behind the training it is multiplied into the vectors:
    `folded` is all that inference needs.

    Attributes:
        vectors: `[vocabulary, width]`.
        log_weights: `[vocabulary]`; that of the padding is not read.
        pad: the id that fills rows up.
        normalize: whether vectors of texts have length 1.

    Example:
        >>> encoder = StaticEncoder(np.eye(3, dtype=np.float32), pad=0)
        >>> encoder(torch.tensor([[1, 2, 0], [1, 0, 0]]))
        tensor([[0.0000, 0.7071, 0.7071],
                [0.0000, 1.0000, 0.0000]], grad_fn=<WhereBackward0>)
    """

    def __init__(
        self,
        vectors: Float32[np.ndarray, " vocabulary width"],
        *,
        pad: int,
        weights: Float32[np.ndarray, " vocabulary"] | None = None,
        normalize: bool = True,
    ) -> None:
        """Begin with these vectors and weights.

        Args:
            vectors: such as `ClosedForm.vectors`.
            pad: the id that fills rows up; it adds nothing to a row.
            weights: above 0, such as `sif_weights`; None weighs all alike.
            normalize: whether vectors of texts have length 1.

        Raises:
            ValueError: there is not one weight above 0 per vector, or `pad` is none of the ids.
        """
        super().__init__()
        size = len(vectors)
        weights = np.ones(size, np.float32) if weights is None else weights
        if len(weights) != size or not (weights > 0).all():
            raise ValueError(
                f"`weights` must be {size} numbers above 0, but got {len(weights)} from "
                f"{weights.min(initial=np.inf)}: use `sif_weights`"
            )
        if not 0 <= pad < size:
            raise ValueError(f"`0 <= pad < {size}` must hold, but got {pad=}")
        self.vectors = nn.Parameter(torch.from_numpy(vectors.copy()))
        self.log_weights = nn.Parameter(torch.from_numpy(np.log(weights)))
        self.pad, self.normalize = pad, normalize

    def forward(self, ids: Int64[Tensor, " batch length"]) -> Float[Tensor, " batch width"]:
        """One vector per row of token ids; zeros for a row of padding alone."""
        # Not `embedding_bag`, which ONNX has no words for; nor an index, whose gradient is slow.
        shares = nn.functional.embedding(ids, self.log_weights[:, None]).exp()
        shares = shares * (ids != self.pad)[:, :, None]
        summed = (shares * nn.functional.embedding(ids, self.vectors)).sum(dim=1)
        if self.normalize:
            return unit(summed)
        # As who folds the weights into the vectors: a mean over tokens, not over weights.
        return summed / (ids != self.pad).sum(dim=1, keepdim=True).clamp(min=1)

    @property
    def width(self) -> int:
        """How many numbers a vector has."""
        return int(self.vectors.shape[1])

    def folded(self) -> Float32[np.ndarray, " vocabulary width"]:
        """Every vector times its token's weight, zeros for the padding: what is saved."""
        with torch.no_grad():
            table = self.vectors * self.log_weights.exp()[:, None]
            table[self.pad] = 0.0
        found: np.ndarray = table.float().cpu().numpy()
        return found
