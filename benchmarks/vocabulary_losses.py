"""Fused losses over a large vocabulary against plain PyTorch: extra memory, and time.

512 tokens, student width 256, teacher width 512, 151,936 columns, float32, forward divergence at
temperature 1 with the gradients of hidden states and weight. Hidden states and weights are random
numbers: neither memory nor time depends on what they are. One thread.

Every row is a process of its own: inputs and weights are made, freed memory is given back, the
peak (VmHWM) is reset; the first call then gives the extra memory, gradients included, and a second
call the time. The arms take turns, `ROUNDS` times. Time is the process's own seconds (user and
system): with one thread that is the wall clock of an idle machine, and other processes do not
count. The ratios are of medians.

The plain forms are what one writes in PyTorch without a kernel: `log target` is the usual one, the
others are attempts to be fast. `cross entropy` leaves out the teacher's entropy: the same gradient
for another value. All are checked to have the same gradient before anything is recorded.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import Progress, mode, paste, record
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from understudy.losses.vocabulary import HiddenLabels, LinearHead, ListedLabels, vocabulary_loss

TOKENS, MANY, OWN, THEIRS, VOCABULARY, K = 512, 8192, 256, 512, 151_936, 64
ROUNDS = 7 if mode() == "full" else 3
MIB = 2**20
Call = Callable[[Tensor, Tensor, Tensor, Tensor], float]
PLAIN = ("log_target", "target", "cross_entropy", "logsumexp", "by_parts")
WORDS = {
    "ours": "ours, live teacher",
    "sparse": f"ours, top-{K} and tail",
    "log_target": "plain, log target",
    "target": "plain, target",
    "cross_entropy": "plain, cross entropy",
    "logsumexp": "plain, logsumexp",
    "by_parts": "plain, 64 tokens at a time",
}


def made(tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states and weights of both; the student's have a gradient."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, OWN)
    weight = torch.empty(VOCABULARY, OWN).normal_(std=OWN**-0.5)
    goal = torch.randn(tokens, THEIRS)
    theirs = torch.empty(VOCABULARY, THEIRS).normal_(std=2 * THEIRS**-0.5)
    return hidden.requires_grad_(), weight.requires_grad_(), goal, theirs


def listed(goal: Tensor, theirs: Tensor) -> ListedLabels:
    """The teacher's largest outcomes and the rest; more than `TOKENS` tokens repeat these."""
    parts = []
    for some in goal[:TOKENS].split(8):
        log_mass = (some @ theirs.T).log_softmax(1)
        kept, ids = log_mass.topk(K, dim=1)
        parts.append((ids, kept, log_mass.scatter_(1, ids, -torch.inf).logsumexp(1)))
    again = len(goal) // min(len(goal), TOKENS)
    ids, kept, rest = (torch.cat(part * again) for part in zip(*parts, strict=True))
    return ListedLabels(ids=ids, log_mass=kept, rest=rest)


def fused(labels: HiddenLabels | ListedLabels) -> Call:
    """Ours, from labels in any form."""

    def call(hidden: Tensor, weight: Tensor, goal: Tensor, theirs: Tensor) -> float:
        del goal, theirs
        loss = vocabulary_loss(hidden, LinearHead(weight=weight), labels).loss
        loss.backward()
        return float(loss.detach())

    return call


def plain(form: str) -> Call:
    """The divergence as plain PyTorch has it."""

    def divergence(hidden: Tensor, weight: Tensor, goal: Tensor, theirs: Tensor) -> Tensor:
        own = F.linear(hidden, weight)
        with torch.no_grad():
            wanted = F.linear(goal, theirs)
        if form == "target":
            return F.kl_div(own.log_softmax(1), wanted.softmax(1), reduction="sum")
        if form == "cross_entropy":
            return F.cross_entropy(own, wanted.softmax(1), reduction="sum")
        if form == "logsumexp":
            chances = wanted.softmax(1)
            apart = (chances * wanted).sum() - (chances * own).sum()
            return apart - wanted.logsumexp(1).sum() + own.logsumexp(1).sum()
        return F.kl_div(own.log_softmax(1), wanted.log_softmax(1), reduction="sum", log_target=True)

    def call(hidden: Tensor, weight: Tensor, goal: Tensor, theirs: Tensor) -> float:
        total = 0.0
        size = 64 if form == "by_parts" else len(hidden)
        for some, told in zip(hidden.split(size), goal.split(size), strict=True):
            loss = divergence(some, weight, told, theirs) / len(hidden)
            loss.backward()
            total += float(loss.detach())
        return total

    return call


