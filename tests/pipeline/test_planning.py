"""What a student will be is told without training anything, and without leaving anything."""

import pytest
import yaml

from understudy import build
from understudy.cli.main import run as command
from understudy.pipeline.planning import plan

RECIPE = {
    "data": {"source": {"kind": "digits"}, "rows": 200},
    "teacher": {"model": {"kind": "resnet", "depth": 14, "base": 4}, "training": {"epochs": 9}},
    "student": {"from_teacher": {"keep": 4, "by": "evenly"}},
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
        return tmp_path / "recipe.yaml"

    return write


def test_a_cut_is_planned_without_training_or_leaving_anything(written):
    found = plan(*build.checked(written()))
    assert found.lines[0].startswith("keeps 4 of 6 blocks")
    before, after = found.data["table"]["parameters"]
    assert after < before
    assert len(found.notes) == 1
    assert "trained in the run" in found.notes[0]
    assert [path.name for path in written().parent.iterdir()] == ["recipe.yaml"]


def test_what_later_steps_change_is_told(written):
    steps = [{"kind": "distil"}, {"kind": "prune", "structure": "channels", "to": 0.5}]
    student = {"model": {"kind": "resnet", "depth": 8, "base": 4}, "reused_head": {}}
    found = plan(*build.checked(written(steps=steps, student=student)))
    assert found.data["parameters"] > 0
    assert "prune in `steps`" in found.notes[0]
    assert "`reused_head`" in found.notes[1]


def test_a_cut_that_cannot_be_made_is_told_without_a_traceback(written, capsys):
    path = written(student={"from_teacher": {"keep": 1, "by": "evenly"}})
    assert command(["plan", str(path), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.startswith("error: ")


def test_a_large_network_is_planned_on_fewer_rows_and_says_so(written, monkeypatch):
    student = {"from_teacher": {"keep": 4, "by": "importance", "importance": {"rows": 100}}}
    recipe, place = build.checked(written(student=student))
    assert not any("planned on" in note for note in plan(recipe, place).notes)
    monkeypatch.setattr("understudy.pipeline.planning._WORK", 1)
    found = plan(recipe, place)
    assert "depth is planned on 64 rows here and on 100 in the run" in " ".join(found.notes)
    before, after = found.data["table"]["parameters"]
    assert after < before


def test_a_blockwise_student_is_planned_by_its_own_command(written, capsys):
    path = written(student={"blockwise": {"keep": {"ms": 0.5}}})
    assert command(["plan", str(path), "--quiet"]) == 2
    assert "understudy blockwise RECIPE --until candidates" in capsys.readouterr().err
