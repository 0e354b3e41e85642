"""Peak memory of local against end-to-end distillation, and how it grows with depth.

Two chains of equal blocks with random weights, as memory does not depend on what they hold: in one
most memory is weights (residual MLPs, few rows at a time), in the other activations (transformer
layers). The student has blocks with half the hidden units, and half the heads. Every figure is that
of a process of its own: the most that was ever resident (VmHWM) beyond what was resident once all
was imported, so that mapped files count too.

*Local*: every block is written to the disk as it is made, then recorded from what the block before
it gave (`record_chain`), then its candidate is planned and taught; one block is in memory at a
time. *Recorded whole*: the same, but the recording is that of the whole network in memory
(`record`, one block per pass). *End to end*: teacher and student in memory, the squared error of
their answers, AdamW; the same rows, batches and steps. These two run with a setting of glibc under
which everything that is freed goes back to the system at once, their best case; local distillation
runs as it comes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.blockwise.candidates import candidates
from understudy.blockwise.form import Piece, piece
from understudy.blockwise.learning import Learning
from understudy.blockwise.making import make
from understudy.blockwise.opening import Opening, Shelved, shelve
from understudy.blockwise.partition import partition
from understudy.blockwise.sources import Recorded, record
from understudy.blockwise.streaming import record_chain
from understudy.blockwise.words import Call, Candidate
from understudy.blockwise.workers import Pair, distil_all
from understudy.models import VisionTransformer

DEPTHS = (8, 16, 32, 64)
WAYS = ("local", "recorded whole", "end to end")
KINDS = {"mlp": "residual MLPs of width 384", "transformer": "transformer layers of width 128"}
WIDTH, DIM, TOKENS = 384, 128, 65
ROWS, HELD_OUT, BATCH, CALIBRATION = 96, 32, 32, 4


class Residual(nn.Module):
    """`x + W2 gelu(W1 norm(x))`, the hidden layer four times as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 4 * WIDTH)
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, rows: Tensor) -> Tensor:
        """The rows and what the block adds."""
        answer: Tensor = rows + self.narrow(nn.functional.gelu(self.wide(self.norm(rows))))
        return answer


def block(kind: str, number: int) -> nn.Module:
    """One block with random weights."""
    torch.manual_seed(number)
    if kind == "mlp":
        return Residual().eval()
    made = VisionTransformer(
        channels=1, height=8, image_width=8, width=2, patch=1, dim=DIM, depth=1, heads=4
    )
    return made.blocks[0].eval()


def rows_of(kind: str) -> Tensor:
    """Random numbers in the place of data."""
    shape = (WIDTH,) if kind == "mlp" else (TOKENS, DIM)
    return torch.randn(ROWS + HELD_OUT, *shape, generator=torch.Generator().manual_seed(0))


def half(own: Piece, call: Call) -> Candidate:
    """The block with half its hidden units and heads."""
    (found,) = candidates(own, call, kinds=("narrower",), shares={"narrower": (0.5,)}, measure=None)
    return found


