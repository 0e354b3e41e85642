"""One door to the small forms of an exported file, and the question whether they are faster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from understudy.deployed import Deployed
from understudy.export.quantize import Method, quantize_int8
from understudy.export.ranges import LearnedRange
from understudy.export.weight_only import quantize_weights

Kind = Literal["int8", "weight_int8", "weight_int4"]
ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a file is made small.

    Attributes:
        kind: `int8` rounds weights and activations; `weight_int8` and `weight_int4` round
            weights alone, those of linear layers in so many bits.
        method: how activations are calibrated, for `int8`.
        per_channel: a scale per output channel, for `int8`.
        reduce_range: seven bits for weights, for `int8`, which no processor overflows on.
        block: weights per scale, for the other two.
    """

    kind: Kind = "int8"
    method: Method = "minmax"
    per_channel: bool = True
    reduce_range: bool = True
    block: int = 32


def make_form(
    fp32: Path,
    path: Path,
    form: Form,
    *,
    rows: NDArray[Any],
    learned: Sequence[LearnedRange] = (),
) -> Path:
    """Write the small form of an exported file; the metadata is kept, with its `precision`.

    Args:
        fp32: a file written by `export_onnx`.
        path: the new file; an existing one is replaced when the new one is whole.
        form: what to make.
        rows: raw training rows `[rows, ...]`: a few hundred to calibrate `int8`, one for others.
        learned: ranges from `finish_aware`, for `int8`.

    Raises:
        DataError: there are no rows.
        ExportError: the file cannot be read, or has no such form.
        RunError: the file cannot be written.
    """
    if form.kind == "int8":
        return quantize_int8(
            fp32,
            path,
            calibration=rows,
            per_channel=form.per_channel,
            method=form.method,
            reduce_range=form.reduce_range,
            learned=learned,
        )
    bits: Literal[4, 8] = 8 if form.kind == "weight_int8" else 4
    return quantize_weights(fp32, path, bits=bits, rows=rows, block=form.block)


def speed_ratio(
    fp32: Path,
    path: Path,
    rows: NDArray[Any],
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 0.5,
) -> float:
    """How many times faster than the float file a form answers here; below 1 it is slower.

    The two take turns, and the median of the ratios of five turns counts, so that a machine that
    becomes busy in between slows both.

    Args:
        fp32: the float file.
        path: its small form.
        rows: raw rows to time with.
        batch: rows per call.
        threads: threads within a call.
        seconds: for about how long each file is timed in all.

    Raises:
        DataError: there are no rows, or they are not such as the files take.
        ExportError: a file cannot be opened.
    """
    files = [Deployed.open(one, threads=threads) for one in (fp32, path)]
    turn = seconds / ROUNDS
    ratios = []
    for _ in range(ROUNDS):
        slow, fast = (
            one.latency(rows, batch=batch, threads=threads, seconds=turn).median_ms for one in files
        )
        ratios.append(slow / fast)
    return float(np.median(ratios))
