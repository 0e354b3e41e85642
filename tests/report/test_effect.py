import re

import pytest

from understudy.report.effect import effect_chart, gap_chart
from understudy.report.record import RunRecord


def x_of(drawing, css):
    found = re.search(rf'<line class="{css}" x1="([\d.]+)"', drawing)
    return float(found.group(1))


def test_an_effect_that_helps_is_right_of_zero_whichever_way_the_score_counts(full, regression):
    for data in (full, regression):
        drawing = effect_chart(RunRecord(data=data))
        assert x_of(drawing, "estimate") > x_of(drawing, "zero")
        assert drawing.count("<circle") == 5


def test_seeds_lie_on_the_side_of_their_effect(regression):
    drawing = effect_chart(RunRecord(data=regression))
    rings = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawing)]
    assert min(rings) > x_of(drawing, "zero")


def test_the_verdicts_own_effect_of_each_seed_is_drawn_where_there_is_one(full):
    full["verdict"]["per_seed"] = [0.01, 0.02, None]
    assert effect_chart(RunRecord(data=full)).count("<circle") == 2


def test_an_effect_that_harms_is_left_of_zero(full):
    full["verdict"] |= {"effect": -0.02, "low": -0.03, "high": -0.01}
    drawing = effect_chart(RunRecord(data=full))
    assert x_of(drawing, "estimate") < x_of(drawing, "zero")
    assert "−2.00 points" in drawing


def test_without_an_effect_there_is_no_figure_and_without_an_interval_no_bar(full):
    full["verdict"] |= {"low": None, "high": None}
    assert 'class="interval"' not in effect_chart(RunRecord(data=full))
    full["verdict"]["effect"] = None
    assert effect_chart(RunRecord(data=full)) == ""
    assert effect_chart(RunRecord(data={"format": 1})) == ""


def test_an_effect_of_exactly_nothing_is_drawn(full):
    full["verdict"] |= {"effect": 0.0, "low": 0.0, "high": 0.0, "margin": 0.0}
    for name in ("student", "control"):
        full["models"][name]["per_seed"] = {"accuracy": [0.5, None]}
    assert "+0.00 points" in effect_chart(RunRecord(data=full))


@pytest.mark.parametrize("missing", ["control", "teacher", "student"])
def test_the_gap_is_drawn_of_what_there_is(full, missing):
    del full["models"][missing]
    drawing = gap_chart(RunRecord(data=full))
    assert f"mark {missing}" not in drawing
    assert drawing.count('class="mark ') == 2


def test_one_model_has_no_gap(full):
    full["models"] = {"student": full["models"]["student"]}
    assert gap_chart(RunRecord(data=full)) == ""
