import re

from understudy.report.record import RunRecord
from understudy.report.tables import legend, side_by_side, timings


def rows(table):
    found = {}
    for row in re.findall(r"<tr role=.row.>(.*?)</tr>", table)[1:]:
        name = re.search(r"<th[^>]*>([^<]*)", row).group(1)
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        found[name] = [re.sub(r"<[^>]+>", " ", cell).split() for cell in cells]
    return found


def test_the_primary_score_comes_first_then_every_other(record):
    names = list(rows(side_by_side(record)))
    assert names[:4] == ["accuracy ↑", "nll ↓", "calibration error ↓", "agreement ↑"]
    assert names[4:7] == ["parameters", "operations per row", "size of the file"]


def test_costs_are_held_against_the_teacher_and_it_against_nothing(record):
    found = rows(side_by_side(record))
    teacher, student, _, int8 = found["size of the file"]
    assert teacher == ["1.35", "MB"]
    assert student == ["61.3", "kB", "22×", "smaller"]
    assert int8 == ["22.1", "kB", "61×", "smaller"]


def test_what_a_model_does_not_have_is_a_dash(record):
    assert rows(side_by_side(record))["agreement ↑"][0] == ["–"]


def test_rows_that_no_model_has_are_left_out(full):
    for model in full["models"].values():
        model |= {"flops": None, "peak_memory_mb": None, "seconds": None, "runtime": None}
    found = rows(side_by_side(RunRecord(data=full)))
    assert not {"operations per row", "peak memory", "training", "measured in"} & set(found)


def test_without_a_teacher_there_are_no_ratios(full):
    del full["models"]["teacher"]
    table = side_by_side(RunRecord(data=full))
    assert "smaller" not in table
    assert "61.3 kB" in table


def test_every_timing_has_a_row(record):
    table = timings(record)
    assert table.count("<tr>") == 1 + 4 * 4
    assert timings(RunRecord(data={"format": 1})) == ""


def test_a_legend_names_the_marks():
    drawn = legend("student", "control")
    assert drawn.count("<svg") == 2
    assert "student</span>" in drawn
