"""A family and specialists from one local distillation and one label store, on Fashion-MNIST.

The teacher is trained here: residual blocks on 14x14 pixels. Its blocks' candidates are taught once
and it is asked once for every training row. From that come three members of different sizes, and
one specialist for each of two groups of classes, which are found in the stored answers; the
smallest member is the router.

Beside router and specialists stands one student that was chosen from the same candidates for the
same expected operations, and learned from the same store for as many rows as router and
specialists did together.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from blockwise_parts.fashion import (
    BATCH,
    CLASSES,
    Data,
    accuracy,
    data_of,
    found,
    milliseconds,
    spread,
    taught_teacher,
)
from understudy.blockwise import assembling
from understudy.blockwise.candidates import remembered
from understudy.blockwise.family import Member, family, tuned, used
from understudy.blockwise.groups import Groups, grouped
from understudy.blockwise.learning import Learning
from understudy.blockwise.lessons import Lesson, stored
from understudy.blockwise.partition import partition
from understudy.blockwise.routed import Routed, routed_costs, shares_of
from understudy.blockwise.scores import damages
from understudy.blockwise.sources import record
from understudy.blockwise.specialists import specialists
from understudy.blockwise.workers import distil_all
from understudy.contracts import Batch
from understudy.data.loaders import MemoryLoader
from understudy.evaluate.cost import parameters
from understudy.recipe import Optimizer, Training

SEEDS = (0, 1, 2)
# Of the teacher's operations for one row.
SHARES = {"small": 0.25, "middle": 0.45, "large": 0.7}
SPECIALIST = 0.4
KINDS = ("narrower", "low_rank", "skip")
SMALLER = {"narrower": (0.75, 0.5, 0.25), "low_rank": (0.75, 0.5, 0.25)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many rows, and how long."""

    learn: int
    validation: int
    teacher_epochs: int
    local_epochs: int
    tuning_epochs: int


SIZES = {
    "reduced": Sizes(
        learn=8000, validation=2000, teacher_epochs=12, local_epochs=2, tuning_epochs=4
    ),
    "full": Sizes(
        learn=50000, validation=10000, teacher_epochs=20, local_epochs=5, tuning_epochs=8
    ),
}


