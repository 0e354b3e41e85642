"""Fashion-MNIST at 14x14 pixels, a teacher of residual blocks for it, and how it is measured."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from understudy.blockwise.learning import rate_factor
from understudy.data.idx_files import read_idx
from understudy.deployed import Deployed
from understudy.export.onnx import export_onnx

WIDTH, DEPTH, CLASSES, BATCH = 128, 6, 10, 64


class Block(nn.Module):
    """`x + W2 relu(W1 norm(x))`, the hidden layer twice as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        """The stream and what the block adds."""
        answer: Tensor = stream + self.narrow(torch.relu(self.wide(self.norm(stream))))
        return answer


class Residual(nn.Module):
    """Pixels to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(14 * 14, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        """`[batch, 196]` to `[batch, 10]`."""
        stream = self.stem(rows)
        for block in self.blocks:
            stream = block(stream)
        answer: Tensor = self.head(self.norm(stream))
        return answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Rows to learn from, then those for validation; and the data set's own test rows."""

    rows: Tensor
    labels: Tensor
    learn: int
    test_rows: Tensor
    test_labels: Tensor


def found() -> Path | None:
    """The folder of images, where there is one."""
    name = os.environ.get("UNDERSTUDY_DATA", "")
    folder = Path(name) / "fashion-mnist"
    return folder if name and folder.is_dir() else None


def data_of(folder: Path, *, learn: int, validation: int) -> Data:
    """Means of 2x2 pixels, scaled."""

    def part(name: str, most: int | None) -> tuple[Tensor, Tensor]:
        images = torch.tensor(read_idx(folder / f"{name}-images-idx3-ubyte.gz")[:most])
        labels = torch.tensor(read_idx(folder / f"{name}-labels-idx1-ubyte.gz")[:most])
        small = nn.functional.avg_pool2d(images[:, None].float() / 255, 2).flatten(1)
        return (small - 0.286) / 0.32, labels.long()

    rows, labels = part("train", learn + validation)
    test_rows, test_labels = part("t10k", None)
    return Data(rows=rows, labels=labels, learn=learn, test_rows=test_rows, test_labels=test_labels)


def taught_teacher(data: Data, *, epochs: int) -> nn.Module:
    """AdamW on the labels."""
    torch.manual_seed(0)
    network = Residual()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    total, step = epochs * (data.learn // BATCH), 0
    for _ in range(epochs):
        for index in torch.randperm(data.learn)[: BATCH * (data.learn // BATCH)].split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * rate_factor(step, total)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(
                network(data.rows[index]), data.labels[index], label_smoothing=0.05
            )
            loss.backward()
            optimizer.step()
            step += 1
    return network.eval()


def accuracy(answers: Tensor, labels: Tensor) -> float:
    """In percent."""
    return 100 * float((answers.argmax(dim=1) == labels).double().mean())


def milliseconds(network: nn.Module, rows: Tensor, path: Path) -> float:
    """Of one row, by ONNX Runtime on one thread."""
    made = export_onnx(copy.deepcopy(network).eval(), rows[:2], path, metadata={})
    deployed = Deployed.open(made)
    return deployed.latency(rows[:64].numpy(), batch=1, threads=1, seconds=0.4).median_ms


def spread(scores: Sequence[float]) -> str:
    """The mean, and where there are several the least and the most."""
    mean = f"{float(np.mean(scores)):.1f}"
    return mean if len(scores) == 1 else f"{mean} ({min(scores):.1f} to {max(scores):.1f})"
