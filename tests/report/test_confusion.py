import numpy as np

from understudy.report.confusion import (
    MOST_CLASSES,
    confusion_changes,
    confusion_chart,
    shown_classes,
)
from understudy.report.record import RunRecord


def test_a_table_of_few_classes_is_drawn_whole(record):
    drawing = confusion_chart(record, "student")
    assert drawing.count('class="right"') == 10
    assert drawing.count('class="wrong"') == 90


def test_of_many_classes_those_with_the_biggest_confusions_are_drawn(hundred):
    table = np.zeros((100, 100), dtype=int)
    table[77, 3] = 50
    hundred["confusion"] = {"student": table.tolist()}
    record = RunRecord(data=hundred)
    chosen = shown_classes(record)
    assert len(chosen) == MOST_CLASSES
    assert {3, 77} <= set(chosen)
    assert chosen == sorted(set(chosen))
    assert confusion_chart(record, "student").count("<rect") == MOST_CLASSES**2


def test_one_shade_means_one_number_in_every_panel(full):
    full["confusion"] = {"student": [[5, 2], [0, 5]], "control": [[5, 4], [2, 5]]}
    record = RunRecord(data=full)
    assert "fill-opacity:0.57" in confusion_chart(record, "student")
    assert "fill-opacity:0.57" in confusion_chart(record, "control")
    assert "fill-opacity:1.00" in confusion_chart(record, "control")


def test_changes_are_the_biggest_first_and_never_the_diagonal(full):
    full["task"]["classes"] = ["cat", "dog"]
    full["confusion"] = {"student": [[90, 1], [3, 80]], "control": [[10, 9], [4, 1]]}
    drawing = confusion_changes(RunRecord(data=full))
    assert drawing.index("cat → dog") < drawing.index("dog → cat")
    assert "cat taken for dog: control 9, student 1" in drawing
    assert "cat → cat" not in drawing


def test_what_is_missing_crooked_or_unchanged_is_not_drawn(full):
    assert confusion_chart(RunRecord(data={"format": 1}), "student") == ""
    assert shown_classes(RunRecord(data={"format": 1})) == []
    full["confusion"] = {"student": [[1, 2], [3]], "control": [[1, 2], [3, 4]]}
    record = RunRecord(data=full)
    assert confusion_chart(record, "student") == ""
    assert confusion_changes(record) == ""
    full["confusion"]["student"] = full["confusion"]["control"]
    assert confusion_changes(RunRecord(data=full)) == ""


def test_tables_of_other_names_and_sizes_do_no_harm(full):
    full["confusion"] = {"student": [[1, None], [0, 1]], "control": [[1]]}
    drawing = confusion_chart(RunRecord(data=full), "student")
    assert "0 taken for 1: 0" in drawing
