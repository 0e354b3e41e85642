"""What a teacher says of single tokens."""

import numpy as np
import pytest

from understudy.errors import ModelError
from understudy.students.static import single_token_vectors


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_every_token_is_asked_once_between_the_marks(batch):
    asked = []

    def teacher(rows):
        asked.append(rows)
        return (rows[:, [2, 0]] * 2.0).astype(np.float32)

    found = single_token_vectors(teacher, vocabulary=7, before=(8, 9), after=(5,), batch=batch)
    rows = np.concatenate(asked)
    assert rows.tolist() == [[8, 9, token, 5] for token in range(7)]
    assert found.dtype == np.float32
    assert found.tolist() == [[2.0 * token, 16.0] for token in range(7)]
    assert max(len(one) for one in asked) <= batch


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: np.ones((len(rows), 4, 2), np.float32),
        lambda rows: np.ones((1, 2), np.float32),
        lambda rows: np.full((len(rows), 2), np.nan, np.float32),
    ],
)
def test_an_answer_that_is_no_vector_per_text_is_refused(answer):
    with pytest.raises(ModelError, match="one row of finite numbers per text"):
        single_token_vectors(answer, vocabulary=5)
