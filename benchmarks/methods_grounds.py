"""The two grounds on which methods are compared: rows, a teacher, what it told, and a student.

`cifar`: the real ResNet-32 into our 16-channel ResNet-8 on CIFAR-100. `vit`: our vision transformer
of six layers, trained here once, into one of two layers and half the width on Fashion-MNIST. Each
teacher is asked once, in all views and all layers, for all methods.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cifar_loops
import numpy as np
import torch
from harness import mode
from torch import nn

from understudy import build
from understudy.contracts import Batch
from understudy.data.idx_files import idx
from understudy.data.loaders import MemoryLoader
from understudy.data.preprocess import Preprocess, fit_preprocess
from understudy.data.rows import Rows
from understudy.data.views import Crop, Flip, Views
from understudy.engine import fit
from understudy.errors import RunError
from understudy.folders import Lock
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.store import LabelStore
from understudy.models import VisionTransformer
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.objective import Objective
from understudy.recipe import LearningRate, Optimizer, Source, TermEntry, Training
from understudy.tasks import Classification
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.torch_module import TorchTeacher

FULL = mode() == "full"
ROWS, EPOCHS, SPLIT = (15_000, 10, (4, 6)) if FULL else (1_000, 1, (1, 1))
VIEWS = 2
FOLDER = Path(__file__).parent.parent / "runs" / "benchmarks" / "methods" / mode()
LAYERS = {
    "cifar": ("layer1", "layer2", "layer3", "linear:input"),
    "vit": ("blocks.2", "blocks.5", "blocks.2.attention.qkv", "blocks.5.attention.qkv"),
}
GARMENTS = Classification(classes=tuple(str(number) for number in range(10)))
TEACHER_ROWS, TEACHER_EPOCHS = (60_000, 10) if FULL else (1_000, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Everything that the methods on one ground share.

    Attributes:
        inputs: raw training rows.
        targets: their classes.
        test: raw test rows.
        truth: their classes.
        task: what is learned.
        views: the same for every seed, as the stored answers are.
        teacher: raw rows to answers.
        store: what it told.
        student: from the start weights of a seed.
        training: of so many epochs.
    """

    inputs: np.ndarray
    targets: np.ndarray
    test: np.ndarray
    truth: np.ndarray
    task: Classification
    views: Views
    teacher: Deployable
    store: Path
    student: Callable[[int], Deployable]
    training: Callable[[int], Training]

    def loader(self, *, seed: int, length: int | None = None) -> MemoryLoader:
        """The training rows, in the stored views."""
        return MemoryLoader(
            inputs=torch.from_numpy(self.inputs),
            labels=torch.from_numpy(self.targets),
            ids=torch.arange(len(self.inputs)),
            positions=np.arange(len(self.inputs)),
            batch_size=cifar_loops.BATCH,
            views=self.views,
            seed=seed,
            cycle=VIEWS,
            length=length,
        )

    def told(self, needs: frozenset[str]) -> CachedTeacher | None:
        """The stored knowledge that is needed, and no other: reading takes time too."""
        return CachedTeacher(_opened(self.store, needs)) if needs else None


