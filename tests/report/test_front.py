import math
import re
from xml.etree import ElementTree

import pytest

from understudy.report.front import front_chart, front_lead


# The numbers are made up for the layout: they are no results of anything.
@pytest.fixture
def front():
    return {
        "along": "ms",
        "measure": "accuracy",
        "unit": "share",
        "higher_is_better": True,
        "predicted": [
            {"cost": 1.0, "value": 0.55},
            {"cost": 4.0, "value": 0.70},
            {"cost": 2.0, "value": 0.66},
        ],
        "measured": [
            {"name": "original", "role": "teacher", "cost": 4.2, "value": 0.71},
            {"name": "half", "role": "before", "cost": 2.1, "value": 0.5},
            {
                "name": "half",
                "role": "after",
                "cost": 2.1,
                "value": 0.65,
                "low": 0.64,
                "high": 0.66,
            },
            {"name": "quarter", "role": "before", "cost": 1.1, "value": 0.3},
            {"name": "scaled", "role": "baseline", "cost": 1.0, "value": 0.5},
            {"name": "scaled", "role": "baseline", "cost": 2.0, "value": 0.6},
            {"name": "pruned", "role": "baseline", "cost": 2.0, "value": 0.58},
        ],
    }


def marks(drawing, kind):
    root = ElementTree.fromstring(drawing)
    return [one for one in root.iter("g") if one.get("class") == f"mark {kind}"]


def curve_of(drawing, css):
    found = re.search(rf'class="{css}" d="M([^"]+)"', drawing)
    return [tuple(map(float, pair.split())) for pair in found[1].split("L")]


def test_every_model_has_its_mark_and_every_kind_its_name(front):
    drawing = front_chart(front)
    assert [len(marks(drawing, kind)) for kind in ("teacher", "student", "control")] == [1, 3, 3]
    for name in ("teacher", "stitched", "finetuned", "scaled", "pruned", "predicted"):
        assert drawing.count(f">{name}</text>") == 1
    # Two of the first baseline, one of the second.
    assert ["polygon" in one[1].tag for one in marks(drawing, "control")] == [True, True, False]
    assert "finetuned half: 65.00%, 2.1 ms" in drawing
    assert "<title>accuracy against latency of one row: predicted and measured</title>" in drawing


def test_the_curve_goes_from_cheap_to_dear_and_up(front):
    across, up = zip(*curve_of(front_chart(front), "curve mean student"), strict=True)
    assert list(across) == sorted(across)
    assert list(up) == sorted(up, reverse=True)


def test_equal_ratios_are_equally_far_apart_on_a_log_axis(front):
    (one, _), (two, _), (four, _) = curve_of(front_chart(front), "curve mean student")
    assert two - one == pytest.approx(four - two, abs=0.3)
    straight = front_chart(front, log_across=False)
    (one, _), (two, _), (four, _) = curve_of(straight, "curve mean student")
    assert 2 * (two - one) == pytest.approx(four - two, abs=0.3)


def test_values_can_be_on_a_log_axis_too(front):
    front["predicted"] = [{"cost": 1 + n, "value": 10.0**-n} for n in range(3)]
    front |= {"measured": [], "unit": "", "measure": "divergence", "higher_is_better": False}
    one, two, three = (
        up for _, up in curve_of(front_chart(front, log_up=True), "curve mean student")
    )
    assert two - one == pytest.approx(three - two, abs=0.3)
    assert "divergence (lower is better)" in front_chart(front)
    # Nothing at 0 fits on one.
    front["predicted"].append({"cost": 9, "value": 0.0})
    assert front_chart(front, log_up=True) == front_chart(front)


def test_a_student_is_joined_with_what_finetuning_made_of_it(front):
    drawing = front_chart(front)
    # Its interval and the way from before to after.
    assert drawing.count('class="whisker student"') == 2
    front["measured"][2]["name"] = "other"
    assert front_chart(front).count('class="whisker student"') == 1


def test_what_is_missing_or_odd_is_left_out(front):
    front["measured"] += [
        {"name": "a", "role": "after", "cost": None, "value": 0.5},
        {"name": "b", "role": "after", "cost": 1.0, "value": math.nan},
        {"name": "c", "role": "unknown", "cost": 1.0, "value": 0.5},
        "nothing",
    ]
    front["predicted"].append({"cost": 1.0})
    drawing = front_chart(front)
    assert len(marks(drawing, "student")) == 3
    assert "nan" not in drawing.lower()
    del front["predicted"]
    assert "predicted</text>" not in front_chart(front)
    del front["measured"]
    assert front_chart(front) == front_lead(front) == ""
    assert front_chart({"predicted": "all", "measured": 3}) == ""


def test_names_are_words_and_no_markup(front):
    front["measured"][4]["name"] = "<script>"
    front["along"] = "joules_per_<row>"
    drawing = front_chart(front)
    ElementTree.fromstring(drawing)
    assert "<script>" not in drawing + front_lead(front)
    assert "joules per &lt;row&gt;" in drawing


def test_one_point_alone_is_drawn(front):
    front["measured"] = front["measured"][:1]
    front["predicted"] = front["predicted"][:1]
    drawing = front_chart(front)
    assert len(marks(drawing, "teacher")) == 1
    assert 'class="curve' not in drawing


def test_the_lead_names_the_marks_that_there_are(front):
    lead = front_lead(front)
    assert lead.count("Rings") == lead.count("Discs") == 1
    assert "Squares: scaled. Empty squares: pruned." in lead
    front["measured"] = front["measured"][:1]
    assert front_lead(front) == "The line is the best predicted choice at each cost."
