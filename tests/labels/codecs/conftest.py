"""Shared by the tests of codecs: independent float64 distributions, and lists made dense."""

import numpy as np
import pytest

# The laws live outside test files, so their asserts would otherwise fail without the values.
pytest.register_assert_rewrite("conformance.codec")


@pytest.fixture
def masses():
    """Softmax in float64."""

    def softmax(logits):
        shifted = np.asarray(logits, np.float64)
        shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    return softmax


@pytest.fixture
def spread_out():
    """Mass of each class `[positions, classes]` float64, 0 where it is not listed."""

    def dense(outcomes):
        found = np.zeros((len(outcomes), outcomes.classes + 1))
        ids = np.where(outcomes.ids < 0, outcomes.classes, outcomes.ids)
        np.put_along_axis(found, ids, np.exp(outcomes.log_mass.double().numpy()), axis=1)
        return found[:, :-1]

    return dense


@pytest.fixture
def zipf():
    """Logits with a heavy tail in a random order, `[rows, classes]` float32."""

    def draw(rows, classes, *, seed=0, power=1.5):
        generator = np.random.default_rng(seed)
        base = -power * np.log(np.arange(1, classes + 1))
        found = np.stack([generator.permutation(base) for _ in range(rows)])
        return (found + generator.normal(0, 0.5, found.shape)).astype(np.float32)

    return draw
