"""What workers of the tests open; processes that are started afresh find it by its name."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from understudy.blockwise.form import Piece
from understudy.blockwise.sources import Held
from understudy.blockwise.words import Call, Candidate
from understudy.blockwise.workers import Material
from understudy.errors import RunError


def material(seed=0):
    """A small random network over random numbers, in the place of a teacher's block."""
    torch.manual_seed(seed)
    piece = Piece([nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6)]).eval()
    stream = torch.randn(40, 6)
    with torch.no_grad():
        call = Call(stream=stream, gives=piece(stream))
    return Material(
        piece=piece, call=call, source=Held(call), rows=np.arange(32), validation=np.arange(32, 40)
    )


def candidate(kind="linear", **settings):
    return Candidate(
        kind=kind, label=settings.pop("label", kind), parameters=0, bytes=0, ms=None, flops=0,
        settings=settings,
    )  # fmt: skip


@dataclass(frozen=True)
class Open:
    """Opens the material, and leaves a note of who did."""

    folder: Path
    seed: int = 0
    deed: str = ""

    def __call__(self):
        with (self.folder / "opened").open("a") as file:
            file.write(f"{self.seed} {os.getpid()} {torch.get_num_threads()}\n")
        if self.deed == "die" or (self.deed == "die once" and not (self.folder / "died").exists()):
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "full":
            raise RunError("the disk is full")
        if self.deed == "stumble":
            raise ZeroDivisionError("a defect of the source")
        return material(self.seed)
