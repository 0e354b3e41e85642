import re

from understudy.report.calibration import reliability_chart, scatter_chart
from understudy.report.record import RunRecord


def test_the_distance_from_the_line_is_weighted_by_rows(full):
    full["calibration"]["student"] = [
        {"confidence": 0.9, "accuracy": 0.8, "rows": 30},
        {"confidence": 0.5, "accuracy": 0.5, "rows": 70},
    ]
    assert "off by 3.0%" in reliability_chart(RunRecord(data=full), "student")


def test_bins_without_rows_are_passed_over(full):
    full["calibration"]["student"] = [{"confidence": None, "accuracy": None, "rows": 0}]
    assert reliability_chart(RunRecord(data=full), "student") == ""
    full["calibration"] = None
    assert reliability_chart(RunRecord(data=full), "student") == ""


def test_equal_values_lie_on_the_dotted_line(regression):
    regression["scatter"] = {"student": [[0.0, 0.0], [10.0, 10.0]], "control": [[5.0, -5.0]]}
    drawing = scatter_chart(RunRecord(data=regression), "student")
    spots = re.search(r'class="dots student" d="M([\d.]+) ([\d.]+)h0M([\d.]+) ([\d.]+)h0', drawing)
    x1, y1, x2, y2 = (float(spot) for spot in spots.groups())
    assert (x1 - 50) / 290 == (300 - y1) / 270 or abs((x1 - 50) / 290 - (300 - y1) / 270) < 0.001
    assert abs((x2 - 50) / 290 - (300 - y2) / 270) < 0.001


def test_all_panels_share_their_scales_and_many_points_are_thinned(regression):
    regression["scatter"]["student"] = [[float(i), float(i)] for i in range(5000)]
    record = RunRecord(data=regression)
    student, control = (scatter_chart(record, name) for name in ("student", "control"))
    ticks = re.compile(r'class="tick"[^>]*>([^<]+)<')
    assert ticks.findall(student) == ticks.findall(control)
    assert student.count("h0") <= 600


def test_pairs_that_are_no_numbers_are_passed_over(full):
    full["scatter"] = {"student": [[1.0, None], [None, 2.0], "x", [1.0]]}
    assert scatter_chart(RunRecord(data=full), "student") == ""
