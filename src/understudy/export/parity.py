"""Does the file answer as the module did? Asked of the file itself, on real rows."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed import Deployed
from understudy.errors import ExportError


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How near a file's answers are to its module's.

    Attributes:
        max_abs_difference: the largest difference of two numbers; infinite where one is no number.
        same_argmax: the share of rows whose largest number is in the same column, 0 to 1; None
            for regression and for a single column, where that means nothing.
        rows: how many rows were compared.
    """

    max_abs_difference: float
    same_argmax: float | None
    rows: int


def check_parity(
    module_outputs: NDArray[Any],
    path: Path,
    rows: NDArray[Any],
    *,
    atol: float,
    rtol: float,
    ask: Callable[[Deployed], NDArray[Any]] | None = None,
) -> Parity:
    """Compare a file with the outputs `[rows, width]` of the module it was made from.

    Args:
        module_outputs: what the module answered to these rows.
        path: the file, float or int8.
        rows: raw rows.
        atol: how far a number may be off in any case. An int8 file is only reported on, with
            `atol=inf`: rounding is what it is for, and its price is for the evaluation to tell.
        rtol: how far it may be off besides, as a share of the module's number.
        ask: how the file is asked for these rows, where it answers once per token and the outputs
            are of the positions that count, `[positions, width]`.

    Raises:
        ExportError: the file's answers differ by more, or have another shape.
        DataError: the file does not take these rows.
    """
    deployed = Deployed.open(path)
    expected = np.asarray(module_outputs, np.float64)
    found = (deployed.predict(rows) if ask is None else ask(deployed)).astype(np.float64)
    if found.shape != expected.shape or len(expected) == 0:
        raise ExportError(
            f"file and module must answer the same rows, at least one, but {path.name} answered "
            f"{list(found.shape)} and the module {list(expected.shape)}; pass the outputs for "
            "these very rows"
        )
    with np.errstate(invalid="ignore"):
        difference = np.nan_to_num(np.abs(found - expected), nan=inf, posinf=inf)
        allowed = atol + rtol * np.abs(np.nan_to_num(expected, posinf=0.0, neginf=0.0))
    outside: NDArray[np.bool_] = np.asarray(difference > allowed)
    if outside.any() and inf not in (atol, rtol):
        bad = np.asarray(outside.reshape(len(outside), -1).any(axis=1))
        raise ExportError(
            f"an exported model must answer as its module does, within {atol:g} + {rtol:g} of the "
            f"number, but {path.name} is off by up to {difference.max():.3g} in {int(bad.sum())} "
            f"of {len(bad)} rows, first in row {int(bad.argmax())}; look for numbers that "
            "are not finite, and for randomness or a dependence on the batch in its `forward`"
        )
    plain = expected.shape[-1] == 1 or deployed.task == "regression"
    return Parity(
        max_abs_difference=float(difference.max()),
        same_argmax=None if plain else float((found.argmax(-1) == expected.argmax(-1)).mean()),
        rows=len(rows),
    )
