"""What our engine costs over the bare loop, and what the tutorial loop costs: cross-entropy alone.

Same network (16-channel ResNet-8), rows (CIFAR-100), batch, threads, optimizer and number of
steps; crop and flip in all three arms. *Bare loop*: tensors in memory, vectorised views,
channels-last, nothing else. *Tutorial loop*: DataLoader with 2 workers, per-image transforms,
NCHW, eager. The arms take turns, `ROUNDS` times; the figures are medians of ratios within a round.

Without the real images (UNDERSTUDY_DATA) random ones stand in, and the table says so: the time of
a step does not depend on what is in the picture.
"""

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from harness import mode, paste, record
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from understudy.data.loaders import MemoryLoader
from understudy.data.preprocess import Preprocess
from understudy.data.views import Crop, Flip, Views
from understudy.engine import fit
from understudy.models import CifarResNet
from understudy.models.deployable import Deployable
from understudy.objective import control_objective
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.tasks import Classification

BATCH, CLASSES, PADDING = 64, 100, 4
MEAN, STD = [0.507, 0.487, 0.441], [0.267, 0.256, 0.276]
ROWS, EPOCHS, ROUNDS = (16384, 2, 7) if mode() == "full" else (8192, 1, 5)


def images() -> tuple[np.ndarray, np.ndarray, str]:
    """The first rows of CIFAR-100, or random stand-ins."""
    folder = Path(os.environ.get("UNDERSTUDY_DATA", "../shared/data")) / "cifar100"
    if folder.is_dir():
        from understudy.data.parquet_files import parquet

        rows = parquet(path=str(folder / "test.parquet"), image="img", target="fine_label")
        repeat = -(-ROWS // len(rows))
        inputs = np.concatenate([rows.inputs] * repeat)[:ROWS]
        return inputs, np.concatenate([rows.labels] * repeat)[:ROWS], "CIFAR-100"
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)
    return inputs, draw.integers(0, CLASSES, ROWS), "random images"


def network() -> nn.Module:
    """The student, always from the same start."""
    torch.manual_seed(0)
    return CifarResNet(channels=3, width=CLASSES, depth=8, base=16, shortcut="B")


def ours(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Seconds of `fit`, its set-up included."""
    preprocess = Preprocess.from_description(description())
    net = network().to(memory_format=torch.channels_last)
    model = Deployable(preprocess=preprocess, network=net, width=CLASSES)
    task = Classification(classes=tuple(str(i) for i in range(CLASSES)))
    loader = MemoryLoader(
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        ids=torch.arange(len(inputs)),
        positions=np.arange(len(inputs)),
        batch_size=BATCH,
        views=Views([Crop(padding=PADDING), Flip()]),
        seed=0,
    )
    optimizer = Optimizer(kind="sgd", learning_rate=0.05, weight_decay=0.0005)
    schedule = LearningRate(kind="constant", warm_up=0.0)
    started = time.perf_counter()
    fit(
        student=model,
        objective=control_objective([], task=task),
        teacher=None,
        training=Training(epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, schedule=schedule),
        loader=loader,
        validation=None,
        validate=None,
    )
    return time.perf_counter() - started


def description() -> dict:
    """The preprocessing that all arms do in their own way."""
    from understudy.data.preprocess import fit_preprocess
    from understudy.data.rows import Rows

    rows = Rows(
        inputs=np.zeros((4, 32, 32, 3), np.uint8),
        labels=np.zeros(4, np.int64),
        ids=np.arange(4),
        form="image",
        classes=("a", "b"),
    )
    return fit_preprocess(rows, np.arange(4), scale=255.0, mean=MEAN, std=STD).describe()


def bare(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Seconds of the fastest plain loop: everything prepared that can be."""
    images = torch.from_numpy(inputs).float().div_(255)
    images.sub_(torch.tensor(MEAN)).div_(torch.tensor(STD))
    images = nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    targets = torch.from_numpy(labels)
    net = network().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005)
    span = torch.arange(32)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            count = len(index)
            y = torch.randint(0, 2 * PADDING + 1, (count, 1)) + span
            x = torch.randint(0, 2 * PADDING + 1, (count, 1)) + span
            x = torch.where(torch.rand(count, 1) < 0.5, x.flip(1), x)
            batch = images[index[:, None, None], y[:, :, None], x[:, None, :]]
            loss = nn.functional.cross_entropy(net(batch.permute(0, 3, 1, 2)), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


class PerImage(Dataset):
    """One image at a time, as tutorials do it."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Hold the arrays."""
        self.inputs, self.labels = inputs, labels
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.inputs[index]).permute(2, 0, 1)
        image = nn.functional.pad(image, (PADDING,) * 4)
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = image[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - self.mean) / self.std, int(self.labels[index])


def tutorial(inputs: np.ndarray, labels: np.ndarray) -> float:
    """Seconds of the loop that everybody writes."""
    loader = DataLoader(PerImage(inputs, labels), batch_size=BATCH, shuffle=True, num_workers=2)
    net = network().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        for batch, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(batch), targets)
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, record."""
    inputs, labels, what = images()
    arms = {"ours": ours, "bare": bare, "tutorial": tutorial}
    for arm in arms.values():
        arm(inputs[: BATCH * 8], labels[: BATCH * 8])  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            seconds[name].append(arm(inputs, labels))
    ratio = statistics.median(o / b for o, b in zip(seconds["ours"], seconds["bare"], strict=True))
    gain = statistics.median(
        t / o for o, t in zip(seconds["ours"], seconds["tutorial"], strict=True)
    )
    figures = {"ratio": ratio, "tutorial_over_ours": gain}
    table = Table(title=f"cross-entropy, ResNet-8, {what}, {ROWS} rows, batch {BATCH}")
    for head in ("arm", "median seconds", "images/s"):
        table.add_column(head, justify="left" if head == "arm" else "right")
    for name, found in seconds.items():
        median = statistics.median(found)
        figures[f"{name}_seconds"] = median
        table.add_row(name, f"{median:.2f}", f"{ROWS * EPOCHS / median:,.0f}")
    Console().print(table)
    sentence = (
        f"ours takes {ratio:.3f} times the bare loop; the tutorial loop takes {gain:.2f} times ours"
    )
    Console().print(sentence)
    record("engine_overhead", figures, seeds=[0], mode=mode())
    lines = ["| arm | median seconds | images/s |", "|---|---:|---:|"]
    for name in arms:
        median = figures[f"{name}_seconds"]
        lines.append(f"| {name} | {median:.2f} | {ROWS * EPOCHS / median:,.0f} |")
    text = "\n".join(
        [*lines, "", f"{sentence[0].upper()}{sentence[1:]} ({what}, {ROUNDS} rounds)."]
    )
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste(text, name="engine_overhead", page=page)


if __name__ == "__main__":
    main()