@contextmanager
def counted(network: nn.Module) -> Any:
    """How many rows it is asked for, meanwhile."""
    seen: list[int] = []
    hook = network.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    try:
        yield seen
    finally:
        hook.remove()


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What the one local distillation and the one store gave."""

    members: tuple[Member, ...]
    experts: tuple[Member, ...]
    single: Member
    groups: Groups
    lesson: Lesson
    facts: dict[str, Any]


def prepared(teacher: nn.Module, data: Data, sizes: Sizes, folder: Path) -> Prepared:
    """Teach and score all candidates, ask the teacher, choose."""
    held = slice(data.learn, None)
    with counted(teacher) as asked:
        teacher_store = stored(teacher, data.rows[: data.learn], folder / "store")
    parts = partition(teacher, data.rows[:32], by="block", measure=False)
    sources = record(teacher, parts, data.rows, folder / "recorded", batch_size=256)
    use = assembling.Rows(
        learn=np.arange(data.learn),
        validation=np.arange(data.learn, len(data.rows)),
        calibration=np.arange(256),
    )
    # The choice is by operations: this small, calls of layers are most of the time.
    libraries = assembling.offer(
        teacher, parts, sources, use.calibration, kinds=KINDS, shares=SMALLER,
        measure=remembered(lambda *_given, **_named: 0.0),
    )  # fmt: skip
    offered = {block: one.candidates for block, one in libraries.items()}
    learning = Learning(epochs=sizes.local_epochs, batch_size=BATCH)
    work = assembling.pairs(
        teacher, parts, offered, sources, use, folder=folder / "local", learning=learning
    )
    modules = assembling.taught(teacher, parts, work, distil_all(work))
    wrong = damages(teacher, parts, modules, data.rows[held], output="logits", batch_size=512)
    menu = assembling.menu(teacher, parts, offered, wrong)
    whole = parts.rest.flops + sum(block.flops for block in parts.blocks)
    budgets = {name: {"flops": share * whole} for name, share in SHARES.items()}
    members = family(teacher, parts, modules, menu, budgets)
    told = teacher_store(
        Batch(inputs=data.rows[: data.learn], ids=torch.arange(data.learn))
    ).tensor("logits")
    groups = grouped(told, 2)
    experts = specialists(
        teacher, parts, modules, offered, groups, {"flops": SPECIALIST * whole},
        data.rows[held], data.labels[held].numpy(), batch_size=512,
    )  # fmt: skip
    routed = routed_costs(members[0].choice.costs, [one.choice.costs for one in experts])
    limit = {"flops": routed.expected["flops"]}
    (single,) = family(teacher, parts, modules, menu, {"single": limit})

    def batches(positions: Any, seed: int | None) -> MemoryLoader:
        return MemoryLoader(
            inputs=data.rows, labels=data.labels, ids=torch.arange(len(data.rows)),
            positions=positions, batch_size=BATCH, seed=seed,
        )  # fmt: skip

    lesson = Lesson(
        teacher=teacher_store,
        batches=batches,
        positions=np.arange(data.learn),
        classes=CLASSES,
        training=Training(
            epochs=sizes.tuning_epochs,
            batch_size=BATCH,
            optimizer=Optimizer(learning_rate=1e-3),
            checkpoint_seconds=3600,
        ),
    )
    facts = {
        "local_pairs": len(work),
        "rows_asked": sum(asked),
        "groups": [list(group) for group in groups],
        "used": {f"{b}/{label}": names for (b, label), names in used(
            [*members, *experts, single]).items()},
    }  # fmt: skip
    return Prepared(
        members=members, experts=experts, single=single, groups=groups, lesson=lesson, facts=facts
    )


def doubled(lesson: Lesson) -> Lesson:
    """Twice the epochs."""
    epochs = 2 * lesson.training.epochs
    return replace(lesson, training=lesson.training.model_copy(update={"epochs": epochs}))


def one_seed(made: Prepared, data: Data, seed: int) -> tuple[dict[str, float], Routed, nn.Module]:
    """Accuracies on the test rows, by name; the routed model and the single student."""
    told = data.labels.numpy()
    members = tuned(made.members, made.lesson, seed=seed)
    experts = tuned(made.experts, made.lesson, told=told, seed=seed)
    (single,) = tuned([made.single], doubled(made.lesson), seed=seed)
    routed = Routed(members[0].network, [one.network for one in experts], made.groups).eval()
    rows, labels = data.test_rows, data.test_labels
    scores = {}
    with torch.no_grad():
        for member in (*members, single):
            scores[member.name] = accuracy(member.network(rows), labels)
        scores["hard"] = accuracy(routed.hard(rows), labels)
        scores["soft"] = accuracy(routed(rows), labels)
        home = np.empty(CLASSES, np.int64)
        for number, group in enumerate(made.groups):
            home[list(group)] = number
        truth = torch.from_numpy(home)[labels]
        scores["routed right"] = 100 * float((routed.chosen(rows) == truth).double().mean())
        hits = 0
        for number, (expert, group) in enumerate(zip(experts, made.groups, strict=True)):
            own = truth == number
            top = torch.tensor(group)[expert.network(rows[own]).argmax(dim=1)]
            hits += int((top == labels[own]).sum())
        scores["right group told"] = 100 * hits / len(rows)
    return scores, routed, single.network


def measure(mode: str, out: Path) -> dict[str, Any]:
    """The table of accuracies and costs."""
    del out
    place = found()
    if place is None:
        why = "UNDERSTUDY_DATA is not set, or has no fashion-mnist: the family is left out"
        return {"figures": {}, "lines": [why], "facts": {"skipped": why}}
    sizes = SIZES[mode]
    data = data_of(place, learn=sizes.learn, validation=sizes.validation)
    teacher = taught_teacher(data, epochs=sizes.teacher_epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = prepared(teacher, data, sizes, folder)
        with counted(teacher) as later:
            every = [one_seed(made, data, seed) for seed in SEEDS]
        _, routed, single = every[0]
        rows = data.test_rows
        networks = {
            "teacher": teacher,
            **{one.name: one.network for one in made.members},
            "single": single,
            **{f"specialist_{n}": one for n, one in enumerate(routed.specialists)},
            "soft": routed,
        }
        times = {key: milliseconds(net, rows, folder / f"{key}.onnx")
                 for key, net in networks.items()}  # fmt: skip
    scores = {key: [one[0][key] for one in every] for key in every[0][0]}
    with torch.no_grad():
        scores["teacher"] = [accuracy(teacher(rows), data.test_labels)]
    shares = shares_of(routed, rows)
    return _result(made, scores, times, networks, shares, {
        **made.facts, "rows_asked_later": sum(later), "shares": shares, "seeds": list(SEEDS),
        "scores": scores, "ms": times,
    })  # fmt: skip


def _result(
    made: Prepared,
    scores: Mapping[str, list[float]],
    times: Mapping[str, float],
    networks: Mapping[str, nn.Module],
    shares: Sequence[float],
    facts: dict[str, Any],
) -> dict[str, Any]:
    count = {key: parameters(net) for key, net in networks.items()}
    keys = ["small", *(f"specialist_{n}" for n in range(len(made.experts)))]
    router, *parts = (
        {"ms": times[key], "parameters": count[key], "flops": one.choice.costs["flops"]}
        for key, one in zip(keys, (made.members[0], *made.experts), strict=True)
    )
    costs = routed_costs(router, parts, shares)
    flops = {one.name: one.choice.costs["flops"] for one in (*made.members, made.single)}
    table = [("teacher", "teacher", count["teacher"], None, times["teacher"])]
    table += [(f"family, {n}", n, count[n], flops[n], times[n]) for n in SHARES]
    table += [
        ("router and specialists, hard", "hard", count["soft"], costs.expected["flops"],
         costs.expected["ms"]),
        ("the same, soft", "soft", count["soft"], costs.soft["flops"], times["soft"]),
        ("one student of the hard one's cost, twice the epochs", "single", count["single"],
         flops["single"], times["single"]),
    ]  # fmt: skip
    lines = [
        "| Fashion-MNIST, 14x14 | parameters | kFLOPs per row | ms per row | test accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, key, size, work, ms in table:
        told = "" if work is None else f"{work / 1e3:.0f}"
        lines.append(f"| {title} | {size:,} | {told} | {ms:.4f} | {spread(scores[key])} |")
    right, given = scores["routed right"], scores["right group told"]
    lines += [
        "",
        f"The router finds the right group for {spread(right)} % of the rows; with the right group "
        f"told, the specialists reach {spread(given)} %. Groups: {facts['groups']}. The teacher "
        f"was asked for {facts['rows_asked']} rows, and for {facts['rows_asked_later']} while "
        f"{3 + len(made.experts) + 1} students learned with {len(SEEDS)} seeds each.",
    ]
    mean = {key: float(np.mean(values)) for key, values in scores.items()}
    figures = {
        "family_specialists_gain": mean["hard"] - mean["single"],
        "family_soft_gain": mean["soft"] - mean["single"],
        "family_expected_ms_ratio": costs.expected["ms"] / times["single"],
        "family_parameters_ratio": count["soft"] / count["single"],
        **{f"family_{n}_lost": mean["teacher"] - mean[n] for n in SHARES},
    }
    return {
        "figures": figures,
        "lines": lines,
        "facts": facts | {"costs": costs.to_data(), "parameters": count},
    }
