import json

import numpy as np
import pytest

from understudy.deployed import answers
from understudy.errors import ExportError

CLASSES = {"task": "classification", "classes": ["ant", "bee", "cat", "dog"]}


def test_a_class_comes_with_its_softmax_probability(opened):
    logits = np.log(np.array([[0.1, 0.6, 0.25, 0.05]], np.float32))
    (answer,) = answers(logits, opened(metadata=CLASSES), top=2)
    assert answer["class"] == "bee"
    assert answer["probability"] == pytest.approx(0.6)
    assert [one["class"] for one in answer["top"]] == ["bee", "cat"]
    assert [one["probability"] for one in answer["top"]] == pytest.approx([0.6, 0.25])


def test_probabilities_of_all_classes_add_up_to_one_also_for_huge_logits(opened):
    (answer,) = answers(np.array([[1e4, -1e4, 1e4, 0.0]]), opened(metadata=CLASSES), top=9)
    assert sum(one["probability"] for one in answer["top"]) == pytest.approx(1.0)
    assert [one["class"] for one in answer["top"]][:2] == ["ant", "cat"]


def test_a_shift_of_all_logits_changes_nothing(opened):
    logits = np.random.default_rng(0).normal(size=(5, 4))
    deployed = opened(metadata=CLASSES)
    for one, other in zip(answers(logits, deployed), answers(logits + 7.0, deployed), strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"])


def test_a_classifier_without_names_answers_with_numbers_of_classes(opened):
    deployed = opened(metadata={"task": "classification"})
    assert answers(np.array([[0.0, 3.0, 1.0]]), deployed)[0]["class"] == "1"


def test_targets_come_by_name(opened):
    deployed = opened(metadata={"task": "regression", "targets": ["price", "area"]})
    assert answers(np.array([[1.5, 2.0], [3.0, 4.0]], np.float32), deployed) == [
        {"values": {"price": 1.5, "area": 2.0}},
        {"values": {"price": 3.0, "area": 4.0}},
    ]


def test_a_foreign_file_answers_with_numbered_values(opened):
    assert answers(np.array([[1.5, 2.0]]), opened()) == [{"values": {"0": 1.5, "1": 2.0}}]


def test_answers_are_plain_json(opened):
    outputs = np.ones((2, 4), np.float32)
    for metadata in (CLASSES, {"task": "regression"}):
        found = answers(outputs, opened(metadata=metadata))
        assert json.loads(json.dumps(found)) == found


def test_no_rows_give_no_answers(opened):
    assert answers(np.empty((0, 4), np.float32), opened(metadata=CLASSES)) == []


@pytest.mark.parametrize("shape", [(2, 3), (2,), (2, 4, 1)])
def test_outputs_of_another_width_than_the_classes_are_an_error(opened, shape):
    with pytest.raises(ExportError, match="one number for each of the classes") as caught:
        answers(np.zeros(shape), opened(metadata=CLASSES))
    assert f"names 4 and answered {list(shape)}" in str(caught.value)
