"""How fast a real teacher answers: the backend that is chosen by itself, over eager NCHW.

The real ResNet-32, real CIFAR-100 test images, batch 128, both threads. *Eager NCHW* is what a
plain loop does: the module in PyTorch's own memory format, under no_grad. Every backend is timed
with whole batches, and in the pieces that were chosen, if any were. The baseline runs in a process
of its own, as a plain loop does: our choice tells the allocator of its process to keep what is
freed. The arms take turns, `ROUNDS` times; the figures are medians, and the speed-up a median of
ratios within a round.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from apart import Apart
from cifar_loops import deployable, images, teacher_network
from harness import mode, paste, record
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.teachers.backends import BACKENDS, Chosen, Forms, choose, prepare
from understudy.teachers.backends.choosing import TOLERANCE
from understudy.teachers.backends.parity import difference

ROWS, ROUNDS = (10_000, 7) if mode() == "full" else (1024, 7)
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
THREADS, BASELINE = 2, "eager_nchw"
Arm = Callable[[Tensor], Tensor]


def measure(
    depth: int = 32, batch: int = 128, rounds: int = ROUNDS, tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Of the baseline and the chosen backend: images per second, the difference, the speed-up."""
    return compare(depth=depth, batch=batch, rounds=rounds, tolerance=tolerance, alone=True)[0]


def compare(
    *, depth: int, batch: int, rounds: int, tolerance: float = TOLERANCE, alone: bool = False
) -> tuple[dict[str, float], Chosen]:
    """The figures, of every backend or of the chosen one alone, and what was chosen."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        load = os.getloadavg()[0]
        rows = torch.from_numpy(images(ROWS, file="test.parquet")[0])
        batches = list(rows.split(batch))
        model = deployable(teacher_network(depth), channels_last=False).eval()
        sample = Batch(inputs=batches[0])
        chosen = choose(model, output="logits", batch=sample, tolerance=tolerance)
        every = arms(model, batches[0], chosen, [chosen.name] if alone else [*BACKENDS])
        with Apart(plain_loop, depth, batch) as apart:
            seconds = timed(every, batches, rounds, {BASELINE: apart.function(BASELINE)})
        figures = differences(every, batches)
    finally:
        torch.set_num_threads(before)
    for name, found in seconds.items():
        figures[f"{name}_images_per_second"] = len(rows) / statistics.median(found)
    own = seconds[title(chosen.name, chosen.piece)]
    ratios = [base / ours for base, ours in zip(seconds[BASELINE], own, strict=True)]
    figures |= {
        "teacher_pass_speedup": statistics.median(ratios),
        "teacher_pass_speedup_low": min(ratios),
        "teacher_pass_speedup_high": max(ratios),
        "chosen_piece": chosen.piece or batch,
        "load_before": load,
    }
    return figures, chosen


def arms(model: nn.Module, example: Tensor, chosen: Chosen, names: Sequence[str]) -> dict[str, Arm]:
    """The baseline, and each of these backends that there is here, whole and in pieces."""
    found: dict[str, Arm] = {BASELINE: eager_nchw(model)}
    forms = Forms(model, example)
    for name in names:
        hopeless = BACKENDS[name].hopeless
        if hopeless is not None and (why := hopeless(example.device)) is not None:
            Console().print(f"{BACKENDS[name].title}: {why}")
            continue
        for piece in dict.fromkeys([None, chosen.piece]):
            try:
                teacher = prepare(name, forms, output="logits", piece=piece)
            except ModelError as error:
                Console().print(f"{BACKENDS[name].title}: {error}")
                break
            found[title(name, piece)] = lambda rows, teacher=teacher: teacher(
                Batch(inputs=rows)
            ).tensor("logits")
    return found


def eager_nchw(model: nn.Module) -> Arm:
    """The module as a plain loop asks it."""

    def nchw(rows: Tensor) -> Tensor:
        # Raw images have their channels last, and so would every map that is made from them.
        with torch.no_grad():
            return model.network(model.preprocess(rows).contiguous())

    return nchw


def plain_loop(depth: int, batch: int) -> dict[str, Callable[[], float]]:
    """The seconds of a pass of the baseline, in a process that knows nothing of ours."""
    torch.set_num_threads(THREADS)
    batches = list(torch.from_numpy(images(ROWS, file="test.parquet")[0]).split(batch))
    model = deployable(teacher_network(depth), channels_last=False).eval()
    answer = eager_nchw(model)
    return {BASELINE: lambda: seconds_of(answer, batches)}


def title(name: str, piece: int | None) -> str:
    """An arm by name."""
    return f"{name}_pieces" if piece else name


def timed(
    every: dict[str, Arm],
    batches: list[Tensor],
    rounds: int,
    apart: dict[str, Callable[[], float]],
) -> dict[str, list[float]]:
    """Seconds of a pass over the images, per arm and round; some are timed where they run."""
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(rounds):
        for name, arm in every.items():
            seconds[name].append(apart[name]() if name in apart else seconds_of(arm, batches))
    return seconds


def seconds_of(arm: Arm, batches: list[Tensor]) -> float:
    """Of a pass over the images, after one batch that sets things up."""
    arm(batches[0])
    started = time.perf_counter()
    for rows in batches:
        arm(rows)
    return time.perf_counter() - started


def differences(every: dict[str, Arm], batches: list[Tensor]) -> dict[str, float]:
    """The largest difference of log-probabilities from the baseline's, over all images."""
    expected = torch.cat([every[BASELINE](rows) for rows in batches])
    return {
        f"{name}_difference": difference(
            torch.cat([arm(rows) for rows in batches]), expected, output="logits"
        )
        for name, arm in every.items()
        if name != BASELINE
    }


