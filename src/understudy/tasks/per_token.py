"""Tasks that ask a model once per token instead of once per row."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class PerToken(Protocol):
    """What such a task has beside the members of `contracts.Task`.

    A network of texts is built with a head per token for it, answers are `[batch, length, width]`,
    and batches say which positions count. The engine and the evaluation ask for `condensed`
    batch by batch, so that answers over a large vocabulary are never collected.
    """

    @property
    def each_token(self) -> bool:
        """True."""

    def condensed(self, answers: Tensor, labels: Tensor) -> Tensor:
        """`[positions, width]` answers as the few numbers `[positions, few]` that scores read.

        Args:
            answers: of a model, at labelled positions.
            labels: int64 `[positions]`.
        """
