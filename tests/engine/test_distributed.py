"""Two processes that train one student, as `torchrun` starts them: gloo on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("train_together.py")
ROWS, EPOCHS = 203, 4


def together(folder, epochs):
    """What each process says it did."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(SCRIPT), str(folder), str(epochs),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    told = [line for line in result.stderr.splitlines() if line.startswith("[rank")]
    assert result.returncode == 0, "\n".join(told) or result.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, together(folder, EPOCHS)


def test_both_end_with_the_same_weights_although_they_began_with_others(found):
    _, (first, second) = found
    assert first["weights"] == second["weights"]
    assert first["epoch"] == second["epoch"] >= 1


def test_the_loss_falls_and_all_see_all_validation_rows(found):
    _, (first, second) = found
    losses = [point["training_loss"] for point in first["points"]]
    assert losses[-1] < losses[0]
    scores = [[p["validation"] for p in rank["points"]] for rank in (first, second)]
    assert scores[0] == scores[1]
    assert first["epoch"] == scores[0].index(max(scores[0])) + 1


def test_every_epoch_is_divided_between_them(found):
    _, ranks = found
    for epoch in range(EPOCHS):
        mine, others = (rank["given"][epoch] for rank in ranks)
        assert len(mine) == len(others) == ROWS // 2
        assert not set(mine) & set(others)
    assert ranks[0]["given"][0] != ranks[0]["given"][1]


def test_one_process_writes_the_log_and_the_checkpoint(found):
    folder, _ = found
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["checkpoint.ckpt", "log.csv", "rank-0.json", "rank-1.json"]
    assert len((folder / "log.csv").read_text().splitlines()) == EPOCHS + 1


@pytest.mark.slow
def test_a_training_that_is_over_leaves_both_with_the_chosen_weights(found):
    folder, before = found
    after = together(folder, EPOCHS)
    assert after[0]["weights"] == after[1]["weights"] == before[0]["weights"]
    assert after[1]["given"] == []
