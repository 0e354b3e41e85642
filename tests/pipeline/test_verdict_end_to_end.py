"""The verdict on real data, from the recipe on: it helped, it hurt, and neither."""

from pathlib import Path

import pytest

from understudy.pipeline import run

RECIPES = Path(__file__).parents[2] / "recipes"
QUICK = ["evaluate.latency_seconds=0.02", "export.int8=false"]

RANDOM = """
import numpy as np

class Random:
    def __init__(self):
        self.draw = np.random.default_rng(0)
    def __call__(self, rows):
        # Labels drawn blindly, and sure of them: the worst teacher there is.
        logits = np.zeros((len(rows), 10), np.float32)
        logits[np.arange(len(rows)), self.draw.integers(0, 10, len(rows))] = 8.0
        return logits

def make():
    return Random()
"""

HURT = """
task: {kind: classification}
data: {source: {kind: digits}, test: 0.45}
teacher: {predictor: {kind: custom, target: "random_teacher.py:make"}}
student: {model: {kind: mlp, hidden: [32]}}
steps:
  - objective: [{kind: hard_label, weight: 0.1}, {kind: soft_target, weight: 0.9, temperature: 4}]
    training: {epochs: 30, optimizer: {learning_rate: 0.005}}
seeds: 5
"""

IDENTICAL = """
task: {kind: classification}
data: {source: {kind: digits}, test: 0.45}
teacher: {model: {kind: mlp, hidden: [64]}, training: {epochs: 10}}
student: {model: {kind: mlp, hidden: [32]}}
steps:
  - objective: [{kind: hard_label, weight: 1.0}, {kind: soft_target, weight: 0.0}]
    training: {epochs: 30, optimizer: {learning_rate: 0.005}}
seeds: 5
"""


@pytest.mark.slow
def test_a_full_teacher_helps_where_labels_are_few(tmp_path):
    record = run(RECIPES / "few_labels.yaml", out=tmp_path / "run", settings=QUICK)
    verdict = record.summary()["verdict"]
    assert verdict["word"] == "HELPED"
    assert verdict["low"] > 0
    assert verdict["gap_closed"] > 0


@pytest.mark.slow
def test_a_teacher_of_random_labels_hurts(tmp_path):
    (tmp_path / "random_teacher.py").write_text(RANDOM)
    (tmp_path / "hurt.yaml").write_text(HURT)
    record = run(tmp_path / "hurt.yaml", out=tmp_path / "run", settings=QUICK)
    verdict = record.summary()["verdict"]
    assert verdict["word"] == "HURT"
    assert verdict["gap_closed"] is None
    assert record.data["verdict"]["recommend"] is False


@pytest.mark.slow
def test_identical_arms_are_neither(tmp_path):
    (tmp_path / "same.yaml").write_text(IDENTICAL)
    record = run(tmp_path / "same.yaml", out=tmp_path / "run", settings=QUICK)
    verdict = record.summary()["verdict"]
    assert verdict["word"] in ("NO DIFFERENCE", "UNDECIDED")
    assert verdict["effect"] == 0, "the same objective, weights and order give the same student"
