"""What the operations share: images as bytes, and numbers back in their type."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor


def as_bytes(rows: Shaped[Tensor, " batch height width channels"]) -> NDArray[np.uint8]:
    """Contiguous images as `[batch, height, width, bytes of a pixel]`, in the same memory."""
    return rows.view(torch.uint8).numpy()


def in_type(
    values: Float[Tensor, " batch ..."], dtype: torch.dtype
) -> Shaped[Tensor, " batch ..."]:
    """Numbers in another type; to whole ones by rounding, within that type's range.

    Works in the memory of `values`.

    Raises:
        ValueError: the type is bool, which has nothing between its two values.
    """
    if dtype.is_floating_point:
        return values.to(dtype)
    if dtype == torch.bool:
        raise ValueError(
            "rows must be numbers where a view makes shades between them, but they are true or "
            "false: give 0 and 255 of uint8"
        )
    limits = torch.iinfo(dtype)
    values.round_().clamp_(limits.min, limits.max)
    if dtype == torch.uint8:  # torch takes four times as long for it
        return torch.from_numpy(values.numpy().astype(np.uint8))
    return values.to(dtype)
