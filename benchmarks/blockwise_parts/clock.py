"""Latency of whole networks as they are deployed: ONNX Runtime, one row, one thread."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from understudy.deployed import Deployed
from understudy.export.onnx import export_onnx

ROUNDS, SECONDS = 5, 0.12


def latencies(networks: Mapping[str, nn.Module], rows: Tensor, folder: Path) -> dict[str, float]:
    """Milliseconds of one call each, by name; the networks take turns.

    Each is the median of the rounds' medians, as blocks are timed by medians too.

    Args:
        networks: by name, which is good for a file.
        rows: two or more that all of them take; the first is timed.
        folder: for the files, which are removed again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        name: export_onnx(network, rows, folder / f"{name}.onnx", metadata={})
        for name, network in networks.items()
    }
    opened = {name: Deployed.open(path, threads=1) for name, path in files.items()}
    told: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(ROUNDS):
        for name, deployed in opened.items():
            found = deployed.latency(rows.numpy(), batch=1, threads=1, seconds=SECONDS)
            told[name].append(found.median_ms)
    for path in files.values():
        path.unlink()
    return {name: float(np.median(values)) for name, values in told.items()}