def teach(shelved: dict[str, Shelved], sources: dict[str, Recorded], folder: Path) -> None:
    """Plan and teach one candidate per block, one block after the other."""
    pairs = []
    for name in shelved:
        opening = Opening(
            piece=shelved[name],
            source=sources[name],
            rows=np.arange(ROWS),
            validation=np.arange(ROWS, ROWS + HELD_OUT),
            calibration=np.arange(CALIBRATION),
        )
        material = opening()
        candidate = half(material.piece, material.call)
        del material
        how = Learning(epochs=1, batch_size=BATCH)
        pairs.append(
            Pair(block=name, candidate=candidate, open=opening, folder=folder, learning=how)
        )
    told = distil_all(pairs)
    bad = [one for one in told.values() if one.get("steps") != ROWS // BATCH]
    assert not bad, bad


def local(kind: str, depth: int, folder: Path) -> None:
    """No more than one block at a time."""
    shelved = {}
    for number in range(depth):
        own = Piece([block(kind, number)])
        shelved[str(number)] = shelve(own, folder / f"{number}.safetensors")
        del own
    sources = record_chain(shelved, rows_of(kind), folder / "recorded", batch_size=BATCH)
    teach(shelved, sources, folder / "pairs")


def recorded_whole(kind: str, depth: int, folder: Path) -> None:
    """The network is there while it is recorded."""
    network = nn.Sequential(*(block(kind, number) for number in range(depth)))
    rows = rows_of(kind)
    paths = [str(number) for number in range(depth)]
    parts = partition(network, rows[:2], by=paths, measure=False)
    sources = record(network, parts, rows, folder / "recorded", batch_size=BATCH, at_once=1)
    shelved = {
        one.name: shelve(piece(network, one), folder / f"{one.name}.safetensors")
        for one in parts.blocks
    }
    del network
    teach(shelved, sources, folder / "pairs")


def end_to_end(kind: str, depth: int, folder: Path) -> None:
    """Teacher and student are there, and the student's whole graph."""
    del folder
    rows, seen = rows_of(kind), rows_of(kind)[:CALIBRATION]
    whole, cut = [], []
    for number in range(depth):
        own = Piece([block(kind, number)])
        with torch.no_grad():
            call = Call(stream=seen, gives=own(seen))
        whole.append(own)
        cut.append(make(half(own, call), own, call))
    teacher = nn.Sequential(*whole).requires_grad_(False)
    student = nn.Sequential(*cut).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    for start in range(0, ROWS, BATCH):
        batch = rows[start : start + BATCH]
        with torch.no_grad():
            goal = teacher(batch)
        optimizer.zero_grad(set_to_none=True)
        nn.functional.mse_loss(student(batch), goal).backward()
        optimizer.step()


def resident(field: str) -> int:
    """Bytes that Linux says of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def child(kind: str, way: str, depth: int) -> int:
    """The peak of this process in bytes, beyond what it begins with."""
    torch.set_num_threads(1)
    ways: dict[str, Callable[[str, int, Path], None]] = {
        "local": local, "recorded whole": recorded_whole, "end to end": end_to_end
    }  # fmt: skip
    # Libraries that are imported when they are first used are no part of the growth or the peak.
    with tempfile.TemporaryDirectory() as folder:
        seen = rows_of(kind)[:CALIBRATION]
        own = Piece([block(kind, 0)])
        with torch.no_grad():
            half(own, Call(stream=seen, gives=own(seen)))
        before = resident("VmRSS")
        ways[way](kind, depth, Path(folder))
    return resident("VmHWM") - before


def peak(kind: str, way: str, depth: int) -> int:
    """As `child` says in a fresh process."""
    command = [sys.executable, __file__, kind, way, str(depth)]
    setting = {} if way == "local" else {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **setting}
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def slope(depths: Sequence[int], peaks: Sequence[int]) -> float:
    """Bytes per added block, by least squares."""
    return float(np.polyfit(np.asarray(depths, float), np.asarray(peaks, float), 1)[0])


def measure(mode: str, out: Path, depths: Sequence[int] = DEPTHS) -> dict[str, Any]:
    """All depths of all ways; both modes measure the same."""
    del mode, out
    figures: dict[str, float] = {}
    facts: dict[str, Any] = {"rows": ROWS, "batch": BATCH, "depths": list(depths), "peaks": {}}
    heads = " | ".join(f"{depth} blocks" for depth in depths)
    lines = [
        f"| peak memory in MB | {heads} | MB per added block |",
        f"|---|{'---:|' * (len(depths) + 1)}",
    ]
    ratios = []
    for kind, title in KINDS.items():
        slopes = {}
        for way in WAYS:
            peaks = [peak(kind, way, depth) for depth in depths]
            slopes[way] = slope(depths, peaks)
            facts["peaks"][f"{kind}, {way}"] = peaks
            cells = " | ".join(f"{one / 1e6:.1f}" for one in peaks)
            lines.append(f"| {title}, {way} | {cells} | {slopes[way] / 1e6:.3f} |")
        for way, name in (("local", "local"), ("recorded whole", "whole")):
            figures[f"memory_{kind}_{name}_slope_ratio"] = slopes[way] / slopes["end to end"]
        ratios.append(slopes["local"] / slopes["end to end"])
    figures["memory_slope_ratio"] = max(ratios)
    return {"figures": figures, "lines": lines, "facts": facts}


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
