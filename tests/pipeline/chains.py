"""Small chains of steps: a teacher with blocks to cut, and what the files of a chain are."""

import torch

from pipeline.lessons import BASE, HARD, TRAINING
from understudy.models.weights import read_weights
from understudy.pipeline.members import load_teacher

# Six blocks in three stages; two of a stage have the same shapes.
TEACHER = {
    "model": {"kind": "resnet", "depth": 14, "base": 4},
    "training": {"epochs": 1, "batch_size": 32},
    "preprocess": {"scale": 16.0, "mean": [0.3], "std": [0.4]},
}
DEPTH = {"kind": "depth", "keep": 4, "by": "evenly"}
WIDTH = {"kind": "width", "keep": 0.5}
LOW_RANK = {"kind": "low_rank", "energy": 0.8}
SHARING = {"kind": "sharing", "groups": 5}
SCRATCH = {"kind": "scratch", "parameters": 0.4}
ONE = {**TRAINING, "epochs": 1}
# Nothing moves: what student and control start from is what they end with.
STILL = {**ONE, "optimizer": {"kind": "sgd", "learning_rate": 1e-30, "weight_decay": 0.0}}


def cut_from(*cuts, steps=None, seeds=1, **changes):
    """A recipe as plain data whose student is cut from its teacher."""
    steps = steps or [{"kind": "distil", "training": ONE, "control": False}]
    return {
        **BASE, "teacher": TEACHER, "student": {"from_teacher": list(cuts)}, "steps": steps,
        "seeds": seeds, **changes,
    }  # fmt: skip


def distil(**changes):
    """A step that trains for an epoch."""
    return {"kind": "distil", "objective": [HARD], "training": ONE, "control": False, **changes}


def teacher_of(work):
    """The teacher's own module."""
    (module,) = load_teacher(work)[1]
    return module


def rows_of(work, count=32):
    """Raw training rows."""
    return work.material.inputs[torch.from_numpy(work.material.splits.train[:count])]


def answers(module, rows):
    with torch.no_grad():
        return module.eval()(rows)


def bytes_of(folder, arm="student-0"):
    """Every file of an arm but times, by name."""
    root = folder / "run" / "distil" / arm
    found = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix == ".safetensors" or path.name.startswith(("cut-", "ranges"))
    }
    assert "weights.safetensors" in found
    return found


def zeros(weights, name):
    """The share of a weight that is zero."""
    return float((weights[name] == 0).float().mean())


def weights_of(path):
    return read_weights(path)
