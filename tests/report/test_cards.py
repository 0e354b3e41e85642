import pytest

from understudy.report.cards import card
from understudy.report.record import RunRecord


@pytest.fixture
def row():
    return {
        "id": 7, "label": "2", "image": None, "values": None, "why": "the 2 that looks like a 3",
        "teacher": [0, 0, 0.6, 0.4, 0, 0, 0, 0, 0, 0],
        "student": [0, 0, 0.7, 0.3, 0, 0, 0, 0, 0, 0],
        "control": [0, 0, 0.1, 0.0, 0, 0, 0, 0, 0.9, 0],
    }  # fmt: skip


def test_a_card_shows_the_classes_that_any_model_speaks_of(record, row):
    drawn = card(record, row)
    for name in ("2", "3", "8"):
        assert f">{name}</text>" in drawn
    assert drawn.count('class="track"') == 9
    assert "control: 8 90.0%" in drawn


def test_the_true_class_is_marked(record, row):
    assert 'class="tick name true" text-anchor="end">2<' in card(record, row)


def test_a_card_without_control_image_or_label_is_drawn(record, row):
    row |= {"control": None, "label": None, "id": None}
    drawn = card(record, row)
    assert "no label" in drawn
    assert '<g class="control">' not in drawn
    assert "<img" not in drawn


def test_answers_that_are_missing_or_short_do_no_harm(record, row):
    row |= {"label": "9", "teacher": [0.5, None], "student": []}
    assert "<svg" in card(record, row)
    row |= {"teacher": None, "student": None, "control": None}
    assert "<svg" not in card(record, row)


def test_values_are_listed_and_counted(record, row):
    row["values"] = {f"column {i}": i / 3 for i in range(9)}
    drawn = card(record, row)
    assert "<dt>column 5</dt><dd>1.667</dd>" in drawn
    assert "and 3 more" in drawn


def test_predictions_stand_on_a_line_with_the_measured_value(regression):
    record = RunRecord(data=regression)
    drawn = card(record, record.items("gallery")[0])
    assert drawn.count('class="measured"') == 2
    assert drawn.count('class="mark ') == 6
    assert ">bikes<" in drawn


def test_a_label_that_is_no_number_is_no_stroke(regression):
    regression["gallery"][0]["label"] = "unknown"
    record = RunRecord(data=regression)
    assert 'class="measured"' not in card(record, record.items("gallery")[0])
