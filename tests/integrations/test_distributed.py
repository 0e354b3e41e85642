"""Two processes with two micro-batches each do what one process does: gloo on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from integrations.models import llama, rows, trainer
from understudy.integrations.transformers import TokenObjective

SCRIPT = Path(__file__).with_name("train_together.py")


def together(folder):
    """What each process says it did."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(SCRIPT), str(folder),
    ]  # fmt: skip
    tests = str(SCRIPT.parent.parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": tests}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    told = [line for line in result.stderr.splitlines() if line.startswith("[rank")]
    assert result.returncode == 0, "\n".join(told) or result.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_are_one(tmp_path):
    ranks = together(tmp_path)
    student = llama(8)
    objective = TokenObjective(temperature=2.0, soft_weight=0.7, hard_weight=0.4)
    alone = trainer(
        tmp_path, student, objective, rows(), teacher=llama(16, seed=1), batch=8, steps=2
    )
    alone.train()
    losses = [line["loss"] for line in alone.state.log_history if "loss" in line]
    for form in ("head", "hidden"):
        first, second = (rank[form] for rank in ranks)
        assert first["world"] == 2
        assert first["weights"] == second["weights"]
        for name, value in student.state_dict().items():
            found = torch.tensor(first["weights"][name], dtype=torch.float64)
            torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-10)
        assert first["losses"] == pytest.approx(losses, rel=1e-6)
