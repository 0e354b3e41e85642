"""A recurrent network cut, distilled and recombined: stacked LSTM layers that read spoken digits.

The teacher is trained here, on recordings 10 to 49 of each speaker and digit; 0 to 4 are the data
set's own test rows, and 5 to 9 hold out the damage. Its layers are blocks (`recurrent.unrolled`);
each learns to be narrower or a linear layer, alone; the program chooses under half the teacher's
parameters, and again under a quarter. Each student is then fine-tuned against the teacher's logits
for a few epochs.

Beside it the same student from fresh weights, with the same loss: for the epochs of the fine-tuning
alone, and for as much processor time as the local distillation of *all* candidates and the
fine-tuning took together.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blockwise_parts.spoken import Listener, Part, found, splits
from understudy.blockwise.assembling import Rows, menu, offer, pairs, stitched, taught
from understudy.blockwise.learning import Learning, rate_factor
from understudy.blockwise.partition import partition
from understudy.blockwise.recombine import choose
from understudy.blockwise.recurrent import unrolled
from understudy.blockwise.scores import Modules, damages
from understudy.blockwise.sources import record
from understudy.blockwise.words import Candidate, Partition
from understudy.blockwise.workers import distil_all
from understudy.losses import soft_target_kl

SEEDS = (0, 1, 2)
# By the prefix of the figures, shares of the teacher's parameters.
BUDGETS = {"recurrent": 0.5, "recurrent_quarter": 0.25}
BATCH, RATE, TEMPERATURE = 64, 2e-3, 2.0
KINDS = ("narrower", "skip", "linear")
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large and how long."""

    hidden: int
    layers: int
    rows: int
    teacher_epochs: int
    local_epochs: int
    tuning_epochs: int


SIZES = {
    "reduced": Sizes(
        hidden=96, layers=3, rows=2400, teacher_epochs=40, local_epochs=8, tuning_epochs=4
    ),
    "full": Sizes(
        hidden=160, layers=3, rows=2400, teacher_epochs=60, local_epochs=20, tuning_epochs=10
    ),
}


