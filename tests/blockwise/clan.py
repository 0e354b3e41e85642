"""A small trained network with taught candidates: what the tests of families and groups share.

The rows are random numbers around six centres, which lie in two heaps of three.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.blockwise import assembling
from understudy.blockwise.candidates import remembered
from understudy.blockwise.learning import Learning
from understudy.blockwise.partition import partition
from understudy.blockwise.scores import damages
from understudy.blockwise.sources import record
from understudy.blockwise.workers import distil_all
from understudy.data.loaders import MemoryLoader
from understudy.evaluate.cost import parameters

WIDTH, ROWS, LEARN = 16, 360, 240
HEAPS = ((0, 2, 4), (1, 3, 5))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(WIDTH, 32)
        self.two = nn.Linear(32, WIDTH)

    def forward(self, stream):
        return stream + self.two(torch.relu(self.one(stream)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 6)

    def forward(self, rows):
        stream = self.stem(rows)
        for block in self.blocks:
            stream = block(stream)
        return self.head(stream)


@dataclass
class Clan:
    network: nn.Module
    inputs: torch.Tensor
    labels: torch.Tensor
    parts: Any
    offered: dict
    modules: dict
    menu: Any

    def batches(self, positions, seed):
        return MemoryLoader(
            inputs=self.inputs, labels=self.labels, ids=torch.arange(ROWS), positions=positions,
            batch_size=24, seed=seed,
        )  # fmt: skip


def rows():
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % 6
    heap = torch.where(labels % 2 == 0, 4.0, -4.0)
    around = torch.randn(6, 4, generator=draws)
    inputs = around[labels] + heap[:, None] * torch.tensor([1.0, 0, 0, 0])
    return inputs + 0.6 * torch.randn(ROWS, 4, generator=draws), labels


def clan(folder):
    """The whole way of one network, as far as a menu."""
    inputs, labels = rows()
    torch.manual_seed(0)
    network = Net()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[:LEARN]), labels[:LEARN]).backward()
        optimizer.step()
    network.eval()
    parts = partition(network, inputs, by="block", measure=False)
    sources = record(network, parts, inputs, folder / "record", precision="float32")
    use = assembling.Rows(
        learn=np.arange(LEARN), validation=np.arange(LEARN, ROWS), calibration=np.arange(64)
    )
    quick = remembered(lambda module, call, **_: float(parameters(module)) + 1.0)
    libraries = assembling.offer(
        network, parts, sources, use.calibration, kinds=("narrower", "skip"),
        shares={"narrower": (0.5, 0.25)}, measure=quick,
    )  # fmt: skip
    offered = {block: one.candidates for block, one in libraries.items()}
    work = assembling.pairs(
        network, parts, offered, sources, use,
        folder=folder / "local", learning=Learning(epochs=2, batch_size=24),
    )  # fmt: skip
    modules = assembling.taught(network, parts, work, distil_all(work))
    found = damages(network, parts, modules, inputs[LEARN:], output="logits")
    menu = assembling.menu(network, parts, offered, found)
    return Clan(network, inputs, labels, parts, offered, modules, menu)
