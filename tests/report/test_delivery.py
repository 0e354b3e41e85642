from understudy.report.delivery import delivery
from understudy.report.record import RunRecord


def test_files_are_named_with_what_the_deployed_seed_scores(record):
    drawn = delivery(record)
    assert "from seed 4" in drawn
    assert "97.61% · 61.3 kB" in drawn
    assert "97.33% · 22.1 kB" in drawn
    assert "runs/digits/export/student.int8.onnx" in drawn


def test_without_int8_one_file_is_named(full):
    full["files"]["onnx_int8"] = None
    assert "int8" not in delivery(RunRecord(data=full))


def test_checks_are_written_in_their_units(full):
    full["budget"]["checks"] = [
        {"name": "parameters", "limit": 20_000, "measured": 14_922, "met": True},
        {"name": "bytes", "limit": 64_000, "measured": 61_300, "met": True},
        {"name": "latency_ms (batch 1, 1 threads)", "limit": 0.1, "measured": 0.2, "met": False},
        {"name": "accuracy_kept", "limit": 0.98, "measured": 0.991, "met": True},
        {"name": "something", "limit": 3, "measured": None, "met": None},
    ]
    drawn = delivery(RunRecord(data=full))
    for told in ("14.9 k", "/ 20 k", "61.3 kB", "200 µs", "/ 100 µs", "99.1%", "/ 98.0%"):
        assert told in drawn
    assert drawn.count('<li class="yes">') == 3
    assert drawn.count('<li class="no">') == 1
    assert drawn.count('<li class="open">') == 1
    assert drawn.count('class="meter"') == 4


def test_a_run_without_files_or_budget_has_neither_box():
    assert delivery(RunRecord(data={"format": 1})) == ""
