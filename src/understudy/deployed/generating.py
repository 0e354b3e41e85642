"""An exported decoder at work: it goes on with a text, token by token.

NumPy and ONNX Runtime only; texts need the library `tokenizers`. The next token is the likeliest,
or one that is drawn. A text ends with a stop token, after as many tokens as were asked for, or
where the context is full: nothing is forgotten to make room.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from understudy.deployed.prompts import PromptCoder
from understudy.deployed.sampling import Sampling, chosen
from understudy.deployed.session import open_session, read_metadata
from understudy.deployed.timing import available_threads
from understudy.errors import DataError, ExportError

Memory = tuple[NDArray[Any], ...]
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Decoder:
    """An opened file of `export_decoder`.

    Attributes:
        path: the file.
        metadata: what its maker stored in it, by name.
        vocabulary: how many logits there are per token.
        context: the most tokens of a text, with its prompt.
        stop: the tokens after which a text is over.

    Example:
        >>> decoder = Decoder.open("decoder.onnx")  # doctest: +SKIP
        >>> "".join(decoder.stream("Once upon a time", most=40))  # doctest: +SKIP
        ', there was a little girl named Lily.'
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, *, path: Path, metadata: Mapping[str, Any]
    ) -> None:
        """Use `Decoder.open`."""
        told = metadata.get("decoder")
        if not isinstance(told, Mapping):
            raise ExportError(
                f"{path} does not go on with texts: give it rows in place of a prompt, or name a "
                "file that `export_decoder` wrote"
            )
        self._session = session
        self._inputs = session.get_inputs()
        self._outputs = [one.name for one in session.get_outputs()]
        self._coder: PromptCoder | None = None
        self.path, self.metadata = path, metadata
        self.vocabulary, self.context = int(told["vocabulary"]), int(told["context"])
        self.stop = tuple(int(token) for token in told["stop"])

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None) -> "Decoder":
        """Open a file.

        Args:
            path: an ONNX file.
            threads: threads within one call; by default all processors of this process.

        Raises:
            ExportError: the file is missing, damaged, or no decoder.
        """
        path = Path(path)
        session = open_session(path, threads=threads or available_threads())
        return cls(session, path=path, metadata=read_metadata(session, path))

    @property
    def coder(self) -> PromptCoder:
        """What prompts are encoded with.

        Raises:
            DataError: the file has no tokenizer.
            MissingExtraError: tokenizers is not installed.
        """
        if self._coder is None:
            self._coder = PromptCoder.of(self.metadata, name=self.path.name)
        return self._coder

    def step(
        self, tokens: NDArray[np.int64], past: Memory = ()
    ) -> tuple[NDArray[np.float32], Memory]:
        """Logits after the last of the new tokens, `[batch, vocabulary]`, and what is remembered.

        Args:
            tokens: `[batch, length]`, those that follow what is remembered.
            past: what the step before gave; empty at the start.

        Raises:
            DataError: there are no tokens, too many, or some that are none of the vocabulary.
        """
        before = past[0].shape[1] if past else 0
        self._check(tokens, before)
        given = (np.ascontiguousarray(tokens, np.int64), *(past or self._nothing(len(tokens))))
        feed = {one.name: value for one, value in zip(self._inputs, given, strict=True)}
        logits, *now = self._session.run(self._outputs, feed)
        return logits, tuple(now)

    def tokens(
        self,
        prompt: Sequence[int],
        *,
        most: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> Iterator[int]:
        """The tokens that follow a prompt, one by one, with the stop token if there is one.

        Args:
            prompt: tokens to go on from, fewer than the context.
            most: the most new tokens; fewer come where the context is full.
            sampling: how tokens are drawn; None takes the likeliest.
            seed: of what is drawn; equal seeds give equal texts.
            stop: tokens after which a text is over; None for the model's own.

        Raises:
            DataError: the prompt is empty, fills the context, or has tokens of another vocabulary.
            ValueError: `most` is below 1.
        """
        if most < 1:
            raise ValueError(f"`most >= 1` must hold, but got {most=}")
        if not 1 <= len(prompt) < self.context:
            raise DataError(
                f"a prompt must have 1 to {self.context - 1} tokens, as the context of "
                f"{self.path.name} holds {self.context} with those that follow, but got "
                f"{len(prompt)}: cut its beginning"
            )
        given = np.array([list(prompt)], np.int64)
        self._check(given, 0)
        stops = frozenset(self.stop if stop is None else stop)
        most = min(most, self.context - len(prompt))
        return self._follow(given, most, sampling, np.random.default_rng(seed), stops)

    def stream(
        self,
        prompt: str,
        *,
        most: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> Iterator[str]:
        """The text that follows a prompt, piece by piece, as `tokens`.

        Raises:
            DataError: as `tokens`, the file has no tokenizer, or nothing is left of the prompt.
            MissingExtraError: tokenizers is not installed.
        """
        ids = self.coder.encode(prompt)
        ends = frozenset(self.stop if stop is None else stop)
        told = self.tokens(ids, most=most, sampling=sampling, seed=seed, stop=stop)
        return self.coder.stream(ids, (token for token in told if token not in ends))

    def _follow(
        self,
        tokens: NDArray[np.int64],
        most: int,
        sampling: Sampling | None,
        draw: np.random.Generator,
        stops: frozenset[int],
    ) -> Iterator[int]:
        past: Memory = ()
        for _ in range(most):
            logits, past = self.step(tokens, past)
            token = chosen(logits[0], sampling, draw)
            yield token
            if token in stops:
                return
            tokens = np.array([[token]], np.int64)

    def _nothing(self, batch: int) -> Memory:
        """What is remembered at the start: everything of length 0."""
        found = []
        for one in self._inputs[1:]:
            shape = [batch, *(size if isinstance(size, int) else 0 for size in one.shape[1:])]
            found.append(np.zeros(shape, _TYPES[one.type]))
        return tuple(found)

    def _check(self, tokens: NDArray[np.int64], before: int) -> None:
        if tokens.ndim != 2 or tokens.size == 0 or before + tokens.shape[1] > self.context:
            raise DataError(
                f"{self.path.name} takes [batch, length] of 1 to {self.context - before} tokens, "
                f"its context, but got {list(tokens.shape)}: give it fewer"
            )
        least, largest = int(tokens.min()), int(tokens.max())
        if least < 0 or largest >= self.vocabulary:
            raise DataError(
                f"`0 <= token < {self.vocabulary}` must hold, the vocabulary of {self.path.name}, "
                f"but got tokens from {least} to {largest}: encode texts with its own tokenizer"
            )
