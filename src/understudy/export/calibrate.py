"""Ranges of activations by least squares: where clipping and rounding together cost least.

The widest range clips nothing and rounds everything coarsely; one outlier sets the step for all
other numbers. The best range leaves some outliers out.

Paper:
    Choukroun, Kravchik, Yang and Kisilev 2019, "Low-bit Quantization of Neural Networks for
    Efficient Inference", section 3.1, where the range with the smallest squared error is searched
    per tensor.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from understudy.export.ranges import Range

_BINS, _STEPS, _CHUNK = 2048, 255, 32
_SHARES = np.linspace(0.1, 1.0, 37)


def least_squares_ranges(
    path: Path, rows: NDArray[Any], tensors: Sequence[str]
) -> dict[str, Range]:
    """The range per tensor of a float graph that eight bits hold with the smallest squared error.

    Args:
        path: the float file.
        rows: raw calibration rows.
        tensors: the names of float tensors in the graph that depend on the rows.
    """
    session = _session(path, tensors)
    widest: dict[str, Range] = {}
    for name, values in _answers(session, rows, tensors):
        low, high = widest.get(name, (0.0, 0.0))
        widest[name] = (min(low, float(values.min())), max(high, float(values.max())))
    counts = {name: np.zeros(_BINS, np.int64) for name in tensors}
    for name, values in _answers(session, rows, tensors):
        # Zero is held exactly by every range, and half the numbers after a ReLU are zeros.
        seen, _ = np.histogram(values[values != 0], bins=_BINS, range=_wide(widest[name]))
        counts[name] += seen
    return {name: _best(counts[name], _wide(widest[name])) for name in tensors}


def _wide(one: Range) -> Range:
    return one if one[1] > one[0] else (one[0], one[0] + 1.0)


def _best(counts: NDArray[np.int64], widest: Range) -> Range:
    edges = np.linspace(*widest, _BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    used = counts > 0
    centres, weights = centres[used], counts[used].astype(np.float64)
    lows = _SHARES * widest[0] if widest[0] < 0 else np.zeros(1)
    highs = _SHARES * widest[1] if widest[1] > 0 else np.zeros(1)
    best, smallest = widest, np.inf
    # From the widest inwards, so that of equal ranges the widest stays.
    for low in lows[::-1]:
        for high in highs[::-1]:
            error = _error(centres, weights, float(low), float(high))
            if error < smallest:
                best, smallest = (float(low), float(high)), error
    return best


def _error(
    centres: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float
) -> float:
    step = (high - low) / _STEPS
    if step <= 0:
        return float(np.inf)
    zero = np.round(-low / step)
    held = (np.clip(np.round(centres / step) + zero, 0, _STEPS) - zero) * step
    return float((weights * (centres - held) ** 2).sum())


def _session(path: Path, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    model = onnx.load(path)
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in tensors if n not in there)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _answers(
    session: onnxruntime.InferenceSession, rows: NDArray[Any], tensors: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    fed = session.get_inputs()[0].name
    for at in range(0, len(rows), _CHUNK):
        found = session.run(list(tensors), {fed: np.ascontiguousarray(rows[at : at + _CHUNK])})
        yield from zip(tensors, found, strict=True)
