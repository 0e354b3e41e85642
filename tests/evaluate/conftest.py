"""What the tests of this room share."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark that simulates verdicts, so that tests and manual measure the same thing."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("verdict_simulation")


@pytest.fixture
def table():
    """Differences `[seeds, rows]` with an effect and noise of seeds, rows and cells."""

    def make(seeds=5, rows=200, *, effect=0.0, seed_noise=0.0, row_noise=0.0, noise=1.0, seed=0):
        rng = np.random.default_rng(seed)
        return (
            effect
            + seed_noise * rng.normal(size=(seeds, 1))
            + row_noise * rng.normal(size=(1, rows))
            + noise * rng.normal(size=(seeds, rows))
        )

    return make
