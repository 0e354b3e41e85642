"""A backend's answers as a teacher: rows go in pieces of one size, and come out as one batch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from understudy.contracts import Batch, Knowledge

Answer = Callable[[Tensor], Tensor]


class InPieces:
    """Answers every batch in pieces of `piece` rows.

    The hidden maps of a large batch do not fit into a processor's cache, and fetching them from
    memory can take longer than computing them; those of a piece do. Rows are independent, so the
    answers are the same but for their last digits.

    Attributes:
        piece: rows per call of the backend; None: every batch as a whole.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        output: str,
        device: torch.device,
        piece: int | None = None,
        padded: bool = False,
        threads: int = 1,
    ) -> None:
        """Teach with a function of rows.

        Args:
            answer: raw rows `[rows, ...]` on `device` to answers `[rows, width]`.
            output: what its answer is called as knowledge, `logits` or `values`.
            device: where it computes.
            piece: rows per call.
            padded: whether a smaller last piece is filled up with repeated rows, whose answers
                are dropped: for what is made for one size and would be made anew for another.
            threads: how many pieces are computed at once, by an `answer` that lets other threads
                run and may be called from several.

        Raises:
            ValueError: `piece` is below 1, or missing although pieces are padded.
        """
        if (padded and piece is None) or (piece is not None and piece < 1):
            raise ValueError(
                f"`piece >= 1` must hold, and be given where pieces are padded, but got {piece=} "
                f"and {padded=}: use the number of rows in a batch"
            )
        self.piece = piece
        self._answer, self._output, self._padded = answer, output, padded
        self._device = device
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @property
    def offers(self) -> frozenset[str]:
        """Its answer."""
        return frozenset({self._output})

    def __call__(self, batch: Batch) -> Knowledge:
        """Its answer to the batch, where the batch is, without gradient."""
        given = batch.inputs if batch.teacher_inputs is None else batch.teacher_inputs
        rows = given.detach().to(self._device)
        # Not inference_mode: its tensors may not enter a graph, and losses may save them for one.
        with torch.no_grad():
            parts = torch.split(rows, self.piece or max(len(rows), 1))
            pool = self._pool
            answers = [self._one(p) for p in parts] if pool is None else self._at_once(pool, parts)
        answer = answers[0] if len(answers) == 1 else torch.cat(answers)
        return Knowledge(fields={self._output: answer.to(batch.inputs.device)})

    def _at_once(self, pool: ThreadPoolExecutor, parts: Sequence[Tensor]) -> list[Tensor]:
        return list(pool.map(self._one, parts))

    def _one(self, part: Tensor) -> Tensor:
        if not self._padded or self.piece is None or len(part) in (0, self.piece):
            return self._answer(part)
        index = torch.arange(self.piece, device=part.device).clamp_(max=len(part) - 1)
        return self._answer(part[index])[: len(part)]