def table_of(figures: dict[str, float], chosen: Chosen) -> list[list[str]]:
    """Per arm: its name, images per second, times the baseline, largest difference."""
    base = figures[f"{BASELINE}_images_per_second"]
    lines = [["eager, NCHW", f"{base:,.0f}", "1.00", ""]]
    for name, backend in BACKENDS.items():
        for piece in dict.fromkeys([None, chosen.piece]):
            arm = title(name, piece)
            if f"{arm}_images_per_second" not in figures:
                continue
            pace, far = figures[f"{arm}_images_per_second"], figures[f"{arm}_difference"]
            words = backend.title + (f", pieces of {piece}" if piece else "")
            if (name, piece) == (chosen.name, chosen.piece):
                words = f"**{words}** (chosen)"
            lines.append([words, f"{pace:,.0f}", f"{pace / base:.2f}", f"{far:.0e}"])
    return lines


def main() -> None:
    """Measure, print, record."""
    publish(*compare(depth=32, batch=128, rounds=ROUNDS))


def publish(figures: dict[str, float], chosen: Chosen) -> None:
    """Print and record."""
    heads = ["backend", "images/s", "times eager NCHW", "largest difference"]
    lines = table_of(figures, chosen)
    table = Table(title=f"ResNet-32, CIFAR-100, {ROWS} test images, batch 128, {THREADS} threads")
    for head in heads:
        table.add_column(head, justify="left" if head == "backend" else "right")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    Console().print(chosen.line())
    sentence = (
        f"The chosen backend answers {figures['teacher_pass_speedup']:.2f} times as fast as eager "
        f"NCHW ({figures['teacher_pass_speedup_low']:.2f} to "
        f"{figures['teacher_pass_speedup_high']:.2f} over {ROUNDS} rounds, {ROWS:,} images)."
    )
    Console().print(sentence)
    record("teacher_pass", figures, seeds=[0], mode=mode())
    text = ["| " + " | ".join(heads) + " |", "|---|---:|---:|---:|"]
    text += ["| " + " | ".join(line) + " |" for line in lines]
    paste("\n".join([*text, "", sentence]), name="teacher_pass", page=PAGE)


if __name__ == "__main__":
    main()
