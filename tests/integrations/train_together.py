"""Run by torchrun, see test_distributed.py: two processes train a student with a `Trainer`, twice.

Its argument is a folder for the results. First the student's head is seen, then it is hidden.
"""

import json
import sys
from pathlib import Path

import torch

from integrations.models import Bare, llama, rows, trainer
from understudy.integrations.transformers import TokenObjective


def trained(folder: Path, hidden: bool) -> dict[str, object]:
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
    return {
        "weights": {name: value.tolist() for name, value in student.state_dict().items()},
        "losses": [line["loss"] for line in taught.state.log_history if "loss" in line],
        "world": taught.args.world_size,
    }


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    found = {form: trained(folder, form == "hidden") for form in ("head", "hidden")}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    import os

    main(Path(sys.argv[1]), int(os.environ["RANK"]))
