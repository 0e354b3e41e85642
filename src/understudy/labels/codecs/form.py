"""What a codec is: a pair of pure functions between values and the arrays that a shard holds.

A codec knows nothing of files, shards or ids. The store lays its parts out, finds the rows that
are asked for, and hands the same parts back, cut to these rows: `decode(encode(x))` is all there
is to say, and all that a test must try.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Outcomes


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """Bytes of different number per position, joined end to end.

    Attributes:
        content: uint8 `[bytes]`.
        lengths: bytes per position, `[positions]`, any integer type; they sum to `bytes`.
    """

    content: NDArray[np.uint8]
    lengths: NDArray[Any]

    def __len__(self) -> int:
        return len(self.lengths)


Part = NDArray[Any] | Stream
Parts = Mapping[str, Part]


@runtime_checkable
class Codec(Protocol):
    """How the positions of one field are written. The store calls it, shard by shard.

    A position is one row of an ordinary field, one token of a ragged one. Constructors take only
    keywords and raise ValueError with the law, the values and the remedy.
    """

    @property
    def kind(self) -> str:
        """Its name in the catalogue and in the manifest."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments as plain data; the manifest holds them beside `kind`."""

    @property
    def error(self) -> str:
        """What a value can lose, in one sentence with its unit."""

    @property
    def listed(self) -> bool:
        """Whether it decodes to `Outcomes` instead of a dense tensor."""

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """Arrays that every shard shares, written once beside them (a head); usually none."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse a field whose positions have this shape.

        Raises:
            StoreError: it cannot be written this way (k larger than the classes, ...).
        """

    def encode(self, values: NDArray[np.float32], *, seed: int = 0) -> dict[str, Part]:
        """`[positions, ...]` finite float32 to parts, a pure function of its arguments.

        Args:
            values: logits, log-probabilities, embeddings or features.
            seed: for codecs that draw; another one per shard.
        """

    def decode(self, parts: Parts, *, shape: tuple[int, ...]) -> Tensor | Outcomes:
        """The positions of these parts: float32 `[positions, *shape]`, or outcomes."""
