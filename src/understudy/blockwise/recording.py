"""The files of a recording: one array per tensor, one description per block."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.blockwise.calls import PAIRS
from understudy.blockwise.words import Call
from understudy.errors import DataError, ModelError, RunError
from understudy.folders import read_json, write_json

_PLAIN = (bool, int, float, str, type(None))


class Differs(Exception):  # noqa: N818 - nothing is wrong: the files are written anew
    """Two tensors that were one in the first batch are two."""


class Writing:
    """Batches of calls on their way into files.

    A tensor with a row per row becomes an array of all rows; any other belongs to all rows, is
    written once, and must stay what it is. A context manager.

    Args:
        folder: where to.
        rows: how many will come in all.
        precision: of floating-point numbers, as a NumPy type.
        apart: whether every block has files of its own for what others have too.
    """

    def __init__(self, folder: Path, *, rows: int, precision: str, apart: bool) -> None:
        self._folder, self._rows, self._apart = folder, rows, apart
        self._precision = precision
        self._files: dict[str, IO[bytes]] = {}
        self._same: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        self._first = True

    def __enter__(self) -> "Writing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, calls: Mapping[str, Call]) -> None:
        """Write the next batch.

        Raises:
            DataError: a number is too large for the precision.
            ModelError: an argument cannot be written.
            Differs: write all again, `apart`.
            RunError: the disk is full.
        """
        given: dict[str, Tensor] = {}
        for name, call in calls.items():
            told = {
                "stream": self._laid(f"{name}.stream", call.stream, call, given),
                "args": [
                    self._laid(f"{name}.argument-{n}", value, call, given)
                    for n, value in enumerate(call.args)
                ],
                "kwargs": {
                    key: self._laid(f"{name}.{key}", value, call, given)
                    for key, value in call.kwargs.items()
                },
                "gives": self._laid(f"{name}.gives", call.gives, call, given),
            }
            if self._first:
                write_json(self._folder / f"{name}.json", told | {"rows": self._rows})
        if self._first:
            self._find_same(given)
            self._write_described(calls)
        for key, value in given.items():
            if key in self._same:
                if not torch.equal(value, given[self._same[key]]):
                    raise Differs
            else:
                self._append(key, value)
        self._first = False

    def _laid(self, key: str, value: Any, call: Call, given: dict[str, Tensor]) -> Any:
        """How a value is described; tensors go where they are written from."""
        if isinstance(value, Tensor):
            own = value.ndim > 0 and len(value) == len(call.stream) and not key.endswith(PAIRS)
            if own and not self._is_fixed(key, value):
                given[key] = value
                return {"array": key}
            return self._fix(key, value)
        if isinstance(value, (tuple, list)):
            items = [self._laid(f"{key}.{n}", item, call, given) for n, item in enumerate(value)]
            return {"tuple" if isinstance(value, tuple) else "list": items}
        if isinstance(value, Mapping):
            return {"dict": {k: self._laid(f"{key}.{k}", v, call, given) for k, v in value.items()}}
        if isinstance(value, _PLAIN):
            return {"plain": value}
        raise ModelError(
            f"`{key}` is a {type(value).__name__}, which a recording cannot hold: use `Recomputed`"
        )

    def _is_fixed(self, key: str, value: Tensor) -> bool:
        # A last batch may have as many rows as something that has none.
        before = self._fixed.get(key)
        return before is not None and before.shape == value.shape

    def _fix(self, key: str, value: Tensor) -> Any:
        before = self._fixed.get(key)
        if before is None:
            self._fixed[key] = value
            np.save(self._folder / f"{key}.npy", _array(value, self._precision, key))
        elif not torch.equal(before, value):
            raise ModelError(
                f"`{key}` is not the same for all rows, and has no row for each: use `Recomputed`"
            )
        return {"fixed": key}

    def _find_same(self, given: Mapping[str, Tensor]) -> None:
        if self._apart:
            return
        seen: dict[str, list[str]] = {}
        before = ""
        for key, value in given.items():
            kind = key.rpartition(".")[2]
            # What one block gives is what the next is given; masks go to all under one name.
            others = [before] if kind == "stream" and before else seen.get(kind, [])
            for other in others if kind != "gives" else []:
                same = given[other].shape == value.shape and given[other].dtype == value.dtype
                if same and torch.equal(given[other], value):
                    self._same[key] = self._same.get(other, other)
                    break
            before = key if kind == "gives" else before
            seen.setdefault(kind, []).append(key)

    def _write_described(self, calls: Mapping[str, Call]) -> None:
        """Once more, where an array is another one's."""
        for name in calls:
            path = self._folder / f"{name}.json"
            write_json(path, read_json(path) | {"same": self._same})

    def _append(self, key: str, value: Tensor) -> None:
        array = _array(value, self._precision, key)
        try:
            if key not in self._files:
                self._files[key] = (self._folder / f"{key}.npy").open("wb")
                header = {
                    "descr": np.lib.format.dtype_to_descr(array.dtype),
                    "fortran_order": False,
                    "shape": (self._rows, *array.shape[1:]),
                }
                np.lib.format.write_array_header_1_0(self._files[key], header)
            self._files[key].write(array.tobytes())
        except OSError as error:
            raise RunError(
                f"{self._folder / key}.npy cannot be written ({error.strerror or error}): free "
                "some space, record fewer rows, or use `Recomputed`, which writes nothing"
            ) from error


