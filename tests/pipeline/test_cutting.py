"""Cuts at the command line: what cannot be cut or deployed is told before training."""

import pytest
import torch
import yaml

from pipeline.chains import DEPTH, SCRATCH, WIDTH, answers, cut_from, rows_of, teacher_of
from pipeline.lessons import begun
from understudy.cli.main import run as command
from understudy.pipeline.cutting import again, calibration, choose

NETWORKS = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, rows):
        return rows + torch.relu(self.linear(rows))


class Blocks(nn.Module):
    def __init__(self, seed=0, closed=False):
        super().__init__()
        torch.manual_seed(seed)
        self.stem, self.head, self.closed = nn.Linear(64, 16), nn.Linear(16, 10), closed
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, rows):
        rows = self.stem(rows.flatten(1))
        if self.closed:  # no ONNX operator does this
            rows = torch.linalg.eigh(rows.T @ rows + 16 * torch.eye(16))[1].mean() + rows
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows)


def trained():
    return Blocks(seed=3)


def closed():
    return Blocks(closed=True)


def alone():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def tell(tmp_path, capsys):
    """Run a recipe at the command line: exit code 2, and what was said."""
    (tmp_path / "networks.py").write_text(NETWORKS)

    def start(data):
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
        assert command(["run", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "run")]) == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert "defect" not in told
        return told

    return start


def custom(name, training=None):
    model = {"kind": "custom", "target": f"networks.py:{name}"}
    return {"model": model, "training": training} if training else {"model": model}


HERE = {"epochs": 1, "batch_size": 32}
TARGETS = [
    ({"kind": "depth", "keep": 1}, ["keep >= 2", "keep 2 or more"]),
    ({"kind": "width", "parameters": 5}, ["`parameters` must be at least", "got 5"]),
    ({"kind": "sharing", "groups": 1}, ["groups", "got groups=1"]),
    ({"kind": "scratch", "parameters": 5}, ["5"]),
]


@pytest.mark.parametrize(("cut", "parts"), TARGETS, ids=lambda v: str(v)[:40])
def test_a_target_that_cannot_be_met_says_what_can(tell, cut, parts, tmp_path):
    told = tell(cut_from(cut))
    for part in parts:
        assert part in told, told
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_teacher_without_repeated_blocks_is_told_what_it_lacks(tell, tmp_path):
    told = tell(cut_from({"kind": "depth", "keep": 0.5}, teacher=custom("alone", HERE)))
    assert "block" in told
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_cut_that_cannot_be_exported_is_found_before_its_teacher_is_trained(tell, tmp_path):
    told = tell(cut_from(DEPTH | {"keep": 2}, teacher=custom("closed", HERE)))
    assert "cannot be deployed as it is" in told
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_cut_of_a_loaded_teacher_that_cannot_be_exported_is_found_at_the_student(tell, tmp_path):
    told = tell(cut_from(DEPTH | {"keep": 2}, teacher=custom("closed")))
    assert "cannot be deployed as it is" in told
    assert (tmp_path / "run" / "teacher" / "stage.json").is_file()
    assert not (tmp_path / "run" / "student").exists()
    assert not (tmp_path / "run" / "distil").exists()


def test_calibration_rows_are_training_rows_and_the_same_ones_every_time(cutting):
    work, _ = begun(cut_from(DEPTH), cutting())
    rows, labels = calibration(work, 20)
    again_rows, _ = calibration(work, 20)
    assert torch.equal(rows, again_rows)
    assert labels.shape == (20,)
    train = work.material.inputs[work.material.splits.train]
    for row in rows:
        assert bool((train == row).flatten(1).all(1).any())
    every, _ = calibration(work, 10**6)
    assert len(every) == len(train)


def test_labels_that_the_student_may_not_see_are_no_criterion(cutting):
    data = cut_from(DEPTH)
    data["data"] = {**data["data"], "labelled": 30}
    work, _ = begun(data, cutting())
    assert calibration(work, 60)[1] is None


def test_a_written_plan_gives_the_same_structure_and_leaves_the_model(cutting):
    work, _ = begun(cut_from(DEPTH), cutting())
    whole = teacher_of(work)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    state = torch.random.get_rng_state()
    cuts = work.recipe.model_validate(cut_from(DEPTH, WIDTH)).student.from_teacher
    chosen = choose(work, cuts, whole, seed=0)
    made = again(work, chosen.plans, whole, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in whole.state_dict().items():
        assert torch.equal(before[name], value), name
    for one, other in zip(made.module.parameters(), chosen.module.parameters(), strict=True):
        assert one.shape == other.shape
    assert made.provenance == chosen.provenance != {}
    rows = rows_of(work)
    assert torch.equal(answers(made.module, rows), answers(chosen.module, rows))
    assert len(chosen.heads) == 2 <= len(chosen.lines)


def test_what_is_cut_from_a_fresh_network_came_from_no_teacher(cutting):
    work, _ = begun(cut_from(DEPTH), cutting())
    cuts = work.recipe.model_validate(cut_from(SCRATCH, WIDTH)).student.from_teacher
    chosen = choose(work, cuts, teacher_of(work), seed=0)
    assert chosen.provenance == {}
    assert again(work, chosen.plans, teacher_of(work), seed=0).provenance == {}


def test_a_transformer_loses_blocks_heads_and_hidden_units(cutting, tmp_path):
    data = cut_from(
        {"kind": "depth", "keep": 2}, {"kind": "width", "keep": 0.5},
        {"kind": "low_rank", "parameters": 0.9},
        teacher={"model": {"kind": "vit", "patch": 4, "dim": 16, "depth": 4, "heads": 4},
                 "training": HERE},
    )  # fmt: skip
    data["steps"].append({"kind": "quantize", "form": "weight_int4"})
    work, _ = begun(data, tmp_path)
    from understudy.pipeline.fresh import fresh_student

    student = fresh_student(work, 0)
    assert len(student.module.network.blocks) == 2
    assert list(student.provenance) == ["blocks.0", "blocks.1"]
    assert set(student.provenance.values()) < {f"blocks.{n}" for n in range(4)}
    assert work.worked[-1] == "rehearsal"
