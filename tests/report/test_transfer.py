"""The section about another task: a chart and two tables, from numbers made up for the layout."""

import re

import pytest

from understudy.report.page import render
from understudy.report.record import RunRecord
from understudy.report.transfer import transfer


def ends(value, half=0.02):
    return {"value": value, "low": value - half, "high": value + half, "features": 64}


@pytest.fixture
def other(full):
    full["transfer"] = {
        "task": {"name": "classification", "classes": ["a", "b"], "targets": None},
        "rows": {"pool": 900, "labelled": 40, "draws": 5, "test": 800, "seen": 0},
        "score": {"name": "accuracy", "unit": "share", "higher_is_better": True},
        "models": {
            "teacher": ends(0.9), "student": ends(0.8), "control": ends(0.7), "untrained": ends(0.4)
        },
        "comparisons": {
            "student_control": {"effect": 0.1, "low": 0.06, "high": 0.14, "word": "HELPED"},
            "teacher_student": {"effect": 0.1, "low": None, "high": None, "word": "UNDECIDED"},
        },
        "verdict": {"word": "HELPED", "sentence": "The student's features are better."},
    }  # fmt: skip
    return full


def places(drawing):
    """Where the whiskers of each model begin."""
    found = re.findall(r'class="whisker (\w+)" x1="([\d.]+)"', drawing)
    return {name: float(at) for name, at in found}


def test_the_section_says_what_was_measured(other):
    text = transfer(RunRecord(data=other))
    assert "The features on another task" in text
    assert "The student&#x27;s features are better." in text
    for told in ("40 labelled rows", "5 times", "800 other rows", "80.00%", "+10.00 points"):
        assert told in text
    assert "[6.00, 14.00]" in text


def test_better_models_stand_further_right_whichever_way_the_score_counts(other):
    found = places(transfer(RunRecord(data=other)))
    assert found["untrained"] < found["control"] < found["student"] < found["teacher"]
    other["transfer"]["score"] = {"name": "rmse", "unit": "", "higher_is_better": False}
    turned = places(transfer(RunRecord(data=other)))
    assert turned["untrained"] > turned["control"] > turned["student"] > turned["teacher"]


def test_a_run_without_another_task_has_no_such_section(full):
    assert transfer(RunRecord(data=full)) == ""
    full["transfer"] = None
    assert transfer(RunRecord(data=full)) == ""
    assert "another task" not in render(RunRecord(data=full))


def test_a_score_of_zero_is_a_score(other):
    other["transfer"]["models"] = {"student": ends(0.0)}
    text = transfer(RunRecord(data=other))
    assert "mark student" in text
    assert "mark teacher" not in text


@pytest.mark.parametrize("gone", ["rows", "score", "comparisons", "verdict"])
def test_any_part_may_be_missing(other, gone):
    del other["transfer"][gone]
    assert "The features on another task" in render(RunRecord(data=other))


def test_nothing_from_the_record_becomes_markup(other):
    evil = "<script>alert(1)</script>"
    other["transfer"]["verdict"]["sentence"] = evil
    other["transfer"]["score"] |= {"name": evil, "unit": evil}
    assert "<script" not in transfer(RunRecord(data=other))
