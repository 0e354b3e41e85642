"""The processes of one run: usually one, under `torchrun` several.

The first process leads: it decides what is done already, writes, and reports. The others follow it
from stage to stage and train beside it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed

from understudy.errors import RunError
from understudy.recipe import Training


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """This process among those that work on the run."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """The leader's value, in every process. Everyone calls it at the same point."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Go on when everyone is here."""
        if self.size > 1:
            distributed.barrier()


def wanted_devices(training: Training) -> int:
    """How many devices a training asks for, over all machines; 1 where it says nothing."""
    asked = training.trainer.get("devices", 1)
    if isinstance(asked, str):
        asked = int(asked) if asked.lstrip("-").isdigit() else asked.split(",")
    count = len(asked) if isinstance(asked, list | tuple) else asked
    if not isinstance(count, int) or count < 1 or asked in (["auto"], "auto"):
        count = max(1, torch.cuda.device_count())
    return count * int(training.trainer.get("num_nodes", 1))


def muster(trainings: Sequence[Training], phases: Sequence[Training] = ()) -> Crew:
    """Find the other processes of this run.

    Args:
        trainings: every training of the recipe.
        phases: those of one student, which go on from one another.

    Raises:
        RunError: the recipe asks for other processes than there are, or for more in one phase of a
            student than in another.
    """
    counts = sorted({wanted_devices(training) for training in phases})
    if len(counts) > 1:
        raise RunError(
            "all phases of a student must train on as many devices, but the recipe's `trainer`s "
            f"ask for {' and '.join(map(str, counts))}: give every phase the same `devices`"
        )
    size = int(os.environ.get("WORLD_SIZE", "1"))
    asked = max((wanted_devices(training) for training in trainings), default=1)
    if size == 1 and asked == 1:
        return Crew()
    if asked != size:
        raise RunError(
            f"the recipe's `trainer` asks for {asked} devices, but {size} processes were started: "
            f"start it with `torchrun --nproc-per-node {asked} -m understudy run RECIPE`, or "
            f"set `devices: {size}` in the recipe's `trainer`"
        )
    if not distributed.is_initialized():
        # No backend named: gloo for tensors on the CPU, NCCL for those on a GPU. Stages that only
        # the leader works on may take hours.
        backend = None if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(days=2))
    return Crew(rank=distributed.get_rank(), size=size)
