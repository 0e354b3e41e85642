"""An ONNX file, opened: what it says of itself, and its answers to raw rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from understudy.deployed.lengths import lengths, rounded
from understudy.deployed.timing import Latency, available_threads, summarise, time_calls
from understudy.errors import DataError, ExportError

_PREFIX = "understudy."
_TYPES = {"float": "float32", "double": "float64"}


class Deployed:
    """An opened ONNX file with one input of raw rows `[rows, ...]`; the first output counts.

    Files that Understudy did not write can be opened too; they have no metadata.

    Attributes:
        path: the file.
        metadata: what its maker stored in it, by name.
        input_shape: the shape of one raw row; None where an axis may have any length.
        input_dtype: the type of the raw rows.

    Example:
        >>> deployed = Deployed.open(Path("student.onnx"))  # doctest: +SKIP
        >>> deployed.predict(rows).argmax(axis=1)  # doctest: +SKIP
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, *, path: Path, metadata: Mapping[str, Any]
    ) -> None:
        """Use `Deployed.open`."""
        inputs = session.get_inputs()
        if "decoder" in metadata:
            raise ExportError(
                f"{path} goes on with texts and does not answer rows: use `understudy predict "
                '--prompt "..."`, or `Decoder.open`'
            )
        if len(inputs) != 1:
            raise ExportError(
                f"a deployed model must have one input, but {path} has {len(inputs)} "
                f"({', '.join(item.name for item in inputs)}); export one that takes raw rows only"
            )
        self._session = session
        self._input = inputs[0].name
        self._output = session.get_outputs()[0].name
        sizes = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self._fixed_batch = sizes[0] if sizes else None
        self.path = path
        self.metadata = metadata
        self.input_shape = tuple(sizes[1:])
        self.input_dtype = _dtype(inputs[0].type, path)

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None) -> "Deployed":
        """Open a file.

        Args:
            path: an ONNX file.
            threads: threads within one call; by default all processors of this process.

        Raises:
            ExportError: the file is missing, damaged, or not a model of one input.
        """
        path = Path(path)
        session = open_session(path, threads=threads or available_threads(), spinning=False)
        return cls(session, path=path, metadata=read_metadata(session, path))

    @property
    def task(self) -> str | None:
        """The name of the task: `classification`, `regression`, ..."""
        task = self.metadata.get("task")
        return None if task is None else str(task)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of the answer's columns."""
        return self._names("classes")

    @property
    def targets(self) -> tuple[str, ...] | None:
        """The names of the numbers that are predicted, in the order of the answer's columns."""
        return self._names("targets")

    @property
    def columns(self) -> tuple[Mapping[str, Any], ...] | None:
        """A table's columns in order, each with `name` and `categories` (None for a number)."""
        columns = self.metadata.get("columns")
        return None if columns is None else tuple(columns)

    @property
    def pad(self) -> int | None:
        """The id that fills rows of token ids up; None where rows are no texts of any length."""
        told = self.metadata.get("tokenizer")
        return int(told["pad"]) if told and self.input_shape == (None,) else None

    def predict(self, rows: NDArray[Any], *, batch: int = 256) -> NDArray[np.float32]:
        """The answers to raw rows, float32 `[rows, width]`, in order; no rows give no answers.

        A model that is asked per token answers `[rows, length, width]`, with zeros where a row was
        cut for being padding.

        Args:
            rows: raw rows `[rows, ...]`; numbers are widened to the file's type where this keeps
                their meaning (64-bit floats to 32 bits, integers to floats), else refused.
            batch: rows per call, which bounds the memory that is used.

        Raises:
            DataError: shape or type of the rows is not the file's, or it refuses their values.
        """
        rows = self._checked(rows)
        if len(rows) == 0:
            sizes = (
                given if known is None else known
                for known, given in zip(self.input_shape, rows.shape[1:], strict=True)
            )
            return self._run(np.zeros((1, *sizes), self.input_dtype))[:0]
        batch = self._fixed_batch or batch
        if self.pad is None:
            parts = [rows[at : at + batch] for at in range(0, len(rows), batch)]
            return np.concatenate([self._run(part) for part in parts])
        # Texts of like length together, so that little padding is computed.
        order = np.argsort(lengths(rows, self.pad), kind="stable")
        parts = [rows[order[at : at + batch]] for at in range(0, len(rows), batch)]
        found = [self._run(self._cut(part)) for part in parts]
        if found[0].ndim == 3:
            found = [_filled_up(part, rows.shape[1]) for part in found]
        return np.concatenate(found)[np.argsort(order)]

    def latency(
        self,
        rows: NDArray[Any],
        *,
        batch: int,
        threads: int,
        seconds: float = 0.5,
        warm_up: int = 3,
    ) -> Latency:
        """Time single calls in a fresh session.

        Args:
            rows: raw rows to time with, repeated where there are fewer than `batch`.
            batch: rows per call.
            threads: threads within a call; operators run one after the other.
            seconds: for about how long; five calls are timed at least.
            warm_up: calls before, which are not counted.

        Raises:
            DataError: there are no rows, or shape or type is not the file's.
        """
        rows = self._checked(rows)
        if len(rows) == 0:
            raise DataError("timing needs a row, but got 0; pass at least one")
        feed = {self._input: self._cut(rows[np.arange(batch) % len(rows)])}
        session = open_session(self.path, threads=threads)
        outputs = [self._output]
        times = time_calls(lambda: session.run(outputs, feed), seconds=seconds, warm_up=warm_up)
        return summarise(times, batch=batch, threads=threads)

    def _names(self, key: str) -> tuple[str, ...] | None:
        names = self.metadata.get(key)
        return None if names is None else tuple(str(name) for name in names)

    def _checked(self, rows: NDArray[Any]) -> NDArray[Any]:
        shape = ", ".join(["rows", *("any" if n is None else str(n) for n in self.input_shape)])
        law = f"{self.path.name} takes [{shape}] of {self.input_dtype}, but got"
        given = f"{list(rows.shape)} of {rows.dtype}"
        if rows.ndim != 1 + len(self.input_shape) or any(
            known is not None and known != size
            for known, size in zip(self.input_shape, rows.shape[1:], strict=True)
        ):
            raise DataError(f"{law} {given}; give it raw rows as in its training data")
        if not np.can_cast(rows.dtype, self.input_dtype, "same_kind"):
            raise DataError(
                f"{law} {given}; if the values are raw ones, as in its training data, "
                f"use `rows.astype(np.{self.input_dtype})`"
            )
        return np.ascontiguousarray(rows, dtype=self.input_dtype)

    def _cut(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of token ids without the columns that are padding in all of them."""
        if self.pad is None:
            return rows
        longest = int(lengths(rows, self.pad).max(initial=0))
        return np.ascontiguousarray(rows[:, : rounded(longest, rows.shape[1])])

    def _run(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        missing = (self._fixed_batch or 0) - len(rows)
        fed = np.concatenate([rows, np.repeat(rows[-1:], missing, 0)]) if missing > 0 else rows
        try:
            (answer,) = self._session.run([self._output], {self._input: fed})
        except Exception as error:  # ONNX Runtime's errors share no other base
            raise DataError(
                f"{self.path.name} refuses these rows ({_line(error)}); give it rows as in its "
                "training data"
            ) from error
        return np.asarray(answer[: len(rows)], np.float32)


def _filled_up(answers: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Answers per token of rows that were cut, as long as the rows were."""
    return np.pad(answers, ((0, 0), (0, length - answers.shape[1]), (0, 0)))


def open_session(
    path: Path, *, threads: int, spinning: bool = True
) -> onnxruntime.InferenceSession:
    """A file on this processor.

    Args:
        path: an ONNX file.
        threads: threads within one call.
        spinning: whether these threads stay busy for a while after each call, as ONNX Runtime has
            it by itself. The next call begins sooner, but until then they take the processor from
            everything else: PyTorch, or other sessions. Within a call they spin in any case.

    Raises:
        ExportError: it is missing or damaged.
    """
    if not path.is_file():
        raise ExportError(f"there is no file {path}; export a model to it first")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # what goes wrong is raised, so it need not be printed too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no other base
        raise ExportError(
            f"{path} cannot be opened as an ONNX model ({_line(error)}): export the model again"
        ) from error


def read_metadata(session: onnxruntime.InferenceSession, path: Path) -> dict[str, Any]:
    """What the maker of an opened file stored in it.

    Raises:
        ExportError: it is not JSON.
    """
    stored = session.get_modelmeta().custom_metadata_map
    try:
        return {
            key.removeprefix(_PREFIX): json.loads(text)
            for key, text in sorted(stored.items())
            if key.startswith(_PREFIX)
        }
    except ValueError as error:
        raise ExportError(
            f"the metadata in {path} is not JSON ({error}): export the model again"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _dtype(kind: str, path: Path) -> np.dtype[Any]:
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(_TYPES.get(name, name))
    except TypeError as error:
        raise ExportError(
            f"a deployed model must take numbers, but {path} takes {kind}; "
            "export one that takes raw rows"
        ) from error
