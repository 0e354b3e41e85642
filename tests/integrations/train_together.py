"""Run by torchrun, see test_distributed.py: two processes train one student with a `Trainer`.

Arguments: a folder for the results, and whether the student's head is hidden.
"""

import json
import sys
from pathlib import Path

import torch

from integrations.models import Bare, llama, rows, trainer
from understudy.integrations.transformers import TokenObjective


def main(folder: Path, hidden: bool, rank: int) -> None:
    torch.set_num_threads(1)
    student = llama(8)
    taught = trainer(
        folder,
        Bare(student) if hidden else student,
        TokenObjective(temperature=2.0, soft_weight=0.7, hard_weight=0.4),
        rows(),
        teacher=llama(16, seed=1),
        batch=2,
        parts=2,
        steps=2,
        ddp_backend="gloo",
    )
    taught.train()
    weights = {name: value.tolist() for name, value in student.state_dict().items()}
    found = {"weights": weights, "world": taught.args.world_size}
    losses = [line["loss"] for line in taught.state.log_history if "loss" in line]
    (folder / f"rank-{rank}.json").write_text(json.dumps(found | {"losses": losses}))


if __name__ == "__main__":
    import os

    main(Path(sys.argv[1]), sys.argv[2] == "hidden", int(os.environ["RANK"]))
