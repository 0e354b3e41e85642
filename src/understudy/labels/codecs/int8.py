"""One byte per number, and one scale per position."""

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
from understudy.labels.codecs.parts import array

STEPS = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8:
    """All numbers of a position as multiples of its step: its largest absolute value / 127.

    For features, embeddings and hidden states, a quarter of float32. A position whose numbers
    differ much in size keeps little of the small ones; there `dense` at float16 is better.

    Raises:
        StoreError: on encoding, where a number is not finite.

    Example:
        >>> codec = Int8()
        >>> codec.decode(codec.encode(np.float32([[1.27, 0.004]])), shape=(2,))
        tensor([[1.2700, 0.0000]])
    """

    @property
    def kind(self) -> str:
        """`int8`."""
        return "int8"

    @property
    def parameters(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def error(self) -> str:
        """Half a step."""
        return "at most half a step; a step is the position's largest absolute value / 127"

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
        """int8 `codes` `[positions, ...]` and float32 `scales` `[positions]`.

        Raises:
            StoreError: a number is infinite.
        """
        del seed
        exact = np.ascontiguousarray(values, dtype=np.float32)
        flat = exact.reshape(len(exact), int(np.prod(exact.shape[1:])))
        largest = np.abs(flat).max(axis=1, initial=0)
        if not np.isfinite(largest).all():
            raise StoreError(
                "every number must be finite, but got an infinite one: it has no place on a scale "
                "of 255 steps; use `codec: dense`"
            )
        scales = _scales(largest)
        codes = np.rint(flat / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
        return {"codes": codes.reshape(exact.shape), "scales": scales}

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Tensor:
        """float32 `[positions, *shape]`."""
        del shape
        codes, scales = array(parts, "codes"), array(parts, "scales")
        found = codes.astype(np.float32)
        found *= scales.reshape(-1, *[1] * (codes.ndim - 1))
        return torch.from_numpy(found)


def _scales(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """The step of each position: a normal number, and 127 of it are a finite one."""
    normal = np.finfo(np.float32).tiny
    scales = np.where(largest > 0, np.maximum(largest / np.float32(STEPS), normal), 0)
    found: NDArray[np.float32] = scales.astype(np.float32)
    with np.errstate(over="ignore"):
        over = np.isinf(found * np.float32(STEPS))
    found[over] = np.nextafter(found[over], np.float32(0))
    return found
