"""A whole run of a chain: the table with a row per step, the files, the record and the report."""

import json

import numpy as np
import onnx
import pytest
import torch
import yaml

from pipeline.chains import DEPTH, TEACHER, WIDTH, rows_of, teacher_of, weights_of
from pipeline.lessons import Lines
from understudy import recipe as recipes
from understudy.deployed import Deployed
from understudy.evaluate.cost import parameters
from understudy.folders import read_json
from understudy.pipeline import run
from understudy.pipeline.chain import as_after
from understudy.pipeline.crew import Crew
from understudy.pipeline.distil import start
from understudy.pipeline.prepare import load
from understudy.pipeline.work import Work
from understudy.students.quantized.aware import prepare_aware

QUICK = {"epochs": 1, "batch_size": 32, "checkpoint_seconds": 0.0}
IMAGES = {
    "data": {"source": {"kind": "digits"}, "test": 0.3, "validation": 0.1, "rows": 400},
    "teacher": TEACHER | {"training": {"epochs": 4, "batch_size": 32}},
    "student": {"from_teacher": {**DEPTH, "by": "importance", "importance": {"rows": 80}}},
    "steps": [
        {"kind": "distil", "training": QUICK},
        {"kind": "cut", "cuts": WIDTH},
        {"kind": "prune", "to": 0.5, "training": {**QUICK, "epochs": 2}},
        {"kind": "quantize", "aware": True, "training": QUICK, "calibration_rows": 64},
    ],
    "evaluate": {"draws": 200, "latency_seconds": 0.02},
    "seeds": 2,
}
NUMBERS = {
    "task": {"kind": "regression"},
    "data": {"source": {"kind": "diabetes"}, "test": 0.3, "validation": 0.1},
    "teacher": {"model": {"kind": "mlp", "hidden": [64, 64]}, "training": {"epochs": 30}},
    "student": {"from_teacher": {"kind": "width", "keep": 0.5}},
    "steps": [
        {"kind": "distil", "training": QUICK},
        {"kind": "quantize", "form": "weight_int4"},
    ],
    "evaluate": {"draws": 200, "latency_seconds": 0.02},
    "seeds": 1,
}


