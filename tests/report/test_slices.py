from understudy.report.record import RunRecord
from understudy.report.slices import MOST, slice_chart


def test_bars_are_in_order_and_named_by_who_is_better(full):
    row = {"rows": 9, "student": 0.8, "control": 0.9}
    full["slices"] = [
        row | {"name": "worse", "difference": -0.1, "low": -0.2, "high": -0.05},
        row | {"name": "better", "student": 1.0, "difference": 0.1, "low": -0.1, "high": 0.3},
    ]
    drawing = slice_chart(RunRecord(data=full))
    assert drawing.index(">better<") < drawing.index(">worse<")
    assert '<g class="student"><title>better: student 100.00%, control 90.00%, 9 rows' in drawing
    assert '<g class="control"><title>worse' in drawing


def test_a_bar_is_pale_where_its_interval_holds_zero_or_is_missing(full):
    row = {"name": "a", "rows": 9, "student": 0.9, "control": 0.8, "difference": 0.1}
    for ends, pale in (((-0.1, 0.2), True), ((0.05, 0.2), False), ((None, None), True)):
        full["slices"] = [row | {"low": ends[0], "high": ends[1]}]
        assert ("bar pale" in slice_chart(RunRecord(data=full))) == pale


def test_of_many_slices_the_ends_are_drawn(hundred):
    drawing = slice_chart(RunRecord(data=hundred))
    assert drawing.count('class="bar') == MOST
    assert "80 more between" in drawing


def test_without_slices_there_is_no_figure(full):
    full["slices"] = []
    assert slice_chart(RunRecord(data=full)) == ""
    full["slices"] = [{"name": "a", "difference": None}]
    assert slice_chart(RunRecord(data=full)) == ""
