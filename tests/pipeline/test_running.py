"""A run from the recipe to the record, again, and after a change."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from understudy import recipe as recipes
from understudy.deployed import Deployed
from understudy.pipeline import run
from understudy.report.record import RunRecord


class Lines:
    """Progress that remembers."""

    def __init__(self):
        self.said, self.tracked = [], []

    def say(self, line):
        self.said.append(line)

    def track(self, name, total, unit):
        from contextlib import nullcontext

        self.tracked.append(name)
        return nullcontext(lambda done, note="": None)


def test_a_run_leaves_a_record_a_report_and_the_files_to_deploy(finished):
    folder, record = finished
    summary = record.summary()
    assert set(summary) >= {
        "teacher",
        "student",
        "control",
        "student_int8",
        "deployed",
        "primary",
        "verdict",
        "files",
    }
    for model in ("teacher", "student", "control", "student_int8"):
        score = summary[model]["accuracy"]
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
        assert summary[model]["parameters"] > 0
        assert summary[model]["bytes"] > 0
        assert summary[model]["latency_ms"]["batch1"] > 0
    for path in summary["files"].values():
        assert Path(path).is_file()
    assert (folder / "report.html").stat().st_size < 1_500_000
    assert not (folder / ".work").exists()


def test_two_seeds_are_never_a_verdict(finished):
    assert finished[1].summary()["verdict"]["word"] == "UNDECIDED"


def test_the_deployed_file_answers_what_the_record_says(finished):
    folder, record = finished
    answers = load_file(folder / "evaluate" / "answers.safetensors")
    session = Deployed.open(folder / "export" / "student.onnx")
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = digits.images[answers["positions"]].astype(np.uint8)[..., None]
    labels = digits.target[answers["positions"]]
    accuracy = float((session.predict(rows).argmax(axis=1) == labels).mean())
    assert accuracy == pytest.approx(record.summary()["deployed"]["accuracy"])


def test_student_and_control_start_from_the_same_weights_and_take_the_same_steps(finished):
    folder, _ = finished
    for seed in (0, 1):
        histories = [
            json.loads((folder / "distil" / f"{arm}-{seed}" / "history.json").read_text())
            for arm in ("student", "control")
        ]
        assert [p["step"] for p in histories[0]] == [p["step"] for p in histories[1]]


def test_test_rows_are_in_no_other_split(finished):
    splits = load_file(finished[0] / "data" / "splits.safetensors")
    test = set(splits["test"].tolist())
    assert not test & set(splits["train"].tolist())
    assert not test & set(splits["validation"].tolist())


def test_labels_are_stored_for_training_rows_alone(finished):
    folder, _ = finished
    stored = load_file(folder / "labels" / "shard-00000.safetensors")
    splits = load_file(folder / "data" / "splits.safetensors")
    assert sorted(stored["ids"].tolist()) == sorted(splits["train"].tolist())


def test_running_again_does_nothing_and_says_so(copy_of):
    recipe, place = recipes.load(copy_of / "recipe.yaml")
    before = {p: p.stat().st_mtime_ns for p in copy_of.rglob("*") if p.is_file()}
    lines = Lines()
    run(recipe, place=place, out=copy_of, progress=lines)
    assert any("nothing to do" in line for line in lines.said)
    assert not lines.tracked
    changed = {p for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert {p.name for p in changed} <= {"recipe.yaml", ".lock"}


def test_a_change_of_the_objective_leaves_teacher_labels_and_control_alone(copy_of, small):
    lines = Lines()
    objective = [{"kind": "soft_target", "weight": 1.0, "temperature": 2.0}]
    data = small()
    data["steps"] = [{**data["steps"][0], "objective": [{"kind": "hard_label"}, *objective]}]
    recipe, place = recipes.loads(yaml.safe_dump(data), name="small.yaml")
    run(recipe, place=place, out=copy_of, progress=lines)
    assert not [name for name in lines.tracked if name.startswith("teacher")]
    assert [name for name in lines.tracked if name.startswith("student")]


def test_the_same_recipe_gives_the_same_numbers(finished, small, run_small):
    again = run_small(small())
    for model in ("teacher", "student", "control"):
        assert again.summary()[model]["accuracy"] == finished[1].summary()[model]["accuracy"]


def test_without_a_control_nothing_is_proved(small, run_small):
    data = small(seeds=1)
    data["steps"][0] = {**data["steps"][0], "control": False}
    record = run_small(data)
    assert record.summary()["verdict"]["word"] == "UNDECIDED"
    assert record.summary().get("control") is None
    assert any("control" in line for line in record.data["warnings"])


def test_a_budget_that_is_not_met_is_never_recommended(small, run_small):
    record = run_small(small(seeds=1, budget={"parameters": 10, "bytes": 10**9}))
    assert record.data["budget"]["within"] is False
    assert record.data["verdict"]["recommend"] is False
    assert record.summary()["verdict"]["within_budget"] is False
    assert [c["met"] for c in record.data["budget"]["checks"]] == [False, True]


def test_regression_goes_through_the_same_pipeline(small, run_small):
    data = small(
        task={"kind": "regression"},
        data={"source": {"kind": "diabetes"}, "rows": None},
        seeds=3,
    )
    record = run_small(data)
    summary = record.summary()
    assert summary["primary"]["name"] == "r2"
    assert set(record.data["models"]["student"]["scores"]) >= {"r2", "rmse"}
    assert record.data["scatter"]["student"]
    assert (Path(summary["files"]["report"])).is_file()


def test_random_views_use_the_live_teacher_and_store_nothing(small, run_small, tmp_path):
    data = small(seeds=1, data={"views": [{"kind": "crop", "padding": 1}]})
    run_small(data)
    assert not (tmp_path / "run" / "labels").exists()


def test_phases_train_one_after_the_other(small, run_small, tmp_path):
    phases = [
        {"objective": [{"kind": "logit_mse", "weight": 0.1}]},
        {"objective": [{"kind": "hard_label"}, {"kind": "soft_target", "temperature": 4}]},
    ]
    data = small(seeds=1)
    data["steps"][0] = {**data["steps"][0], "phases": phases}
    run_small(data)
    history = json.loads((tmp_path / "run/distil/student-0/history.json").read_text())
    assert [p["epoch"] for p in history] == [1, 2, 3, 4, 5, 6]
    assert set(history[0]["parts"]) == {"logit_mse"}
    assert set(history[-1]["parts"]) == {"hard_label", "soft_target"}


def test_label_stops_after_the_labels(small, run_small, tmp_path):
    run_small(small(), until="labels")
    assert (tmp_path / "run/labels/manifest.json").is_file()
    assert not (tmp_path / "run/distil").exists()


def test_few_labels_hide_labels_from_student_and_control(small, run_small):
    record = run_small(small(seeds=1, data={"labelled": 40}))
    assert record.data["rows"]["labelled"] == 40
    assert any("40 of" in line for line in record.data["warnings"])


def test_the_record_reads_back(finished):
    folder, record = finished
    assert RunRecord.load(folder / "run.json").summary() == record.summary()


def test_a_recipe_built_in_python_runs(small, tmp_path):
    recipe, mistakes = recipes.validate(small(seeds=1))
    assert not mistakes
    assert run(recipe, out=tmp_path / "python").summary()["student"]["parameters"] == 610
