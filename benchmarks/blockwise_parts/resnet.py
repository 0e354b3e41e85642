"""The real ResNet-32 on CIFAR-100, for `blockwise`."""

import copy
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_loops import CLASSES, TASK, Remembered, deployable, images, teacher_network, views
from torch import nn

from blockwise_parts.finish import finished, passes
from blockwise_parts.local_pass import Ground
from understudy.blockwise.assembling import Rows
from understudy.blockwise.learning import Learning
from understudy.data.loaders import MemoryLoader
from understudy.engine import fit
from understudy.errors import ModelError
from understudy.losses import HardLabel, SoftTargetKL
from understudy.objective import Objective, Term
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.students.width import cut_width, plan_width

BATCH, PORTION = 64, 250
SHARES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
KINDS = ("keep", "narrower", "separable", "skip")
OFFERED: Mapping[str, tuple[float, ...]] = {"narrower": (0.75, 0.5)}
BUDGETS = (0.8, 0.6, 0.45)
RATES: Mapping[str, tuple[float, ...]] = {
    "blockwise": (0.003, 0.01, 0.03),
    "scaled": (0.02, 0.05, 0.1),
    "pruned": (0.02, 0.05),
}
# By mode: training images, held-out ones, test images, views; rows and epochs of the local pass.
SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"depth": 8, "train": 256, "held": 128, "test": 200, "views": 1, "local": 128,
             "passes": 1, "epochs": 1, "seeds": 2, "draws": 5},
    "reduced": {"depth": 32, "train": 4_000, "held": 1_000, "test": 3_000, "views": 2,
                "local": 1_280, "passes": 3, "epochs": 2, "seeds": 3, "draws": 24},
    "full": {"depth": 32, "train": 20_000, "held": 5_000, "test": 10_000, "views": 4,
             "local": 4_096, "passes": 8, "epochs": 8, "seeds": 3, "draws": 48},
}  # fmt: skip


