"""What the benchmark of language models stands on: a text, models, labels, and one training."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cifar_loops import folder
from torch import nn

from understudy import losses
from understudy.contracts import Teacher
from understudy.data.language_tokens import train_coder
from understudy.data.loaders import MemoryLoader
from understudy.data.packing import Packed, pack, stretches
from understudy.engine import fit
from understudy.labels.codecs.top_k import TopK
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial, record
from understudy.labels.store import LabelStore
from understudy.losses.vocabulary import LinearHead
from understudy.models import GPT
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.objective import AnyObjective, Term, control_of, objective_of, surprised
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.tasks.language_model import LanguageModel
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.causal_teacher import CausalTeacher

# Of the text in order: to learn from, to choose settings by (none was), to judge with.
SHARES = (0.8, 0.1, 0.1)
ASKED = 32
# Usual values: nothing was searched.
HARD, TEMPERATURE, RATE = 0.1, 1.0, 2e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What is trained and timed.

    Attributes:
        vocabulary: tokens of the tokenizer that is trained here.
        context: tokens per row.
        batch: rows per step.
        teacher: its width, blocks and heads.
        student: likewise.
        teacher_epochs: of the teacher's own training.
        epochs: of student and control.
        k: outcomes listed per position.
        seeds: of students and controls.
        rounds: how often each way of training has its turn when it is timed.
        steps: per turn.
        timed_vocabulary: of the models whose epochs are timed.
        timed_teacher: as `teacher`, of those.
        timed_student: as `student`, of those.
        characters: of the text that are used; None for all of them.
    """

    vocabulary: int = 1024
    context: int = 128
    batch: int = 16
    teacher: tuple[int, int, int] = (160, 6, 5)
    student: tuple[int, int, int] = (96, 3, 3)
    teacher_epochs: int = 8
    epochs: int = 4
    k: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rounds: int = 7
    steps: int = 13
    timed_vocabulary: int = 4096
    timed_teacher: tuple[int, int, int] = (256, 6, 4)
    timed_student: tuple[int, int, int] = (128, 2, 4)
    characters: int | None = None


TINY = Sizes(
    vocabulary=300,
    context=32,
    teacher=(32, 2, 2),
    student=(16, 1, 2),
    teacher_epochs=1,
    epochs=1,
    k=8,
    rounds=2,
    steps=4,
    timed_vocabulary=600,
    timed_teacher=(32, 2, 2),
    timed_student=(16, 1, 2),
    characters=40_000,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ground:
    """A text as rows of tokens.

    Attributes:
        task: what is asked.
        train: rows to learn from.
        chosen: rows that settings were chosen by.
        judged: rows that judge.
        sizes: of everything.
    """

    task: LanguageModel
    train: Packed
    chosen: Packed
    judged: Packed
    sizes: Sizes = field(default_factory=Sizes)


def ground(sizes: Sizes, *, vocabulary: int) -> Ground:
    """Tiny Shakespeare, tokenized by a tokenizer that has seen the training part alone."""
    path = folder() / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        raise SystemExit(f"this needs the real text: {path} is not there")
    text = path.read_text(encoding="utf-8")[: sizes.characters]
    parts = list(stretches(text, SHARES))
    coder = train_coder(parts[:1], size=vocabulary)
    rows = [
        pack([document], context=sizes.context, end=coder.end) for document in coder.encode(parts)
    ]
    task = LanguageModel(vocabulary=coder.vocabulary, end=coder.end, special=coder.special)
    return Ground(task=task, train=rows[0], chosen=rows[1], judged=rows[2], sizes=sizes)


def model(on: Ground, shape: tuple[int, int, int], *, seed: int, dropout: float = 0.0) -> GPT:
    """A fresh network of a width, so many blocks and heads."""
    dim, depth, heads = shape
    torch.manual_seed(seed)
    return GPT(
        vocabulary=on.task.vocabulary,
        context=on.train.tokens.shape[1],
        end=on.task.end,
        dim=dim,
        depth=depth,
        heads=heads,
        dropout=dropout,
    )


def loader(rows: Packed, *, batch: int, seed: int | None) -> MemoryLoader:
    """The rows in batches, which say what each position predicts."""
    labels = torch.from_numpy(rows.labels.astype(np.int64))
    return MemoryLoader(
        inputs=torch.from_numpy(rows.tokens),
        labels=labels,
        ids=torch.arange(len(rows)),
        positions=np.arange(len(rows)),
        batch_size=batch,
        seed=seed,
        counted=labels >= 0,
    )


def stored(on: Ground, teacher: nn.Module, place: Path) -> CachedTeacher:
    """The teacher's answers to every training row, top-k and the mass of the rest."""
    asked = loader(on.train, batch=ASKED, seed=None)
    speaker = CausalTeacher(teacher, tells="logits")
    portions = cut(
        lambda start, stop: (
            asked.batch(np.arange(at, min(at + ASKED, stop))) for at in range(start, stop, ASKED)
        ),
        rows=len(on.train),
        batch_size=ASKED,
        shard_rows=1024,
    )
    record(
        engine=Serial(speaker, portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=TopK(k=on.sizes.k, precision="float16"), reads="logits")},
        place=LocalPlace(place),
        fingerprints={"teacher": "benchmark"},
    )
    return CachedTeacher(LabelStore(place))


