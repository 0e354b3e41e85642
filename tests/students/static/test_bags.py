"""The sparse matrix of texts and tokens: its products are those of the dense one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import DataError
from understudy.students.static import Bags

VOCABULARY = 6
texts = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), max_size=5), min_size=1, max_size=7
).filter(any)


def dense(ids, weights):
    found = np.zeros((len(ids), VOCABULARY))
    for row, tokens in enumerate(ids):
        for token in tokens:
            found[row, token] += weights[token]
    sums = found.sum(axis=1, keepdims=True)
    return found / np.where(sums > 0, sums, 1)


@given(ids=texts, seed=st.integers(0, 999), one_is_nothing=st.booleans())
def test_both_products_are_those_of_the_dense_matrix(ids, seed, one_is_nothing):
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.1, 2, VOCABULARY).astype(np.float32)
    weights[0] = 0.0 if one_is_nothing else weights[0]
    bags, matrix = Bags(ids, vocabulary=VOCABULARY, weights=weights), dense(ids, weights)
    tokens = generator.standard_normal((VOCABULARY, 3)).astype(np.float32)
    rows = generator.standard_normal((len(ids), 3)).astype(np.float32)
    np.testing.assert_allclose(
        bags.of_tokens(torch.from_numpy(tokens)), matrix @ tokens, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        bags.of_texts(torch.from_numpy(rows)), matrix.T @ rows, rtol=1e-4, atol=1e-5
    )


def test_squares_are_the_diagonal_where_no_token_repeats_in_a_text():
    ids = [[0, 1], [1, 2, 3], [5], []]
    matrix = dense(ids, np.ones(VOCABULARY))
    bags = Bags(ids, vocabulary=VOCABULARY)
    np.testing.assert_allclose(bags.squares(), np.diag(matrix.T @ matrix), rtol=1e-6)
    assert bags.counts.tolist() == [1, 2, 1, 1, 0, 1]
    assert (bags.texts, bags.vocabulary) == (4, VOCABULARY)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[], []], "no text has any"),
        ([], "no text has any"),
        ([[0, 6]], "go from 0 to 6"),
        ([[-1, 2]], "go from -1 to 2"),
    ],
)
def test_tokens_that_are_not_there_are_refused(ids, said):
    with pytest.raises(DataError, match=said):
        Bags(ids, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    "weights", [np.ones(5), np.array([1, 1, -1, 1, 1, 1]), np.array([1, 1, np.nan, 1, 1, 1])]
)
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="`weights` must be 6 numbers of 0 or more"):
        Bags([[0]], vocabulary=VOCABULARY, weights=weights.astype(np.float32))
