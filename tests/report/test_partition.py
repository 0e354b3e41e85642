"""The drawing of the blocks of a network."""

import re
from xml.etree import ElementTree

import pytest

from understudy.report.partition import MOST, partition_chart, partition_lead


def block(name, ms, parameters=1200, **more):
    return {"name": name, "ms": ms, "parameters": parameters, "flops": 2_000_000, **more}


def data(*blocks, rest=None):
    return {"kind": "partition", "blocks": list(blocks), "rest": rest}


def boxes(chart):
    """Start and width of every box."""
    root = ElementTree.fromstring(chart)
    rects = [one for one in root.iter() if one.tag.endswith("rect")]
    return [(float(one.get("x")), float(one.get("width"))) for one in rects]


def test_a_box_is_as_wide_as_its_time_and_begins_where_the_one_before_ends():
    chart = partition_chart(data(block("a", 1.0), block("b", 3.0), rest=block("", 2.0)))
    (x1, w1), (x2, w2), (x3, w3) = boxes(chart)
    assert w2 == pytest.approx(3 * w1, abs=0.3)
    assert w3 == pytest.approx(2 * w1, abs=0.3)
    assert x2 == pytest.approx(x1 + w1, abs=0.2)
    assert x3 == pytest.approx(x2 + w2, abs=0.2)
    assert chart.count("bar pale") == 1
    assert "ms per row" in chart


def test_parameters_shapes_and_names_are_told():
    chart = partition_chart(data(block("stages.0<", 1.0, 54_321, takes=[4, 8], gives=[8, 4])))
    assert "54.3 k" in chart
    assert "4×8 to 8×4" in chart
    assert "stages.0&lt;" in chart


def test_operations_are_drawn_where_nothing_was_measured():
    chart = partition_chart(data(block("a", None), block("b", 1.0)))
    assert "MFLOPs per row" in chart
    (_, first), (_, second) = boxes(chart)
    assert first == pytest.approx(second, abs=0.2)


def test_of_many_blocks_neighbours_are_drawn_together():
    many = [block(f"layer.{number}", 1.0) for number in range(2 * MOST)]
    chart = partition_chart(data(*many))
    assert len(boxes(chart)) == MOST
    assert "layer.0 +1" in chart
    assert len(set(re.findall(r">2\.4 k<|>2,400<", chart))) == 1
    assert f"in {MOST} boxes" in partition_lead(data(*many))


def test_without_blocks_there_is_nothing():
    for one in ({}, {"blocks": []}, {"blocks": None, "rest": {}}, {"blocks": ["x"]}):
        assert partition_chart(one) == ""
        assert partition_lead(one) == ""


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), "x"])
def test_times_that_cannot_be_drawn_do_no_harm(ms):
    chart = partition_chart(data(block("a", ms), rest={"ms": ms}))
    ElementTree.fromstring(chart)
    assert "nan" not in chart