def held(name: str) -> ExitStack | None:
    """What only one process does at a time, until the stack is closed; None: another one does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(Lock(FOLDER / "locks" / name))
        except RunError:
            return None
        return stack.pop_all()


def waited(name: str) -> ExitStack:
    """The same, once the others are through with it."""
    while (stack := held(name)) is None:
        time.sleep(5)
    return stack


@cache
def ground(name: str) -> Ground:
    """One of the two, its store made where it is not there yet."""
    return _cifar() if name == "cifar" else _garments()


def right(model: nn.Module, rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Which rows a model answers rightly."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), 500):
            answer = model(torch.from_numpy(rows[start : start + 500]))
            found.append(answer.argmax(dim=1).numpy() == truth[start : start + 500])
    return np.concatenate(found)


def first_of_each(labels: np.ndarray, rows: int) -> np.ndarray:
    """Positions of the first rows of every class, equally many, in their order."""
    classes = np.unique(labels)
    every = [np.flatnonzero(labels == c)[: rows // len(classes)] for c in classes]
    return np.sort(np.concatenate(every))


def _cifar() -> Ground:
    inputs, targets = cifar_loops.images(50_000)
    test, truth = cifar_loops.images(10_000, file="test.parquet")
    chosen = first_of_each(targets, ROWS)
    teacher = cifar_loops.deployable(cifar_loops.teacher_network(32), channels_last=False)
    made = Ground(
        inputs=inputs[chosen],
        targets=targets[chosen],
        test=test,
        truth=truth,
        task=cifar_loops.TASK,
        views=cifar_loops.views(),
        teacher=teacher.eval(),
        store=FOLDER / "cifar",
        student=lambda seed: cifar_loops.deployable(cifar_loops.student_network(seed)),
        training=lambda epochs: cifar_loops.training(epochs, schedule="cosine"),
    )
    _ask(made, "cifar", teacher="ResNet-32")
    return made


def _garments() -> Ground:
    home = cifar_loops.folder() / "fashion-mnist"
    rows = idx(
        inputs=str(home / "train-images-idx3-ubyte.gz"),
        labels=str(home / "train-labels-idx1-ubyte.gz"),
    )
    test = idx(
        inputs=str(home / "t10k-images-idx3-ubyte.gz"),
        labels=str(home / "t10k-labels-idx1-ubyte.gz"),
    )
    inputs, targets = np.array(rows.inputs), np.array(rows.labels)
    chosen = first_of_each(targets, ROWS)
    made = Ground(
        inputs=inputs[chosen],
        targets=targets[chosen],
        test=np.array(test.inputs),
        truth=np.array(test.labels),
        task=GARMENTS,
        views=Views([Crop(padding=2), Flip()]),
        teacher=_transformer(rows, depth=6, dim=64, seed=0),
        store=FOLDER / "vit",
        student=lambda seed: _transformer(rows, depth=2, dim=32, seed=seed),
        training=_transformer_training,
    )
    weights = FOLDER / "vit-teacher.safetensors"
    _train_teacher(made, inputs, targets, weights)
    mark = hashlib.sha256(weights.read_bytes()).hexdigest()
    _ask(made, "vit", teacher=mark)
    return made


def _transformer(rows: Rows, *, depth: int, dim: int, seed: int) -> Deployable:
    few = replace(rows, inputs=rows.inputs[:4], labels=rows.labels[:4], ids=rows.ids[:4])
    facts = fit_preprocess(few, np.arange(4), scale=255.0, mean=[0.286], std=[0.353]).describe()
    torch.manual_seed(seed)
    network = VisionTransformer(
        channels=1, height=28, image_width=28, width=10, patch=4, dim=dim, depth=depth, heads=4
    )
    preprocess = Preprocess.from_description(facts)
    return Deployable(preprocess=preprocess, network=network, width=10)


def _transformer_training(epochs: int) -> Training:
    return Training(
        epochs=epochs,
        batch_size=cifar_loops.BATCH,
        optimizer=Optimizer(kind="adamw", learning_rate=0.001, weight_decay=0.05),
        schedule=LearningRate(kind="cosine", warm_up=0.05),
    )


def _train_teacher(made: Ground, inputs: np.ndarray, targets: np.ndarray, weights: Path) -> None:
    if not weights.is_file():
        loader = MemoryLoader(
            inputs=torch.from_numpy(inputs),
            labels=torch.from_numpy(targets),
            ids=torch.arange(len(inputs)),
            positions=np.arange(TEACHER_ROWS),
            batch_size=cifar_loops.BATCH,
            views=made.views,
            seed=0,
        )
        hard = build.terms([TermEntry(kind="hard_label")], Source())
        print("training the transformer that teaches", file=sys.stderr)
        fit(
            student=made.teacher,
            objective=Objective(hard, task=made.task, offers=frozenset()),
            teacher=None,
            training=_transformer_training(TEACHER_EPOCHS),
            loader=loader,
            validation=None,
            validate=None,
            folder=FOLDER / "vit-teacher",
        )
        save_weights(made.teacher, weights)
    load_into(made.teacher, read_weights(weights), source=str(weights))
    made.teacher.eval()


def _ask(made: Ground, name: str, *, teacher: str) -> None:
    """Store what the teacher tells of every row in every view: its answer, and its layers."""
    size, count = 250, len(made.inputs)
    loader = made.loader(seed=0)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for first in range(start, stop, size):
            rows = np.arange(first, min(first + size, stop))
            yield loader.batch(rows % count, 1 + rows // count)

    portions = cut(batches, rows=count * VIEWS, batch_size=size, shard_rows=1_000)
    half = codecs.make("dense", {"precision": "float16"}, {})
    whole = codecs.make("dense", {}, {})
    keep = {layer: Keep(codec=half, reads=layer) for layer in LAYERS[name]}
    record(
        engine=Serial(TorchTeacher(made.teacher, output="logits", spots=LAYERS[name]), portions),
        rows=portions.rows,
        keep=keep | {"logits": Keep(codec=whole, reads="logits")},
        place=LocalPlace(made.store),
        fingerprints={"teacher": teacher, "data": f"{name}, {count} rows, {VIEWS} views"},
        made={"batch_size": size},
    )


@cache
def _opened(folder: Path, needs: frozenset[str]) -> LabelStore:
    store = LabelStore(folder)
    store.verify()  # now, or it would be a part of the first epoch's time
    known = store.manifest.fields
    store.manifest = replace(store.manifest, fields={name: known[name] for name in sorted(needs)})
    return store
