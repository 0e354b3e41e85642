"""Every number of a field, at the precision that is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.errors import StoreError
from understudy.labels.codecs.form import Part, Parts
from understudy.labels.codecs.parts import array, check_precision

ERRORS: Mapping[str, str] = MappingProxyType(
    {
        "float32": "none: every float32 comes back as it was",
        "float16": "at most 2**-11 (0.05 %) of the value, or 2**-25 where that is more",
        "bfloat16": "at most 2**-8 (0.4 %) of the value, or 2**-134 where that is more",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """All numbers of a position, whatever its shape: 4 or 2 bytes each.

    bfloat16 has the range of float32 and a twentieth of float16's digits; it is for features
    whose size is unknown, float16 for everything below 65,504.

    Attributes:
        precision: `float32`, `float16` or `bfloat16`.

    Raises:
        ValueError: another precision.

    Example:
        >>> codec = Dense(precision="float16")
        >>> codec.decode(codec.encode(np.float32([[0.1, 2.0]])), shape=(2,))
        tensor([[0.1000, 2.0000]])
    """

    precision: str = "float32"

    def __post_init__(self) -> None:
        check_precision(self.precision, ERRORS)

    @property
    def kind(self) -> str:
        """`dense`."""
        return "dense"

    @property
    def parameters(self) -> dict[str, Any]:
        """The precision."""
        return {"precision": self.precision}

    @property
    def error(self) -> str:
        """That of rounding to the nearest."""
        return ERRORS[self.precision]

    @property
    def listed(self) -> bool:
        """Dense tensors come back."""
        return False

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """None."""
        return MappingProxyType({})

    def check(self, shape: tuple[int, ...]) -> None:
        """Every shape can be written."""

    def encode(self, values: NDArray[np.float32], *, seed: int = 0) -> dict[str, Part]:
        """`values` `[positions, ...]` in one array; bfloat16 as the upper half of a float32.

        Raises:
            StoreError: a finite number is too large for the precision.
        """
        del seed
        exact = np.ascontiguousarray(values, dtype=np.float32)
        if self.precision == "float32":
            return {"values": exact}
        with np.errstate(over="ignore"):
            found = _upper_half(exact) if self.precision == "bfloat16" else exact.astype(np.float16)
        lost = np.isinf(_numbers(found)) & np.isfinite(exact)
        if lost.any():
            wider = "float32" if self.precision == "bfloat16" else "bfloat16 or float32"
            raise StoreError(
                f"every number must fit into {self.precision}, but {np.count_nonzero(lost)} do "
                f"not, one of them {exact[lost][0]:g}: use `precision: {wider}` "
                "(for layers: `labels.features`)"
            )
        return {"values": found}

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Tensor:
        """float32 `[positions, *shape]`."""
        del shape
        return torch.from_numpy(_numbers(array(parts, "values")))


def _numbers(stored: NDArray[Any]) -> NDArray[np.float32]:
    """A writable copy in float32; 16-bit integers are bfloat16, of which NumPy has none."""
    if stored.dtype != np.uint16:
        return stored.astype(np.float32)
    bits = stored.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _upper_half(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest bfloat16, ties to the even one, as its 16 bits."""
    bits = values.view(np.uint32)
    rounded: NDArray[np.uint32] = bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))
    return (rounded >> 16).astype(np.uint16)