def status(name: str) -> float:
    """A line of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def row(arm: str, tokens: int, *, timed: bool) -> dict[str, float]:
    """One row, in this process: extra memory, own seconds, and what came out."""
    torch.set_num_threads(1)
    hidden, weight, goal, theirs = given = made(tokens)
    call = measured_arm(arm, goal, theirs)
    warm_up(arm)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    value = call(*given)
    found = {"extra": status("VmHWM") - before, "value": value}
    found["gradients"] = sum(x.grad.numel() * x.grad.element_size() for x in given[:2]) / MIB
    found["norm"] = float(weight.grad.norm())
    if timed:
        hidden.grad = weight.grad = None
        started = time.process_time()
        call(*given)
        found["seconds"] = time.process_time() - started
    return found


def measured_arm(arm: str, goal: Tensor, theirs: Tensor) -> Call:
    """What a row calls."""
    if arm == "ours":
        return fused(HiddenLabels(hidden=goal, head=LinearHead(weight=theirs)))
    return fused(listed(goal, theirs)) if arm == "sparse" else plain(arm)


def warm_up(arm: str) -> None:
    """Load the kernels on something small: code is no memory of a loss."""
    small = (torch.randn(64, OWN), torch.randn(2048, OWN), torch.randn(64, THEIRS))
    hidden, weight, goal = (x.requires_grad_(i < 2) for i, x in enumerate(small))
    theirs = torch.randn(2048, THEIRS)
    measured_arm(arm, goal, theirs)(hidden, weight, goal, theirs)


def alone(arm: str, tokens: int, *, timed: bool = True) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, arm, str(tokens), str(int(timed))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(rows: dict[str, list[dict[str, float]]]) -> None:
    """All exact arms have one gradient, and one value but for the teacher's entropy."""
    reference = rows["log_target"][0]
    for arm in ("ours", *PLAIN):
        found = rows[arm][0]
        names = ("norm",) if arm == "cross_entropy" else ("norm", "value")
        for name in names:
            apart = abs(found[name] / reference[name] - 1)
            if apart > 1e-3:
                raise RuntimeError(f"{arm}: {name} {found[name]} against {reference[name]}")


def main() -> None:
    """Measure, print, record."""
    console = Console()
    progress = Progress("vocabulary_losses")
    many = {
        arm: progress.get(f"{arm}-many")
        or progress.keep(f"{arm}-many", alone(arm, MANY, timed=False))
        for arm in ("ours", "sparse")
    }
    rows: dict[str, list[dict[str, float]]] = {arm: [] for arm in WORDS}
    for number in range(ROUNDS):
        for arm, found in rows.items():
            part = f"{arm}-{number}"
            found.append(progress.get(part) or progress.keep(part, alone(arm, TOKENS)))
            console.print(part, found[-1])
    check(rows)
    extra = {arm: statistics.median(r["extra"] for r in found) for arm, found in rows.items()}
    seconds = {arm: statistics.median(r["seconds"] for r in found) for arm, found in rows.items()}
    flat = {
        arm: (found["extra"] - found["gradients"]) / (extra[arm] - rows[arm][0]["gradients"])
        for arm, found in many.items()
    }
    fastest = min(PLAIN, key=lambda arm: seconds[arm])
    figures = {
        "dense_mib": extra["ours"],
        "sparse_mib": extra["sparse"],
        "flatness": flat["ours"],
        "flatness_sparse": flat["sparse"],
        "speedup": seconds["log_target"] / seconds["ours"],
        "speedup_fastest_plain": seconds[fastest] / seconds["ours"],
        "speedup_sparse": seconds["log_target"] / seconds["sparse"],
        **{f"{arm}_mib": extra[arm] for arm in PLAIN},
        **{f"{arm}_seconds": found for arm, found in seconds.items()},
    }
    record("vocabulary_losses", figures, seeds=[0], mode=mode())
    lines = ["| form | extra MiB | seconds |", "|---|---:|---:|"]
    lines += [f"| {WORDS[a]} | {extra[a]:,.0f} | {seconds[a]:.2f} |" for a in WORDS]
    sentence = (
        f"{figures['speedup']:.2f} times as fast as the log-target form, "
        f"{figures['speedup_fastest_plain']:.2f} times as fast as the fastest plain one "
        f"({WORDS[fastest]}), {figures['speedup_sparse']:.2f} times from sparse labels. With "
        f"{MANY:,} tokens, the memory beside the gradients is {flat['ours']:.2f} times that of "
        f"{TOKENS} (sparse {flat['sparse']:.2f}). {ROUNDS} rounds, random hidden states."
    )
    console.print(sentence)
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste("\n".join([*lines, "", sentence]), name="vocabulary_losses", page=page)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(json.dumps(row(sys.argv[1], int(sys.argv[2]), timed=sys.argv[3] == "1")))
    else:
        main()
