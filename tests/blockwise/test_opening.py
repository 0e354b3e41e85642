"""Blocks that lie on the disk are what they were, and what is held of them has no numbers."""

import pickle
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from understudy.blockwise.candidates import candidates
from understudy.blockwise.form import passing, piece
from understudy.blockwise.learning import Learning
from understudy.blockwise.making import make
from understudy.blockwise.opening import Opening, Shelved, shelve
from understudy.blockwise.partition import partition
from understudy.blockwise.sources import record
from understudy.blockwise.workers import Pair, distil_all
from understudy.errors import ModelError
from understudy.models import VisionTransformer


class Odd(nn.Module):
    """A buffer that no state dict has, and one layer in two places."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(30, 30)
        self.two = self.one
        self.norm = nn.BatchNorm1d(30)
        self.register_buffer("table", torch.arange(30.0), persistent=False)

    def forward(self, rows):
        return self.two(self.norm(self.one(rows))) + self.table


def test_a_module_comes_back_as_it_was_put_away(tmp_path):
    torch.manual_seed(0)
    module, rows = Odd(), torch.randn(8, 30)
    module(rows)
    module.eval()
    shelved = shelve(module, tmp_path / "deep" / "odd.safetensors")
    data = pickle.dumps(shelved)
    assert len(data) < 10_000
    back = pickle.loads(data).module()
    assert torch.equal(back(rows), module(rows))
    assert {p.device.type for p in shelved.skeleton.parameters()} == {"meta"}


def test_a_file_of_another_module_is_refused(tmp_path):
    shelve(nn.Linear(3, 3), tmp_path / "a.safetensors")
    skeleton = nn.Sequential(nn.Linear(3, 3)).to("meta")
    with pytest.raises(ModelError, match=r"is not of this block \(`0.weight`\)"):
        Shelved(skeleton=skeleton, path=tmp_path / "a.safetensors").module()
    with pytest.raises(ModelError, match="do not exist"):
        Shelved(skeleton=skeleton, path=tmp_path / "b.safetensors").module()
    with pytest.raises(ValueError, match=r"must end with .safetensors, but got block\.0"):
        shelve(nn.Linear(3, 3), tmp_path / "block.0")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give back at once")
def test_blocks_that_are_put_away_one_after_the_other_leave_no_memory_behind(tmp_path):
    program = """
import sys
from pathlib import Path
import torch
from torch import nn
from understudy.blockwise.opening import shelve

def resident():
    told = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return 1024 * int(told.split()[0])

def block():
    return nn.Sequential(nn.Linear(512, 1024), nn.Linear(1024, 512))

torch.set_num_threads(1)
kept = [shelve(block(), Path(sys.argv[1]) / "0.safetensors")]
before = resident()
kept += [shelve(block(), Path(sys.argv[1]) / f"{n}.safetensors") for n in range(1, 25)]
print(resident() - before, 24 * kept[0].path.stat().st_size)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    grown, written = map(int, done.stdout.split())
    assert grown < 0.15 * written


def test_blocks_from_files_are_planned_made_and_taught(tmp_path):
    """Random images in the place of data, and no clock: every candidate takes no time."""
    torch.manual_seed(0)
    network = VisionTransformer(
        channels=1, height=8, image_width=8, width=5, patch=4, dim=16, depth=2, heads=4
    ).eval()
    rows = torch.randn(24, 1, 8, 8)
    parts = partition(network, rows)
    sources = record(network, parts, rows, tmp_path / "recorded", batch_size=8)
    pairs = []
    for block in parts.blocks:
        opening = Opening(
            piece=shelve(piece(network, block), tmp_path / f"{block.name}.safetensors"),
            source=sources[block.name],
            rows=np.arange(16),
            validation=np.arange(16, 24),
            calibration=np.arange(8),
        )
        material = opening()
        found = candidates(
            material.piece, material.call, kinds=("linear_attention", "skip"),
            measure=lambda module, call, *, threads, batch: 0.0,
        )  # fmt: skip
        assert [one.kind for one in found] == ["linear_attention", "skip"]
        how = Learning(epochs=3, batch_size=8)
        pairs += [
            Pair(
                block=block.name,
                candidate=one,
                open=opening,
                folder=tmp_path / "pairs",
                learning=how,
            )
            for one in found
        ]
    told = distil_all(pairs)
    # Mapped files count as memory, and would stay for all blocks that were worked at.
    assert {source._reading for source in sources.values()} == {None}
    assert [one["kept"] for one in told.values()] == ["end", "start"] * 2
    assert all(one["loss"] < one["start"] for n, one in told.items() if "linear" in n)
    calls = passing(network, parts, rows)
    for one in pairs[::2]:
        material = one.open()
        module = make(one.candidate, material.piece, material.call, one.learning.seed)
        # Float16 rows plan the same attention as exact ones.
        other = make(one.candidate, material.piece, calls[one.block], one.learning.seed)
        for name, value in module.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