class Images:
    """CIFAR-100 and its ResNet-32; a `Ground`."""

    name, output = "resnet", "logits"

    def __init__(self, mode: str) -> None:
        """Read the images, ask the teacher for all its answers, and draw the local rows."""
        self.size = size = SIZES[mode]
        self.kinds, self.shares, self.budgets, self.rates = KINDS, OFFERED, BUDGETS, RATES
        inputs, labels = images(size["train"] + size["held"])
        self.train_rows = inputs[: size["train"]], labels[: size["train"]]
        self.held_rows = inputs[size["train"] :], labels[size["train"] :]
        self.test_rows = images(size["test"], file="test.parquet")
        teacher = deployable(teacher_network(size["depth"])).eval()
        self.network, self.preprocess = teacher.network, teacher.preprocess
        self.local = Learning(epochs=size["passes"], batch_size=32, learning_rate=0.005)
        self.epochs, self.draws, self.seeds = size["epochs"], size["draws"], range(size["seeds"])
        source = self.loader(*self.train_rows, seed=0)
        told = torch.zeros(size["views"], size["train"], CLASSES)
        with torch.inference_mode():
            for view in range(1, size["views"] + 1):
                for start in range(0, size["train"], PORTION):
                    rows = np.arange(start, min(start + PORTION, size["train"]))
                    seen = source.batch(rows, np.full(len(rows), view)).inputs
                    told[view - 1, rows] = teacher(seen)
        self.told = Remembered(told)
        count, own = size["local"], max(64, size["local"] // 8)
        # Each from another image, in the views that global distillation sees too.
        place = np.arange(count)
        seen = source.batch(place, 1 + place % size["views"]).inputs
        with torch.no_grad():
            self.held = self.preprocess(torch.from_numpy(self.held_rows[0][:384]))
            both = torch.from_numpy(self.held_rows[0][-own:])
            self.rows = torch.cat([self.preprocess(seen), self.preprocess(both)])
        self.split = Rows(
            learn=place,
            validation=np.arange(count, count + own),
            calibration=np.arange(min(64, count)),
        )
        self.example = self.rows[:2]

    def loader(self, inputs: np.ndarray, labels: np.ndarray, *, seed: int) -> MemoryLoader:
        """Cropped and flipped, the same few views again and again."""
        return MemoryLoader(
            inputs=torch.from_numpy(inputs),
            labels=torch.from_numpy(labels),
            ids=torch.arange(len(inputs)),
            positions=np.arange(len(inputs)),
            batch_size=BATCH,
            views=views(),
            seed=seed,
            cycle=self.size["views"],
        )

    def train(
        self, network: nn.Module, *, epochs: int, rate: float, seed: int, folder: Path
    ) -> None:
        """Soft targets and classes, as in `students`."""
        self._fit(network, self.train_rows, epochs, rate, seed, folder)

    def _fit(
        self, network: nn.Module, rows: Any, epochs: int, rate: float, seed: int, folder: Path
    ) -> None:
        soft = SoftTargetKL(temperature=4.0)
        terms = [
            Term(name="hard", loss=HardLabel(), reads="logits", labels=True, weight=0.1),
            Term(name="soft", loss=soft, reads="logits", needs=("logits",), weight=0.9),
        ]
        fit(
            student=deployable(network),
            objective=Objective(terms, task=TASK, offers=self.told.offers),
            teacher=self.told,
            training=Training(
                epochs=epochs,
                batch_size=BATCH,
                optimizer=Optimizer(kind="sgd", learning_rate=rate, weight_decay=0.0005),
                schedule=LearningRate(kind="cosine"),
            ),
            loader=self.loader(*rows, seed=seed),
            validation=None,
            validate=None,
            seed=seed,
            folder=folder,
        )

    def epoch_seconds(self, network: nn.Module, folder: Path) -> float:
        """From the difference of a shorter and a longer run, without what both begin with."""
        inputs, labels = self.train_rows
        # The first one loads what the others find loaded.
        spent, counts = [], [2 * BATCH, 2 * BATCH, 8 * BATCH]
        for count in counts:
            part = min(count, len(inputs))
            began = time.process_time()
            where = folder / f"{count}-{began}"
            self._fit(network, (inputs[:part], labels[:part]), 1, 1e-4, 0, where)
            spent.append((time.process_time() - began, part))
        _, (short, few), (long, many) = spent
        return max(long - short, long / 2) / max(many - few, 1) * len(inputs)

    def _score(self, network: nn.Module, rows: Any) -> float:
        inputs, labels = rows
        module, right = deployable(network).eval(), 0
        with torch.inference_mode():
            for start in range(0, len(inputs), PORTION):
                answer = module(torch.from_numpy(inputs[start : start + PORTION]))
                right += int((answer.argmax(1).numpy() == labels[start : start + PORTION]).sum())
        return 100 * right / len(inputs)

    def validate(self, network: nn.Module) -> float:
        """Accuracy on held-out training images, which the teacher has learned from."""
        return self._score(network, self.held_rows)

    def test(self, network: nn.Module, *, share: float = 1.0) -> float:
        """Accuracy on test images."""
        count = round(share * self.size["test"])
        return self._score(network, [part[:count] for part in self.test_rows])

    @cache  # noqa: B019 - there is one ground per process
    def pruned(self) -> dict[str, nn.Module]:
        """Every layer with the same share of its channels, chosen by magnitude."""
        found: dict[str, nn.Module] = {}
        for share in SHARES:
            try:
                plan = plan_width(self.network, self.rows[:4], keep=share, protect_ends=False)
            except ModelError as error:
                print(f"pruned to {share}: {error}", file=sys.stderr)
                continue
            found[f"width-{share:g}"] = cut_width(self.network, plan, self.rows[:4]).module
        return found

    def scaled(self) -> dict[str, nn.Module]:
        """Fewer channels in all layers alike, or fewer blocks in all stages alike."""
        kind = type(self.network)
        made = {f"depth-{d}": kind((d - 2) // 6) for d in range(8, self.size["depth"], 6)}
        return {**self.pruned(), **made}

    def fresh(self, network: nn.Module, seed: int) -> nn.Module:
        """As He et al. start them."""
        made = copy.deepcopy(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in made.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return made


def measure(mode: str, out: Path) -> dict[str, Any]:
    """The race, its figures and its table."""
    ground: Ground = Images(mode)
    size = SIZES[mode]
    words = (
        f"ResNet-32 on CIFAR-100: {size['train']:,} images, {passes(size['epochs'])} of global "
        f"distillation after a local pass of {passes(size['passes'])} over {size['local']:,} rows"
    )
    return finished(ground, out, words)