def finished(data, folder):
    recipe, place = recipes.loads(yaml.safe_dump(data), name="chain.yaml", folder=folder)
    record = run(recipe, place=place, out=folder / "run")
    work = Work(
        recipe=recipe, place=place, folder=folder / "run", progress=Lines(), crew=Crew(), load=load
    )
    return work, record.data


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return finished(IMAGES, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return finished(NUMBERS, tmp_path_factory.mktemp("numbers"))


def student_of(work, seed, step=None):
    folder = work.folder / "distil" / f"student-{seed}"
    return as_after(work, start(work, seed), folder, seed=seed, step=step)


# --- the table -----------------------------------------------------------------------------------


def test_there_is_a_row_after_every_step(images):
    work, data = images
    rows = data["steps"]
    assert [row["name"] for row in rows] == [
        "teacher", "cut", "1 distil", "2 cut", "3 prune", "4 quantize", "int8",
    ]  # fmt: skip
    sizes = [row["parameters"] for row in rows]
    assert sizes[0] > sizes[1] == sizes[2] > sizes[3] == sizes[4] >= sizes[5]
    assert sizes[0] == parameters(teacher_of(work))
    assert sizes[1] == parameters(start(work, 0))
    assert [row["bytes"] for row in rows][-1] < rows[-2]["bytes"] < rows[0]["bytes"]
    for row in rows:
        score = row["scores"]["accuracy"]
        assert score["low"] <= score["value"] <= score["high"]
        assert row["latency_ms"]["batch1"] > 0
        assert row["latency_ms"]["batch32"] > 0


def test_zeros_are_counted_where_they_are(images):
    _, data = images
    zeros = {row["name"]: row["zeros"] for row in data["steps"]}
    assert zeros["teacher"] is None
    assert max(zeros[name] for name in ("cut", "1 distil", "2 cut")) < 0.02
    # The first and the last layer are left whole.
    assert 0.35 < zeros["3 prune"] < 0.5
    assert zeros["4 quantize"] >= zeros["3 prune"] - 1e-9
    assert zeros["int8"] == zeros["4 quantize"]


def test_the_last_row_of_the_student_is_what_the_evaluation_found(images, numbers):
    for _, data in (images, numbers):
        last = [row for row in data["steps"] if row["name"][0].isdigit()][-1]
        model = data["models"]["student"]
        for name, score in last["scores"].items():
            assert score["value"] == pytest.approx(model["scores"][name]["value"], abs=1e-6)
        assert last["parameters"] == model["parameters"]


def test_a_rows_score_is_the_mean_of_all_seeds_after_that_step(images):
    work, data = images
    positions = work.material.splits.test
    labels = work.material.all_labels[positions]
    found = []
    for seed in (0, 1):
        with torch.no_grad():
            said = student_of(work, seed, step=1)(work.material.inputs[positions])
        found.append(float((said.argmax(1) == labels).float().mean()))
    row = next(row for row in data["steps"] if row["name"] == "2 cut")
    assert row["scores"]["accuracy"]["value"] == pytest.approx(np.mean(found), abs=1e-6)


def test_an_ordinary_run_has_no_such_table(finished_run):
    assert finished_run.data["steps"] == []
    assert finished_run.data["plan"] is None
    assert finished_run.data["importance"] is None
    assert finished_run.data["quantized"] == "int8"


@pytest.fixture
def finished_run(request):
    return request.getfixturevalue("finished")[1]


# --- the files -----------------------------------------------------------------------------------


def test_the_files_answer_as_the_modules_do(images, numbers):
    for work, data in (images, numbers):
        for seed in data["seeds"]:
            rows = rows_of(work, 64)
            with torch.no_grad():
                wanted = student_of(work, seed)(rows).numpy()
            file = Deployed.open(work.folder / "export" / f"student-{seed}.onnx")
            said = file.predict(rows.numpy())
            scale = 1 + np.abs(wanted).max()
            assert np.abs(said - wanted).max() < 1e-4 * scale


def test_the_int8_file_of_an_aware_run_answers_as_the_rounded_network_did(images):
    """With the ranges that it has learned, not with those of a calibration."""
    work, data = images
    folder = work.folder / "distil" / "student-0"
    phases = sorted(folder.glob("phase-*"))
    rounded = student_of(work, 0, step=2)
    fed = rounded.preprocess(rows_of(work, 64))
    rounded.network = prepare_aware(rounded.network, fed, keep_zeros=True)
    rounded.load_state_dict(weights_of(phases[-1] / "weights.safetensors"))
    rows = work.material.inputs
    with torch.no_grad():
        wanted = rounded.eval()(rows).numpy()
        unrounded = student_of(work, 0)(rows).numpy()
    said = Deployed.open(work.folder / "export" / "student-0.int8.onnx").predict(rows.numpy())
    # The file also rounds what layers give, before it is added up: a little, all rows alike.
    apart = np.abs(said - wanted)
    assert apart.mean() < 0.03 * wanted.std(), (apart.mean(), wanted.std())
    assert apart.max() < 0.25 * wanted.std(), (apart.max(), wanted.std())
    assert apart.mean() < 0.75 * np.abs(unrounded - wanted).mean()
    # Answers of so short a training lie close together: some rows are near two classes.
    assert float((said.argmax(1) == wanted.argmax(1)).mean()) >= 0.96
    assert data["quantized"] == "int8"
    learned = read_json(folder / "ranges.json")
    graph = onnx.load(work.folder / "export" / "student-0.int8.onnx").graph
    held = [onnx.numpy_helper.to_array(i) for i in graph.initializer]
    scales = np.array([v.item() for v in held if v.dtype == np.float32 and v.size == 1])
    for one in learned:
        low, high = min(one["inputs"][0], 0), max(one["inputs"][1], 0)
        assert np.abs(scales / (high - low) * 255 - 1).min() < 1e-3, (low, high)


def test_a_form_of_weights_alone_is_made_checked_and_recorded(numbers):
    work, data = numbers
    path = work.folder / "export" / "student.int8.onnx"
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "MatMulNBits" in kinds
    assert data["quantized"] == "weight_int4"
    assert [row["name"] for row in data["steps"]] == ["teacher", "cut", "1 distil", "weight_int4"]
    facts = read_json(work.folder / "export" / "stage.json")["summary"]["parity"]["student-0-int8"]
    spread = float(np.std(work.material.all_labels.numpy()))
    assert 0 < facts["max_difference"] < spread


# --- what a cut student keeps of its teacher -----------------------------------------------------


def test_a_cut_student_reads_rows_as_its_teacher_does(images):
    work, _ = images
    own = student_of(work, 0).preprocess.describe()
    assert own == teacher_of(work).preprocess.describe()
    assert own != work.material.preprocess().describe()


def test_a_cut_student_answers_in_the_units_of_the_labels(numbers):
    work, _ = numbers
    begin, teacher = start(work, 0), teacher_of(work)
    assert torch.equal(begin.rescale.mean, teacher.rescale.mean)
    assert begin.rescale.mean.item() > 50
    rows = rows_of(work, 100)
    labels = work.material.all_labels[work.material.splits.train[:100]]
    with torch.no_grad():
        said = student_of(work, 0)(rows)
    assert abs(float(said.mean() - labels.mean())) < float(labels.std())


# --- the record and the report -------------------------------------------------------------------


def test_the_record_holds_plan_importance_and_features(images):
    work, data = images
    written = json.loads((work.folder / "run.json").read_text())
    assert written["steps"] == data["steps"]
    assert [row["status"] for row in data["plan"]["rows"]].count("dropped") == 2
    blocks = data["importance"]["blocks"]
    assert data["importance"]["by"] == "importance"
    assert [block["path"] for block in blocks] == [
        f"stages.{s}.{b}" for s in range(3) for b in (0, 1)
    ]
    assert sum(block["kept"] for block in blocks) == 4
    for block in blocks:
        if block["score"] is not None:
            assert block["low"] <= block["score"] <= block["high"]
    assert len(data["feature_map"]["teacher"]) == len(data["feature_map"]["student"]) > 30


def test_the_report_shows_every_section_of_the_making_and_no_other_run_has_them(images, finished):
    sections = ("Step by step", "What was cut", "Which blocks matter", "What they see")
    page = (images[0].folder / "report.html").read_text()
    for title in sections:
        assert page.count(f"{title}</h2>") == 1, title
    for row in images[1]["steps"]:
        assert f'<th scope="row">{row["name"]}</th>' in page
    plain = (finished[0] / "report.html").read_text()
    for title in sections[:3]:
        assert title not in plain


def test_a_finished_chain_has_nothing_to_do(images):
    work, data = images
    recipe, place = recipes.load(work.folder / "recipe.yaml")
    told = Lines()
    times = {p: p.stat().st_mtime_ns for p in work.folder.rglob("*.*")
             if p.is_file() and p.name not in (".lock", "recipe.yaml")}  # fmt: skip
    again = run(recipe, place=place, out=work.folder, progress=told)
    assert any("nothing to do" in line for line in told.said)
    assert again.data == data
    assert {p: p.stat().st_mtime_ns for p in times} == times
