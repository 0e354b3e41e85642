import json
import math
from pathlib import Path

import numpy as np
import pytest

from understudy.errors import RunError
from understudy.report.record import RunRecord


def test_what_is_saved_is_loaded_again_from_the_file_and_from_its_folder(record, tmp_path):
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == record
    assert RunRecord.load(tmp_path) == record


def test_numbers_that_are_not_finite_are_written_as_null(full, tmp_path):
    full["verdict"]["effect"] = math.nan
    full["models"]["teacher"]["scores"]["accuracy"]["low"] = -math.inf
    full["curves"][0]["points"][0]["validation"] = np.float32("nan")
    full["extra"] = np.array([1.0, np.nan])
    RunRecord(data=full).save(tmp_path / "run.json")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} stands in the file")

    text = (tmp_path / "run.json").read_text()
    read = json.loads(text, parse_constant=refuse)
    assert read["verdict"]["effect"] is None
    assert read["models"]["teacher"]["scores"]["accuracy"]["low"] is None
    assert read["curves"][0]["points"][0]["validation"] is None
    assert read["extra"] == [1.0, None]


def test_a_nan_that_somebody_else_wrote_is_read_as_nothing(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1, "verdict": {"effect": NaN}}')
    assert RunRecord.load(tmp_path).number("verdict", "effect") is None


def test_saving_leaves_nothing_but_the_file(record, tmp_path):
    record.save(tmp_path / "run.json")
    record.save(tmp_path / "run.json")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_does_not_change_with_the_data_it_was_made_from(full):
    record = RunRecord(data=full)
    full["name"] = "another"
    full["seeds"].append(99)
    assert record.get("name") != "another"
    assert 99 not in record.items("seeds")


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_format_is_refused_with_what_to_do(version, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": version, "understudy": "9.9"}))
    with pytest.raises(
        RunError, match=r"`format` of a run record must be 1, but got .* by Underst"
    ):
        RunRecord.load(tmp_path / "run.json")
    with pytest.raises(RunError, match="run its recipe again"):
        RunRecord(data={"format": version})


def test_what_is_no_record_is_refused(tmp_path):
    with pytest.raises(RunError, match="cannot be read"):
        RunRecord.load(tmp_path / "run.json")
    (tmp_path / "run.json").write_text('{"format": 1')
    with pytest.raises(RunError, match="cannot be read"):
        RunRecord.load(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(RunError, match=r"must be a JSON object, but .* holds a list"):
        RunRecord.load(tmp_path)


def test_only_plain_data_can_be_recorded():
    assert RunRecord(data={"format": 1, "path": Path("a/b")}).get("path") == "a/b"
    with pytest.raises(TypeError, match="plain data, but got a set"):
        RunRecord(data={"format": 1, "things": {1, 2}})


def test_the_summary_has_exactly_the_promised_keys(record):
    summary = record.summary()
    assert list(summary) == [
        "teacher", "student", "control", "student_int8", "deployed", "primary", "verdict", "files"
    ]  # fmt: skip
    for name in ("teacher", "student", "control", "student_int8"):
        assert set(summary[name]) == {"accuracy", "parameters", "bytes", "latency_ms"}
        assert set(summary[name]["accuracy"]) == {"value", "low", "high"}
        assert set(summary[name]["latency_ms"]) == {"batch1", "batch32"}
    assert set(summary["deployed"]) == {"seed", "accuracy", "accuracy_int8"}
    assert summary["primary"] == {"name": "accuracy", "higher_is_better": True}
    assert set(summary["verdict"]) == {
        "word", "effect", "low", "high", "gap_closed", "within_budget"
    }  # fmt: skip
    assert set(summary["files"]) == {"onnx", "onnx_int8", "report", "run"}


def test_the_summary_holds_the_numbers_of_the_record(record):
    summary = record.summary()
    assert summary["student"]["accuracy"]["value"] == 0.9744
    assert summary["teacher"]["bytes"] == 1_351_000
    assert summary["deployed"] == {"seed": 4, "accuracy": 0.9761, "accuracy_int8": 0.9733}
    assert summary["verdict"]["word"] == "HELPED"
    json.dumps(summary, allow_nan=False)


def test_models_that_are_missing_are_null_in_the_summary(full):
    del full["models"]["control"], full["models"]["student_int8"]
    summary = RunRecord(data=full).summary()
    assert summary["control"] is None
    assert summary["student_int8"] is None


def test_the_summary_of_a_regression_uses_its_own_score(regression):
    summary = RunRecord(data=regression).summary()
    assert summary["student"]["rmse"]["value"] == 41.4
    assert summary["deployed"] == {"seed": 1, "rmse": 41.2, "rmse_int8": None}
    assert summary["primary"]["higher_is_better"] is False


def test_an_empty_record_answers_with_nothing():
    record = RunRecord(data={"format": 1})
    assert record.get("models", "student", "bytes") is None
    assert record.items("curves") == []
    assert record.models == []
    assert record.score("student") == (None, None, None)
    assert record.summary()["student"] is None