def aims(on: Ground, teacher: Teacher | None, *, head: LinearHead | None = None) -> AnyObjective:
    """A little of the next token, much of the teacher; without one the next token alone."""
    hard = Term(
        name="hard_label", loss=losses.HardLabel(), reads="logits", labels=True, weight=HARD
    )
    if teacher is None:
        return control_of([hard], task=on.task)
    soft = Term(
        name="soft_target",
        loss=losses.SoftTargetKL(temperature=TEMPERATURE),
        reads="logits",
        needs=("logits",),
        weight=1 - HARD,
    )
    listed = getattr(teacher, "listed", frozenset())
    return objective_of([hard, soft], task=on.task, offers=teacher.offers, listed=listed, head=head)


def taught(
    on: Ground, student: GPT, teacher: Teacher | None, *, epochs: int, seed: int, decay: float = 0.1
) -> GPT:
    """Train a network in place, from a teacher or from the text alone."""
    fit(
        student=student,
        objective=aims(on, teacher),
        teacher=teacher,
        training=Training(
            epochs=epochs,
            batch_size=on.sizes.batch,
            optimizer=Optimizer(kind="adamw", learning_rate=RATE, weight_decay=decay),
            schedule=LearningRate(kind="cosine", warm_up=0.05),
            gradient_clip=1.0,
        ),
        loader=loader(on.train, batch=on.sizes.batch, seed=seed),
        validation=None,
        validate=None,
        seed=seed,
    )
    return student


def kept_or(path: Path, network: GPT, train: Callable[[GPT], object]) -> GPT:
    """The network with the weights of an earlier session, or trained and kept."""
    if path.is_file():
        load_into(network, read_weights(path), source=str(path))
        return network.eval()
    train(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path)
    return network.eval()


def told(on: Ground, rows: Packed, network: GPT) -> dict[str, list[float]]:
    """Nats of text of every row, and what the network finds likeliest at every position."""
    nats: list[float] = []
    best: list[int] = []
    network.eval()
    for batch in loader(rows, batch=ASKED, seed=None):
        with torch.inference_mode():
            found, labels = surprised(network, batch, on.task)
        text = ~torch.isin(labels, torch.tensor(on.task.special))
        assert batch.positions is not None
        table = torch.zeros(batch.positions.shape, dtype=torch.float64)
        table[batch.positions] = found[:, 0] * text
        nats += table.sum(dim=1).tolist()
        best += found[:, 1].long().tolist()
    return {"nats": nats, "best": best}


def threads() -> int:
    """As many as the machine lends, or as OMP_NUM_THREADS says."""
    return int(os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))))


def sizes_of(networks: Sequence[nn.Module]) -> list[int]:
    """The parameters of each."""
    return [sum(p.numel() for p in network.parameters()) for network in networks]
