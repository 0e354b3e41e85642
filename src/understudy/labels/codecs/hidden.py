"""The teacher's last hidden state, from which its head rebuilds the logits."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from understudy.errors import StoreError
from understudy.labels.codecs.dense import ERRORS, Dense
from understudy.labels.codecs.form import Codec, Part, Parts
from understudy.labels.codecs.int8 import Int8
from understudy.labels.codecs.parts import check_precision


def state_codec(*, precision: str = "float32") -> Codec:
    """How a hidden state is written, without the head that it goes into.

    Args:
        precision: `float32`, `float16`, `bfloat16` or `int8`.

    Raises:
        ValueError: another precision.
    """
    check_precision(precision, (*ERRORS, "int8"))
    return Int8() if precision == "int8" else Dense(precision=precision)


class Hidden:
    """Logits of a linear head, kept as what goes into the head.

    `d` numbers per position instead of one per class: with a vocabulary of 128,000 and a state of
    1,024 this is 125 times fewer, nothing is left out, and any temperature can be used. The head
    lies beside the shards once.

    `logits = cap(scale * (state @ weight.T + bias))`, where `cap(z) = soft_cap * tanh(z /
    soft_cap)`, and nothing where there is no soft cap.

    Args:
        weight: of the teacher's head, `[classes, d]`.
        bias: of the teacher's head, `[classes]`, if it has one.
        scale: what logits are multiplied by before they are capped.
        soft_cap: the size that no logit exceeds, or None.
        precision: how the state is kept: `float32`, `float16`, `bfloat16` or `int8`.

    Raises:
        ValueError: another precision, a weight and a bias that are no linear head, or a scale or
            cap that is not positive and finite.

    Example:
        >>> codec = Hidden(weight=np.float32([[1, 0], [0, 1], [1, 1]]))
        >>> codec.decode(codec.encode(np.float32([[2.0, 3.0]])), shape=(2,))
        tensor([[2., 3., 5.]])
    """

    def __init__(
        self,
        *,
        weight: NDArray[Any],
        bias: NDArray[Any] | None = None,
        scale: float = 1.0,
        soft_cap: float | None = None,
        precision: str = "float32",
    ) -> None:
        self._state = state_codec(precision=precision)
        if weight.ndim != 2 or len(weight) < 2 or weight.shape[1] < 1:
            raise ValueError(
                "`weight` must be [classes, d] with 2 or more classes, but got "
                f"{weight.shape}: give the head's weight as PyTorch has it"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(
                f"`bias` must be [classes], but got {bias.shape} beside a weight {weight.shape}"
            )
        for name, number in (("scale", scale), ("soft_cap", soft_cap)):
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, but got {number}")
        self.precision, self.scale, self.soft_cap = precision, scale, soft_cap
        self._weight = _writable(weight)
        self._bias = None if bias is None else _writable(bias)

    @property
    def kind(self) -> str:
        """`hidden`."""
        return "hidden"

    @property
    def parameters(self) -> dict[str, Any]:
        """The precision, and what the head does beside its product; that is in `constants`."""
        scale = {} if self.scale == 1 else {"scale": self.scale}
        cap = {} if self.soft_cap is None else {"soft_cap": self.soft_cap}
        return {"precision": self.precision, **scale, **cap}

    @property
    def error(self) -> str:
        """That of the state, through the head."""
        return (
            f"of each number of the state: {self._state.error}; a logit adds these up, each times "
            "the size of its weight, and rounds as a product in float32 does"
        )

    @property
    def listed(self) -> bool:
        """Dense logits come back."""
        return False

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """`weight` and, if there is one, `bias`, in float32."""
        bias = {} if self._bias is None else {"bias": self._bias}
        return MappingProxyType({"weight": self._weight, **bias})

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse states that the head does not take.

        Raises:
            StoreError: a position is not one row of as many numbers as the weight has columns.
        """
        wide = self._weight.shape[1]
        if shape != (wide,):
            raise StoreError(
                f"the head takes one row of {wide} numbers per position, but got the shape "
                f"{tuple(shape)}: give the hidden state that goes into the last linear layer, "
                "after its normalisation, and not the logits"
            )

    def encode(self, values: NDArray[np.float32], *, seed: int = 0) -> dict[str, Part]:
        """The states `[positions, d]` as `dense` or `int8` has them.

        Raises:
            StoreError: states of another width, or numbers that do not fit into the precision.
        """
        self.check(values.shape[1:])
        return self._state.encode(values, seed=seed)

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Tensor:
        """Logits, float32 `[positions, classes]`."""
        state = self._state.decode(parts, shape=shape)
        assert isinstance(state, Tensor)
        bias = None if self._bias is None else torch.from_numpy(self._bias)
        logits = F.linear(state, torch.from_numpy(self._weight), bias)
        if self.scale != 1:
            logits = logits * self.scale
        if self.soft_cap is not None:
            logits = (logits / self.soft_cap).tanh() * self.soft_cap
        return logits


def _writable(head: NDArray[Any]) -> NDArray[np.float32]:
    # PyTorch warns of arrays that cannot be written to, such as maps of files.
    found: NDArray[np.float32] = np.require(head, np.float32, ["C", "W"])
    return found
