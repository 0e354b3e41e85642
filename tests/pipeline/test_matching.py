"""The stage `layers`: printed, written, done once; and teachers without layers."""

import json

import pytest

from pipeline.lessons import HARD, Lines, begun, learned, recipe_of, work_of
from understudy.errors import ModelError, RecipeError
from understudy.pipeline.distil import distil, layers
from understudy.pipeline.prepare import prepare
from understudy.pipeline.student import begin

HINT = {"kind": "hint", "layers": {"student": "stages.1", "teacher": "stages.1"}}
AUTO = {"kind": "attention_transfer", "layers": "auto"}


def test_the_pairing_is_printed_with_its_shapes(place):
    progress = Lines()
    learned(recipe_of(HARD, AUTO, HINT), place(), progress)
    (line,) = [line for line in progress.said if line.startswith("attention_transfer: stages")]
    assert line == (
        "attention_transfer: stages.0 [2, 8, 8] from stages.0 [4, 8, 8]; "
        "stages.1 [4, 4, 4] from stages.1 [8, 4, 4]; stages.2 [8, 2, 2] from stages.2 [16, 2, 2]"
    )
    assert "hint: stages.1 [4, 4, 4] from stages.1 [8, 4, 4]" in progress.said


def test_what_was_found_is_written_per_phase_and_term(place):
    data = recipe_of(phases=[{"objective": [HINT]}, {"objective": [HARD, AUTO]}])
    work, loaded = begun(data, place())
    found = layers(work, loaded)
    assert [len(phase) for phase in found] == [1, 2]
    assert found[1][0] is None
    written = json.loads((work.folder / "layers" / "stage.json").read_text())["summary"]["phases"]
    assert written[1][0] is None
    assert written[1][1] == json.loads(json.dumps(found[1][1].to_data()))


def test_it_is_done_once_and_again_after_a_change_of_terms(place):
    folder = place()
    for terms, again in (([HINT], True), ([HINT], False), ([AUTO], True)):
        work, loaded = begun(recipe_of(HARD, *terms), folder)
        layers(work, loaded)
        assert ("layers" in work.worked) is again


def test_without_a_term_on_layers_there_is_no_stage(place):
    work, loaded = begun(recipe_of(HARD), place())
    assert layers(work, loaded) == ((None,),)
    assert not (work.folder / "layers").exists()


def test_only_the_layers_that_are_compared_are_stored(place):
    work, _ = learned(recipe_of(HARD, HINT), place())
    fields = json.loads((work.folder / "labels" / "manifest.json").read_text())["fields"]
    assert set(fields) == {"stages.1"}


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_path_that_is_not_there_stops_before_labels_and_training(side, place):
    wrong = {"kind": "hint", "layers": {**HINT["layers"], side: "stage.1"}}
    work, loaded = begun(recipe_of(HARD, wrong), place())
    with pytest.raises(ModelError, match=r"no module `stage.1`; near are stages.1"):
        distil(work, loaded)
    assert not (work.folder / "labels").exists()
    assert not (work.folder / ".work" / "distil").exists()


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_it_is_found_before_a_teacher_is_trained(side, tmp_path):
    wrong = {"kind": "hint", "layers": {**HINT["layers"], side: "stage.1"}}
    work = work_of(recipe_of(HARD, wrong), tmp_path)
    prepare(work)
    with pytest.raises(ModelError, match=r"no module `stage.1`; near are stages.1"):
        begin(work)
    assert not (work.folder / "teacher").exists()


FILE = """
import torch

def teacher():
    return lambda rows: torch.randn(len(rows), 10).numpy()
"""


@pytest.mark.parametrize("kind", ["onnx", "predictor", "ensemble"])
def test_a_teacher_that_offers_its_answer_only_is_refused_before_anything_runs(kind, tmp_path):
    (tmp_path / "t.onnx").touch()
    (tmp_path / "own.py").write_text(FILE)
    own = {"kind": "custom", "target": "own.py:teacher"}
    teacher = {
        "onnx": {"onnx": "t.onnx"},
        "predictor": {"predictor": own},
        "ensemble": {"ensemble": [{"predictor": own}, {"predictor": own}]},
    }[kind]
    with pytest.raises(RecipeError, match=r"`hint` compares layers inside the teacher.*`model`"):
        work_of(recipe_of(HARD, HINT, teacher=teacher), tmp_path)
    assert not (tmp_path / "run").exists()


LOSS = """
import torch

class Gap(torch.nn.Module):
    def forward(self, own, goal):
        return (own.mean(dim=(1, 2, 3)) - goal.mean(dim=(1, 2, 3))).square()

def gap():
    return Gap()
"""


def test_a_loss_of_ones_own_compares_layers_too(place):
    folder = place()
    (folder / "own.py").write_text(LOSS)
    term = {"kind": "custom", "target": "own.py:gap", "layers": HINT["layers"], "weight": 1}
    _, (arm,) = learned(recipe_of(HARD, term), folder)
    assert arm.summary["terms"][0][1]["term"] == "custom"
    assert arm.summary["terms"][0][1]["gradient"] > 0


def test_the_found_layers_are_part_of_what_a_student_is_a_function_of(place):
    """Blocks that are found otherwise in another version must not leave an old student standing."""
    folder = place()
    work, _ = learned(recipe_of(HARD, AUTO), folder)
    path = work.folder / "layers" / "stage.json"
    stage = json.loads(path.read_text())
    stage["summary"]["phases"][0][1]["pairs"] = [["stages.0", "stages.0"]]
    for side, shape in (("student", [2, 8, 8]), ("teacher", [4, 8, 8])):
        stage["summary"]["phases"][0][1][side] = [shape]
    path.write_text(json.dumps(stage))
    work, _ = learned(recipe_of(HARD, AUTO), folder)
    assert "distil/student-0" in work.worked
