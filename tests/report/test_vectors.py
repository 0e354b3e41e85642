"""The section about vectors: a table of what they are good for, from numbers made up for it."""

import pytest

from understudy.report.page import render
from understudy.report.record import RunRecord
from understudy.report.vectors import vectors


def ends(value):
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "per_seed": [value]}


@pytest.fixture
def judged(full):
    every = {"teacher": ends(0.8), "student": ends(0.7), "control": ends(0.5)}
    full["vectors"] = {
        "pairs": {
            "rows": 1379,
            "models": every,
            "kept": {"value": 0.875, "low": 0.86, "high": 0.89},
        },
        "probes": [{"name": "a<b", "rows": 40, "test": 20, "classes": ["x", "y"], "models": every}],
    }
    for name, model in full["models"].items():
        likeness = {"teacher": 1.0, "student": 0.9}.get(name, 0.1)
        model["scores"]["teacher_cosine"] = {"value": likeness, "low": None, "high": None}
    return full


def test_every_model_stands_in_the_table_with_all_that_was_asked(judged):
    section = vectors(RunRecord(judged))
    assert "1,379 pairs" in section
    assert "87.50% [86.00, 89.00]" in section
    assert "0.7 [0.68, 0.72]" in section
    assert "70.00% [68.00, 72.00]" in section
    assert "a&lt;b, accuracy" in section
    assert section.count("<tr>") == 4
    assert "without any training" in section
    assert "What the vectors are good for" in render(RunRecord(judged))


def test_without_pairs_the_probes_are_left_and_without_both_nothing(judged):
    judged["vectors"]["pairs"] = None
    section = vectors(RunRecord(judged))
    assert "Spearman" not in section
    assert "accuracy" in section
    judged["vectors"] = None
    assert vectors(RunRecord(judged)) == ""
