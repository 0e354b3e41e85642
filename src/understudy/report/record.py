"""The record of a run: the plain data of `run.json`, and the little object that keeps it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import RunError
from understudy.folders import read_json, write_atomic

FORMAT = 1
MODELS = ("teacher", "student", "control", "student_int8")

_VERDICT = ("word", "effect", "low", "high", "gap_closed", "within_budget")
_FILES = ("onnx", "onnx_int8", "report", "run")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a run found, as plain JSON data of format 1.

    The data is copied and made plain when the record is made: NumPy numbers and arrays become
    Python's, and a number that is not finite becomes null, since JSON has no word for it. Parts
    may be missing (no control, no int8 file, no gallery); the readers below answer with None or
    with nothing rather than fail.

    Attributes:
        data: the JSON object.

    Raises:
        RunError: the data is of another format.
    """

    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        plain = _plain(self.data)
        _check_format(plain)
        object.__setattr__(self, "data", plain)

    @classmethod
    def load(cls, path: str | Path) -> "RunRecord":
        """Read a record from a `run.json`, or from the folder of a run.

        Raises:
            RunError: there is none, it is not whole, or it is of another format.
        """
        file = Path(path) / "run.json" if Path(path).is_dir() else Path(path)
        data = read_json(file)
        if not isinstance(data, dict):
            raise RunError(
                f"a run record must be a JSON object, but {file} holds a {type(data).__name__}: "
                "name the run.json of a run, or its folder"
            )
        return cls(data=data)

    def save(self, path: str | Path) -> None:
        """Write the record, whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        write_atomic(Path(path), json.dumps(self.data, indent=1, allow_nan=False) + "\n")

    def get(self, *keys: str) -> Any:
        """The value under these keys, None where there is none."""
        value: Any = self.data
        for key in keys:
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value

    def items(self, *keys: str) -> list[Any]:
        """The list under these keys, empty where there is none."""
        value = self.get(*keys)
        return list(value) if isinstance(value, list) else []

    def number(self, *keys: str) -> float | None:
        """The number under these keys, None where there is none."""
        return as_number(self.get(*keys))

    def score(self, model: str) -> tuple[float | None, float | None, float | None]:
        """A model's primary score and the two ends of its interval."""
        keys = ("models", model, "scores", self.primary)
        value, low, high = (self.number(*keys, end) for end in ("value", "low", "high"))
        return value, low, high

    @property
    def primary(self) -> str:
        """The name of the score that the verdict is about."""
        return str(self.get("primary", "name") or "score")

    @property
    def unit(self) -> str:
        """`share` where the primary score is a share of rows, else empty."""
        return str(self.get("primary", "unit") or "")

    @property
    def higher_is_better(self) -> bool:
        """Which way the primary score counts."""
        return self.get("primary", "higher_is_better") is not False

    @property
    def models(self) -> list[str]:
        """The models there are, in the order in which they are always shown."""
        return [name for name in MODELS if isinstance(self.get("models", name), Mapping)]

    def summary(self) -> dict[str, Any]:
        """What a script wants to know of a run: scores, costs, verdict and files.

        A model that the run does not have is null, so that the keys are always the same.
        """
        deployed = ("seed", self.primary, f"{self.primary}_int8")
        return {
            **{name: self._model_summary(name) for name in MODELS},
            "deployed": {key: self.get("deployed", key) for key in deployed},
            "primary": {"name": self.primary, "higher_is_better": self.higher_is_better},
            "verdict": {key: self.get("verdict", key) for key in _VERDICT},
            "files": {key: self.get("files", key) for key in _FILES},
        }

    def _model_summary(self, name: str) -> dict[str, Any] | None:
        if name not in self.models:
            return None
        return {
            self.primary: dict(zip(("value", "low", "high"), self.score(name), strict=True)),
            "parameters": self.get("models", name, "parameters"),
            "bytes": self.get("models", name, "bytes"),
            "latency_ms": {
                key: self.get("models", name, "latency_ms", key) for key in ("batch1", "batch32")
            },
        }


def as_number(value: Any) -> float | None:
    """The value as a float where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _check_format(data: Mapping[str, Any]) -> None:
    found = data.get("format")
    if found == FORMAT and not isinstance(found, bool):
        return
    version = data.get("understudy")
    writer = f" by Understudy {version}" if isinstance(version, str) else ""
    raise RunError(
        f"`format` of a run record must be {FORMAT}, but got {found!r}, written{writer}: "
        "read it with the version that wrote it, or run its recipe again with this one"
    )


def _plain(value: Any) -> Any:
    """A copy in dicts, lists, strings and finite numbers."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a run record holds plain data, but got a {type(value).__name__}: {value!r}")
