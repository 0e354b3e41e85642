"""Token classification: the laws at positions, then what is particular to words."""

import numpy as np
import pytest
import torch

from conformance.task import TaskCase, TaskLaws
from understudy.tasks import Classification, PerToken, TokenClassification

CLASSES = ("ant", "bee", "cat")
TASK = TokenClassification(classes=CLASSES)


class TestTokenClassification(TaskLaws):
    @pytest.fixture
    def case(self):
        return TaskCase(
            task=TASK,
            labels=lambda rows, generator: torch.randint(3, (rows,), generator=generator),
            perfect=lambda labels: 100.0 * torch.nn.functional.one_hot(labels, 3),
            unlabelled=-1,
            nearly=1e-6,
        )


def test_it_is_asked_once_per_token_and_scored_by_every_class():
    assert isinstance(TASK, PerToken)
    assert not isinstance(Classification(classes=CLASSES), PerToken)
    assert (TASK.name, TASK.output, TASK.width) == ("token_classification", "logits", 3)
    assert [score.name for score in TASK.scores][:2] == ["macro_f1", "accuracy"]
    answers = torch.randn(4, 3)
    assert TASK.condensed(answers, torch.zeros(4, dtype=torch.int64)) is answers


def test_a_text_is_labelled_where_one_of_its_words_is():
    labels = np.array([[-1, 2], [-1, -1]])
    assert TASK.labelled_rows(labels).tolist() == [True, False]
    assert TASK.labelled(torch.from_numpy(labels)).tolist() == [[False, True], [False, False]]