def train(network: nn.Module, rows: Tensor, goal: Tensor, loss: Loss, *, epochs: int,
          seed: int) -> float:  # fmt: skip
    """AdamW and a cosine, in place; the seconds of processor time that it took."""
    began, steps = time.process_time(), 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    draws = torch.Generator().manual_seed(seed)
    total = epochs * math.ceil(len(rows) / BATCH)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(rows), generator=draws).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_factor(steps, total)
            optimizer.zero_grad(set_to_none=True)
            loss(network(rows[index]), goal[index]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            steps += 1
    network.eval()
    return time.process_time() - began


def logits_of(network: nn.Module, rows: Tensor) -> Tensor:
    """All answers."""
    with torch.no_grad():
        return torch.cat([network(part) for part in rows.split(256)])


def accuracy(network: nn.Module, part: Part) -> float:
    """In percent."""
    hits = logits_of(network, part.rows).argmax(dim=1) == part.digits
    return 100 * float(hits.double().mean())


def parameters(network: nn.Module) -> int:
    """How many there are."""
    return sum(one.numel() for one in network.parameters())


def imitate(answers: Tensor, goal: Tensor) -> Tensor:
    """The loss of the fine-tuning and of the student from fresh weights."""
    return soft_target_kl(answers, goal, temperature=TEMPERATURE).mean()


def teach(
    teacher: nn.Module, parts: Partition, data: dict[str, Part], sizes: Sizes, folder: Path
) -> tuple[dict[str, Sequence[Candidate]], Modules, float]:
    """All candidates, their taught modules by block and label, and the seconds of teaching."""
    everything = torch.cat([data["train"].rows, data["validation"].rows])
    count = len(data["train"].rows)
    rows = Rows(
        learn=np.arange(count),
        validation=np.arange(count, len(everything)),
        calibration=np.arange(256),
    )
    sources = record(teacher, parts, everything, folder / "recorded")
    libraries = offer(teacher, parts, sources, rows.calibration, kinds=KINDS)
    offered = {block: library.candidates for block, library in libraries.items()}
    learning = Learning(epochs=sizes.local_epochs, batch_size=BATCH, learning_rate=RATE)
    work = pairs(teacher, parts, offered, sources, rows, folder=folder / "pairs", learning=learning)
    began = time.process_time()
    told = distil_all(work)
    seconds = time.process_time() - began
    return offered, taught(teacher, parts, work, told), seconds


def fresh(student: nn.Module, seed: int) -> nn.Module:
    """The same student with weights of its own."""
    made = copy.deepcopy(student)
    torch.manual_seed(seed)
    for module in made.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return made


def measure(mode: str, out: Path) -> dict[str, Any]:
    """The tables of accuracies, one for each budget."""
    del out
    path = found()
    if path is None:
        why = "UNDERSTUDY_DATA is not set, or has no fsdd/fsdd.npz: spoken digits are left out"
        return {"figures": {}, "lines": [why], "facts": {"skipped": why}}
    sizes, data = SIZES[mode], splits(path, most=SIZES[mode].rows)
    torch.manual_seed(0)
    network = Listener(hidden=sizes.hidden, layers=sizes.layers)
    rows, digits = data["train"].rows, data["train"].digits
    train(network, rows, digits, nn.functional.cross_entropy, epochs=sizes.teacher_epochs, seed=0)
    teacher = unrolled(network.eval())
    parts = partition(teacher, rows[:32], measure=False)
    with tempfile.TemporaryDirectory() as folder:
        offered, modules, local = teach(teacher, parts, data, sizes, Path(folder))
    held_out = data["validation"]
    scored = damages(teacher, parts, modules, held_out.rows, held_out.digits, output="logits")
    known = menu(teacher, parts, offered, scored)
    own = accuracy(teacher, data["test"])
    lines = [
        "| spoken digits | parameters | test accuracy |", "|---|---:|---:|",
        line("teacher", teacher, [own]),
    ]  # fmt: skip
    figures: dict[str, float] = {}
    facts: dict[str, Any] = {
        "damages": [one.to_data() for one in scored],
        "local_seconds": local,
        "seeds": list(SEEDS),
        "test_rows": len(data["test"].rows),
        "train_rows": len(rows),
    }
    for prefix, share in BUDGETS.items():
        choice = choose(known, {"parameters": int(share * parameters(teacher))})
        student = stitched(teacher, parts, modules, choice.labels)
        scores, told = trained(student, teacher, data, sizes, local)
        lines += [line(name, student, found_) for name, found_ in scores.items()]
        put, tuned, _, scratch = scores.values()
        figures |= {
            f"{prefix}_accuracy_lost": own - float(np.mean(tuned)),
            f"{prefix}_size_ratio": parameters(student) / parameters(teacher),
            f"{prefix}_stitched_lost": own - float(np.mean(put)),
            f"{prefix}_scratch_lost": own - float(np.mean(scratch)),
        }
        facts[prefix] = {"chosen": dict(choice.labels), "scores": scores, **told}
    return {"figures": figures, "lines": lines, "facts": facts}


def trained(
    student: nn.Module, teacher: nn.Module, data: dict[str, Part], sizes: Sizes, local: float
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Test accuracies of one stitched student, tuned and from fresh weights, and how long."""
    rows, test = data["train"].rows, data["test"]
    goal = logits_of(teacher, rows)
    short = sizes.tuning_epochs
    tuned, brief, long, seconds = [], [], [], []
    for seed in SEEDS:
        one, two = copy.deepcopy(student), fresh(student, seed)
        seconds.append(train(one, rows, goal, imitate, epochs=short, seed=seed))
        train(two, rows, goal, imitate, epochs=short, seed=seed)
        tuned.append(accuracy(one, test))
        brief.append(accuracy(two, test))
    # As many epochs as fit into the time of both stages.
    tuning = float(np.median(seconds))
    epochs = math.ceil((local + tuning) / (tuning / short))
    lasted = []
    for seed in SEEDS:
        other = fresh(student, seed)
        lasted.append(train(other, rows, goal, imitate, epochs=epochs, seed=seed))
        long.append(accuracy(other, test))
    scores = {
        "stitched, not tuned": [accuracy(student, test)],
        f"stitched, tuned for {short} epochs": tuned,
        f"the same from fresh weights, {short} epochs": brief,
        f"the same from fresh weights, {epochs} epochs: the time of both stages": long,
    }
    return scores, {"tuning_seconds": tuning, "scratch_seconds": lasted, "scratch_epochs": epochs}


def line(name: str, network: nn.Module, scores: list[float]) -> str:
    """One row of the table: the mean, and where there are several the least and the most."""
    told = f"{float(np.mean(scores)):.1f}"
    if len(scores) > 1:
        told += f" ({min(scores):.1f} to {max(scores):.1f})"
    return f"| {name} | {parameters(network):,} | {told} |"
