"""The processes of one run: usually one, under `torchrun` several.

The first process leads: it decides what is done already, writes, and reports. The others follow it
from stage to stage and train beside it.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed

from understudy.errors import RunError


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


def muster(*, devices: Any) -> Crew:
    """Find the other processes of this run.

    Args:
        devices: the recipe's `training.trainer.devices`.

    Raises:
        RunError: several devices are asked for, but the processes were not started.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if isinstance(devices, int) and devices > 1:
            raise RunError(
                f"`devices: {devices}` needs {devices} processes: start the run with "
                f"`torchrun --nproc-per-node {devices} -m understudy run RECIPE`"
            )
        return Crew()
    if not distributed.is_initialized():
        # No backend named: gloo for tensors on the CPU, NCCL for those on a GPU. Stages that only
        # the leader works on may take hours.
        backend = None if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(days=2))
    return Crew(rank=distributed.get_rank(), size=size)
