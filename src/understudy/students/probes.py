"""A linear probe: what can be read off frozen vectors by a straight cut."""

from warnings import catch_warnings, simplefilter

import numpy as np
from jaxtyping import Float, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

# Weak, as vectors of length 1 are short; the same for every model that is compared.
_INVERSE_PENALTY = 10.0


def probe_hits(
    vectors: Float[np.ndarray, " rows width"],
    labels: Int64[np.ndarray, " rows"],
    test_vectors: Float[np.ndarray, " test_rows width"],
    test_labels: Int64[np.ndarray, " test_rows"],
) -> Float[np.ndarray, " test_rows"]:
    """1 where a logistic regression on the first vectors tells a test row's class, else 0.

    Vectors are taken as they are, the penalty is 1 / 10, and nothing is chosen by the test rows.

    Args:
        vectors: that it is fitted on.
        labels: their classes, two or more different ones.
        test_vectors: that it is judged by.
        test_labels: their classes.

    Example:
        >>> rows = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> probe_hits(rows, np.array([0, 1]), rows, np.array([0, 0])).tolist()
        [1.0, 0.0]
    """
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1_000).fit(vectors, labels)
    return np.asarray(model.predict(test_vectors) == test_labels, np.float64)
