from xml.etree import ElementTree

from understudy.report.record import RunRecord
from understudy.report.steps import plan_table, step_table


def row(name, value=0.9, *, half=0.01, parameters=1000, size=4000, one=0.2, many=2.0, zeros=None):
    score = {"value": value, "low": value - half, "high": value + half, "higher_is_better": True}
    return {
        "name": name,
        "scores": {"accuracy": score},
        "parameters": parameters,
        "flops": None,
        "bytes": size,
        "latency_ms": {"batch1": one, "batch32": many},
        "zeros": zeros,
    }


def record(steps, **more):
    primary = {"name": "accuracy", "higher_is_better": True, "unit": "%"}
    return RunRecord(data={"format": 1, "primary": primary, "steps": steps, **more})


def cells(drawing):
    """The text of every cell, row by row."""
    root = ElementTree.fromstring(drawing)
    return [["".join(cell.itertext()) for cell in line] for line in root.iter("tr")]


def test_a_row_per_step_with_every_cost_against_the_teachers():
    drawing = step_table(record([
        row("teacher", 0.95, parameters=48_000, size=200_000, one=0.4, many=8.0),
        row("1 distil", 0.94, parameters=12_000, size=50_000, one=0.1, many=4.0, zeros=0.0),
        row("int8", 0.93, parameters=12_000, size=20_000, one=0.05, many=2.0, zeros=0.504),
    ]))  # fmt: skip
    head, teacher, distil, small = cells(drawing)
    assert head[:4] == ["after", "accuracy", "parameters", "zero weights"]
    assert [line[0] for line in (teacher, distil, small)] == ["teacher", "1 distil", "int8"]
    assert "×" not in "".join(teacher)
    wanted = ("94", "12", "0%", "(4.0×)", "(4.0×)", "(2.0×)")
    for part, cell in zip(wanted, distil[1:], strict=True):
        assert part in cell
    assert small[3] == "50%"
    assert "(10.0×)" in small[4]
    assert "(8.0×)" in small[5]
    assert "[" in distil[1]
    assert "]" in distil[1]


def test_what_was_not_measured_is_a_dash_and_breaks_nothing():
    broken = {"name": "2 cut", "scores": {}, "latency_ms": None, "bytes": "many"}
    odd = row("3 distil") | {"bytes": 0, "zeros": float("nan")}
    drawing = step_table(record([row("teacher"), broken, odd, "text", None]))
    _, _, cut, distil = cells(drawing)
    assert cut[1:] == ["–"] * 6
    assert distil[3] == "–"
    assert "×" not in distil[4]


def test_a_lower_score_needs_no_interval():
    step = row("1 distil")
    del step["scores"]["accuracy"]["low"]
    assert "[" not in cells(step_table(record([row("teacher"), step])))[2][1]


def test_there_is_nothing_without_steps():
    assert step_table(record([])) == ""
    assert step_table(RunRecord(data={"format": 1})) == ""
    assert step_table(record({"a": 1})) == ""


def test_names_are_text_and_no_markup():
    drawing = step_table(record([row("teacher"), row("<script>alert(1)</script>" + "x" * 90)]))
    assert "<script" not in drawing
    ElementTree.fromstring(drawing)


def test_a_long_chain_is_shortened():
    assert step_table(record([row(f"{n} distil") for n in range(200)])).count("<tr>") < 60


def block(path, status="kept", parameters=(10, 5), flops=(100, 50), ms=(0.2, 0.1)):
    return {"path": path, "status": status, "now": path, "parameters": list(parameters),
            "flops": list(flops), "ms": list(ms)}  # fmt: skip


def test_a_plan_has_a_row_per_block_before_and_after():
    rows = [block("stages.0.0"), block("stages.0.1", "dropped", (10, 0), (100, 0), (0.2, 0.0))]
    drawing = plan_table(record([], plan={"rows": rows}))
    head, kept, dropped = cells(drawing)
    assert len(head) == len(kept) == len(dropped) == 8
    assert kept[:4] == ["stages.0.0", "kept", "10", "5"]
    assert dropped[1:4] == ["dropped", "10", "0"]


def test_a_broken_plan_breaks_nothing():
    rows = [{"path": "<b>", "parameters": 3, "ms": None}, 7]
    drawing = plan_table(record([], plan={"rows": rows}))
    assert "<b>" not in drawing
    assert cells(drawing)[1][2:] == ["–"] * 6
    assert plan_table(record([])) == plan_table(record([], plan=None)) == ""
