"""What the CIFAR-100 speed benchmarks share: images, real teachers, our student, a plain loop."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from understudy.contracts import Batch, Knowledge
from understudy.data.preprocess import Preprocess
from understudy.data.views import Crop, Flip, Views
from understudy.losses import soft_target_kl
from understudy.models import CifarResNet
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.tasks import Classification

CLASSES, PADDING, BATCH, TEMPERATURE, SOFT = 100, 4, 64, 4.0, 0.9
MEAN, STD = [0.507, 0.487, 0.441], [0.267, 0.256, 0.276]
Precision = Literal["float32", "bfloat16", "auto"]
TASK = Classification(classes=tuple(str(number) for number in range(CLASSES)))


class Remembered:
    """A teacher whose answers to every row, or to every view of it, are in memory."""

    def __init__(self, answers: Tensor, *, field: str = "logits") -> None:
        """Hold `[rows, width]`, or `[views, rows, width]` with views that count from 1."""
        self.answers, self.field = answers, field
        self.offers = frozenset({field})

    def __call__(self, batch: Batch) -> Knowledge:
        """By id, and by view where there are several."""
        assert batch.ids is not None
        if self.answers.ndim == 2:
            return Knowledge(fields={self.field: self.answers[batch.ids]})
        assert batch.views is not None
        return Knowledge(fields={self.field: self.answers[batch.views - 1, batch.ids]})


def folder() -> Path:
    """Where the data sets are."""
    return Path(os.environ.get("UNDERSTUDY_DATA", "../shared/data"))


def images(rows: int, *, file: str = "train.parquet") -> tuple[np.ndarray, np.ndarray]:
    """The first rows of real CIFAR-100, uint8 `[rows, 32, 32, 3]`, and their classes."""
    from understudy.data.parquet_files import parquet

    path = folder() / "cifar100" / file
    if not path.is_file():
        raise SystemExit(f"this needs the real CIFAR-100: {path} is not there (UNDERSTUDY_DATA)")
    found = parquet(path=str(path), image="img", target="fine_label")
    return np.array(found.inputs[:rows]), np.array(found.labels[:rows])


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


def teacher_network(depth: int) -> nn.Module:
    """A real trained network, in evaluation mode."""
    home = folder() / "weights-cifar100"
    spec = importlib.util.spec_from_file_location("cifar_network", home / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.cifar_resnet(depth)
    path = home / f"resnet{depth}_cifar100.pt"
    load_into(network, read_weights(path), source=str(path))
    return network.eval()


def student_network(seed: int = 0) -> nn.Module:
    """The 16-channel ResNet-8, always from the same start."""
    torch.manual_seed(seed)
    return CifarResNet(channels=3, width=CLASSES, depth=8, base=16, shortcut="B")


def deployable(network: nn.Module, *, channels_last: bool = True) -> Deployable:
    """A network of raw rows."""
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    preprocess = Preprocess.from_description(description())
    return Deployable(preprocess=preprocess, network=network, width=CLASSES)


def views() -> Views:
    """Crop and flip."""
    return Views([Crop(padding=PADDING), Flip()])


def training(
    epochs: int, *, schedule: str = "constant", precision: Precision = "float32"
) -> Training:
    """SGD as it is usual for this data set."""
    return Training(
        epochs=epochs,
        batch_size=BATCH,
        precision=precision,
        optimizer=Optimizer(kind="sgd", learning_rate=0.05, weight_decay=0.0005),
        schedule=LearningRate(kind=schedule, warm_up=0.0 if schedule == "constant" else 0.05),
    )


def mean_logits(answers: Sequence[Tensor]) -> Tensor:
    """The mean of several networks' probabilities, as logits."""
    stacked = torch.stack(list(answers)).log_softmax(dim=-1)
    return stacked.logsumexp(dim=0) - float(np.log(len(answers)))


def kd_loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Hinton's combination, the same in every arm."""
    soft = soft_target_kl(student, teacher, temperature=TEMPERATURE).mean()
    return (1 - SOFT) * nn.functional.cross_entropy(student, labels) + SOFT * soft


class PerImage(Dataset):
    """One image at a time, as tutorials do it."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Hold the arrays."""
        self.inputs, self.labels = inputs, labels
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.inputs[index]).permute(2, 0, 1)
        image = nn.functional.pad(image, (PADDING,) * 4)
        top, left = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = image[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - self.mean) / self.std, int(self.labels[index])


class TutorialLoop:
    """The loop that everybody writes: two workers, per-image transforms, NCHW, eager.

    With teachers it asks them under no_grad at every step; without, it is cross-entropy alone.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        teachers: Sequence[nn.Module] = (),
        *,
        half: bool = False,
    ) -> None:
        """Build network, optimizer and loader once, as such a loop does; `half`: all in bfloat16.

        That one is no tutorial's: it shows how much of a difference is one of arithmetic.
        """
        self.half = half
        data = PerImage(inputs, labels)
        self.loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=2)
        self.teachers = list(teachers)
        self.net = student_network().train()
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005
        )

    def epoch(self) -> None:
        """One epoch."""
        for batch, targets in self.loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                answer = self.net(batch)
                with torch.no_grad():
                    answers = [teacher(batch) for teacher in self.teachers]
            answer = answer.float()
            if answers:
                loss = kd_loss(answer, mean_logits([a.float() for a in answers]), targets)
            else:
                loss = nn.functional.cross_entropy(answer, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
