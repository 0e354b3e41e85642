from xml.etree import ElementTree

from understudy.report.importance import MOST, importance_chart, importance_lead
from understudy.report.record import RunRecord


def record(blocks, by="importance") -> RunRecord:
    return RunRecord(data={"format": 1, "importance": {"by": by, "blocks": blocks}})


def block(path, score, *, kept=True, half=0.01):
    ends = {} if score is None else {"low": score - half, "high": score + half}
    return {"path": path, "score": score, "kept": kept, **ends}


def test_blocks_are_drawn_in_order_with_their_intervals():
    drawing = importance_chart(
        record([block("layer.0", 0.3), block("layer.1", 0.1, kept=False), block("layer.2", 0.2)])
    )
    ElementTree.fromstring(drawing)
    assert drawing.index("layer.0") < drawing.index("layer.1") < drawing.index("layer.2")
    assert drawing.count('class="reach"') == 3
    assert drawing.count('class="bar"') == 2
    assert drawing.count('class="bar pale"') == 1
    assert "layer.1: 0.1 [0.09, 0.11], left out" in drawing
    assert "3 blocks, of which 2 are kept" in drawing
    assert "explained variance lost without the block" in drawing


def test_longer_bars_are_more_important_and_negative_ones_go_left():
    drawing = importance_chart(record([block("a", 0.4), block("b", 0.2), block("c", -0.1)]))
    root = ElementTree.fromstring(drawing)
    bars = [bar for bar in root.iter("rect") if "bar" in bar.get("class", "")]
    wide = [float(bar.get("width", 0)) for bar in bars]
    assert wide[0] > 1.9 * wide[1] > 1.9 * 1.9 * wide[2] * 0.9
    assert float(bars[2].get("x", 0)) < float(bars[0].get("x", 0))


def test_a_block_that_cannot_go_has_a_name_and_no_bar():
    drawing = importance_chart(record([block("stem", None), block("a", 0.1)], by="skip"))
    assert drawing.count('class="bar"') == 1
    assert "must stay" in drawing
    assert "rise of the loss" in drawing


def test_of_very_many_blocks_some_are_drawn_and_that_is_said():
    many = record([block(f"layer.{i}", i / 100) for i in range(100)])
    assert importance_chart(many).count('class="bar"') == MOST
    assert f"{MOST} of 100 blocks are drawn" in importance_lead(many)


def test_names_are_made_safe():
    drawing = importance_chart(record([block("<script>&", 0.1)]))
    ElementTree.fromstring(drawing)
    assert "<script>" not in drawing


def test_what_is_missing_or_crooked_is_not_drawn():
    for blocks in ([], None, 3, [3, {"score": 1.0}], [block("a", None)]):
        assert importance_chart(record(blocks)) == ""
    assert importance_chart(RunRecord(data={"format": 1})) == ""
    assert importance_lead(RunRecord(data={"format": 1})) == ""
    odd = [{"path": "a", "score": float("nan")}, {"path": "b", "score": 0.1, "low": "x"}]
    drawing = importance_chart(record(odd))
    assert drawing.count('class="bar pale"') == 1
    assert "reach" not in drawing
