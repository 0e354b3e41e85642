"""Run by torchrun, see test_distributed.py: two processes train one student with `fit`.

Arguments: a folder for the results, and the epochs to train. A process that finds a checkpoint
goes on from it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.losses import HardLabel
from understudy.objective import Objective, Term
from understudy.recipe import Training
from understudy.tasks import Classification

ROWS = 203


class Watched:
    """A loader that notes which ids it gave."""

    def __init__(self, loader: MemoryLoader) -> None:
        self.loader, self.given = loader, []

    @property
    def sampler(self) -> "Watched":
        return self

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)
        self.given.append([])

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            self.given[-1] += batch.ids.tolist()
            yield batch


def main(folder: Path, epochs: int, rank: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS + 40, 6, generator=generator)
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    common = {"inputs": inputs, "labels": labels, "ids": torch.arange(ROWS + 40)}
    positions = np.arange(ROWS)
    loader = Watched(
        MemoryLoader(**common, positions=positions, batch_size=16, seed=3, rank=rank, ranks=2)
    )
    torch.manual_seed(rank)  # start weights of its own in each process: the first one's must win
    student = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    task = Classification(classes=("a", "b", "c"))
    hard = Term(name="hard_label", loss=HardLabel(), reads="logits", labels=True)
    training = Training.model_validate(
        {
            "epochs": epochs,
            "choose": "validation",
            "optimizer": {"learning_rate": 0.02},
            "checkpoint_seconds": 0.0,
            "trainer": {"strategy": "ddp", "devices": 2, "accelerator": "cpu"},
        }
    )
    fitted = fit(
        student=student,
        objective=Objective([hard], task=task, offers=frozenset()),
        teacher=None,
        training=training,
        loader=loader,
        validation=MemoryLoader(**common, positions=np.arange(ROWS, ROWS + 40), batch_size=16),
        validate=lambda outputs, labels: float((outputs.argmax(1) == labels).float().mean()),
        seed=5,
        folder=folder,
    )
    weights = {name: value.tolist() for name, value in student.state_dict().items()}
    points = [dict(point) for point in fitted.points]
    found = {"weights": weights, "points": points, "epoch": fitted.epoch, "given": loader.given}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    import os

    main(Path(sys.argv[1]), int(sys.argv[2]), int(os.environ["RANK"]))