class Reading:
    """One block of a recording.

    Args:
        folder: of the recording.
        block: its name.

    Raises:
        RunError: it is not there.
    """

    def __init__(self, folder: Path, block: str) -> None:
        self._folder = folder
        self._told = read_json(folder / f"{block}.json")
        self._maps: dict[str, NDArray[Any]] = {}
        self.rows = int(self._told["rows"])

    def __call__(self, index: NDArray[np.int64]) -> Call:
        """The call with these rows."""
        told = self._told
        return Call(
            stream=self._value(told["stream"], index),
            args=tuple(self._value(one, index) for one in told["args"]),
            kwargs={name: self._value(one, index) for name, one in told["kwargs"].items()},
            gives=self._value(told["gives"], index),
        )

    def _value(self, told: Mapping[str, Any], index: NDArray[np.int64]) -> Any:
        ((kind, value),) = told.items()
        if kind == "plain":
            return value
        if kind in ("tuple", "list"):
            items = [self._value(one, index) for one in value]
            return tuple(items) if kind == "tuple" else items
        if kind == "dict":
            return {name: self._value(one, index) for name, one in value.items()}
        array = self._map(self._told["same"].get(value, value))
        found = torch.from_numpy(np.array(array[index] if kind == "array" else array))
        return found.float() if found.is_floating_point() else found

    def _map(self, key: str) -> NDArray[Any]:
        if key not in self._maps:
            try:
                self._maps[key] = np.load(self._folder / f"{key}.npy", mmap_mode="r")
            except (OSError, ValueError) as error:
                raise RunError(
                    f"{self._folder / key}.npy cannot be read ({error}): remove the folder and "
                    "record it again"
                ) from error
        return self._maps[key]


def _array(value: Tensor, precision: str, key: str) -> NDArray[Any]:
    found = value.detach().cpu()
    if not found.is_floating_point():
        return np.ascontiguousarray(found.numpy())
    wide = found.float().numpy()
    # Masks are added to logits, and may be as large as they like.
    most = float(np.finfo(precision).max)
    if key.endswith((".stream", ".gives")):
        bad = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
        if bad > most:
            raise DataError(
                f"numbers of `{key}` must be at most {most:g} in {precision}, but one is {bad:g}: "
                "use precision: float32"
            )
    return np.ascontiguousarray(np.clip(wide, -most, most).astype(precision))
