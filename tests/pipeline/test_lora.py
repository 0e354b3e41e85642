"""A student of low-rank updates in a run: what learns, what is merged, and stops in between."""

import pytest
import torch

from pipeline.chains import ONE, answers, bytes_of, cut_from, rows_of, teacher_of
from pipeline.lessons import Lines, StoppedError, begun, learned, work_of
from understudy.errors import RecipeError
from understudy.folders import read_json
from understudy.models.weights import read_weights
from understudy.pipeline.distil import trained_module
from understudy.students.lora import has_lora

pytest.importorskip("peft")
VIT = {
    "model": {"kind": "vit", "patch": 4, "dim": 16, "depth": 3, "heads": 2},
    "training": {"epochs": 1, "batch_size": 32},
}
CUTS = ({"kind": "depth", "keep": 2, "by": "evenly"}, {"kind": "lora", "rank": 2, "alpha": 4})
TRAINING = {**ONE, "epochs": 2, "checkpoint_seconds": 0.0}
DATA = cut_from(*CUTS, teacher=VIT, steps=[{"kind": "distil", "training": TRAINING}])


def test_updates_learn_are_merged_and_go_on_where_they_were_stopped(tmp_path):
    (tmp_path / "whole").mkdir()
    work, arms = learned(DATA, tmp_path / "whole")
    teacher, student = teacher_of(work), trained_module(work, arms[0])
    assert [arm.arm for arm in arms] == ["student", "control"]
    summary = read_json(work.folder / "student" / "stage.json")["summary"]
    assert summary["parameters"] == sum(p.numel() for p in student.parameters())
    trained = summary["plan"]["trained"]
    assert 0 < trained < summary["parameters"] / 2
    assert summary["plan"]["parameters"][1] == sum(p.numel() for p in student.network.parameters())
    assert any(f"{trained:,} numbers are trained" in line for line in work.progress.said)
    # What was frozen is the teacher's own; what was merged is not.
    assert not has_lora(student)
    for name, layer in student.network.blocks[0].named_modules():
        old = teacher.network.blocks[0].get_submodule(name)
        if isinstance(layer, torch.nn.LayerNorm):
            assert torch.equal(layer.weight, old.weight)
        elif isinstance(layer, torch.nn.Linear):
            assert not torch.equal(layer.weight, old.weight)
    start = read_weights(work.folder / "student" / "seed-0.safetensors")
    for arm in arms:
        end = read_weights(arm.folder / "weights.safetensors")
        assert {n for n in end if not torch.equal(end[n], start[n])} == {
            n for n in end if "lora_" in n
        }
    one, other = (answers(trained_module(work, arm), rows_of(work)) for arm in arms)
    assert not torch.allclose(one, other, atol=1e-4)
    # Stopped in the second epoch of the student, and gone on.
    (tmp_path / "stopped").mkdir()
    with pytest.raises(StoppedError):
        learned(DATA, tmp_path / "stopped", Lines(stop="student, seed 0", at=6))
    learned(DATA, tmp_path / "stopped")
    for arm in ("student-0", "control-0"):
        assert bytes_of(tmp_path / "stopped", arm) == bytes_of(tmp_path / "whole", arm)


@pytest.mark.parametrize("step", [
    {"kind": "prune", "to": 0.5, "training": ONE},
    {"kind": "cut", "cuts": {"kind": "width", "keep": 0.5}},
    {"kind": "quantize", "aware": True, "training": ONE},
])  # fmt: skip
def test_later_steps_that_change_frozen_weights_are_refused(tmp_path, step):
    data = cut_from(*CUTS, teacher=VIT, steps=[{"kind": "distil", "training": ONE}, step])
    with pytest.raises(RecipeError, match=f"has frozen weights, but `{step['kind']}` changes them"):
        work_of(data, tmp_path)


def test_layers_that_are_not_there_are_told_before_the_teacher_is_trained(tmp_path):
    from understudy.errors import ModelError

    data = cut_from({"kind": "lora", "layers": ["encoder.*"]}, teacher=VIT)
    with pytest.raises(ModelError, match=r"`layers` names `encoder\.\*`, but no nn.Linear"):
        begun(data, tmp_path)
    assert not (tmp_path / "run" / "teacher" / "stage.json").exists()
