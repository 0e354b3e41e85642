"""Bytes, error and speed of every codec of the label store, on real and made teachers.

*Bytes* are all that a store writes per token: values, heads, lengths and the index of streams
(a `hidden` store has the head beside it, once). *TV* is the total variation between the teacher's
distribution and what comes back, its rest spread evenly over the classes that are not listed; *KL*
is the divergence of the second from the first; single draws have none, as classes that were not
drawn have no mass. *Speeds* are tokens per second of processor time on
one thread, medians over three rounds in which the codecs take turns.

The ratio compares `top_p` as it is recommended with a plain list of the k likeliest classes, 4
bytes for each number and 2 for each mass, at the k (interpolated) where both have the same TV. The
plain list's masses are taken as exact.

Without UNDERSTUDY_DATA the real teachers are left out, and the table says so.
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import mode, paste, record
from label_codecs_cases import Case, stories, words, zipf
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from understudy.contracts import Outcomes
from understudy.labels.codecs import Dense, Hidden, Int8, Sampled, TopK, TopP
from understudy.labels.codecs.form import Codec, Parts, Stream
from understudy.labels.layout import EVERY

SCALE = 4 if mode() == "full" else 1
ROUNDS = 3
# Decodings in each round; an encoding takes much longer, and there is one.
TIMINGS = 15
PLAIN_BYTES = 6
HEADS = ("codec", "bytes", "TV", "KL", "encode/s", "decode/s")

Masses = NDArray[np.float64]
Curve = Callable[[int], float]


def cases() -> Iterator[tuple[str, Case]]:
    """Every teacher, by a short name; one at a time, as they are large."""
    name = os.environ.get("UNDERSTUDY_DATA", "")
    if name and Path(name).is_dir():
        yield "stories", stories(Path(name) / "stories260k", rows=4096 * SCALE)
        yield "words", words(Path(name) / "wikitext2", rows=4096 * SCALE)
    yield "made_32k", zipf(32_000, rows=1024 * SCALE)
    yield "made_128k", zipf(131_072, rows=512 * SCALE)


def codecs(case: Case) -> dict[str, Codec]:
    """What is compared, by its title in the table."""
    found: dict[str, Codec] = {
        "dense float16": Dense(precision="float16"),
        "int8": Int8(),
        "top_k 64 float32": TopK(k=64),
        "top_k 64 float16": TopK(k=64, precision="float16"),
        "top_p 0.98, 64": TopP(),
        "top_p 0.99, 128": TopP(p=0.99, k=128),
        "sampled 50": Sampled(),
        "sampled 50, exact 8": Sampled(exact=8),
    }
    if case.weight is not None:
        for precision in ("float16", "int8"):
            head = Hidden(weight=case.weight, bias=case.bias, precision=precision)
            found[f"hidden {precision}"] = head
    return found


def size(parts: Parts) -> int:
    """Bytes of everything that a store writes for these parts."""
    total = 0
    for part in parts.values():
        if isinstance(part, Stream):
            total += part.content.nbytes + part.lengths.nbytes + 8 * -(-len(part) // EVERY)
        else:
            total += part.nbytes
    return total


def softmax(logits: NDArray) -> Masses:
    """Probabilities in float64."""
    mass = logits.astype(np.float64)
    mass -= mass.max(axis=1, keepdims=True)
    np.exp(mass, out=mass)
    mass /= mass.sum(axis=1, keepdims=True)
    return mass


def whole(outcomes: Outcomes, rows: slice) -> Masses:
    """Listed masses in their places, and the rest evenly in all others."""
    ids = outcomes.ids[rows].numpy()
    # One class more than there are takes the empty places of a list.
    shape = (len(ids), outcomes.classes + 1)
    found, free = np.zeros(shape), np.ones(shape, np.bool_)
    places = np.where(ids < 0, outcomes.classes, ids)
    np.put_along_axis(found, places, np.exp(outcomes.log_mass[rows].double().numpy()), axis=1)
    np.put_along_axis(free, places, False, axis=1)
    found, free = found[:, :-1], free[:, :-1]
    rest = np.exp(outcomes.rest[rows].double().numpy())
    share = rest / np.maximum(free.sum(axis=1), 1)
    return np.where(free, share[:, None], found)


def errors(case: Case, decoded: torch.Tensor | Outcomes) -> tuple[float, float]:
    """Mean total variation and divergence over all tokens."""
    variation, divergence = 0.0, 0.0
    size = max(1, 2**22 // case.logits.shape[1])
    for start in range(0, len(case.logits), size):
        rows = slice(start, start + size)
        mass = softmax(case.logits[rows])
        if isinstance(decoded, Outcomes):
            found = whole(decoded, rows)
        else:
            found = softmax(decoded[rows].numpy())
        variation += 0.5 * float(np.abs(mass - found).sum())
        with np.errstate(divide="ignore"):
            ratio = np.log(mass) - np.log(found)
        divergence += float((mass * np.where(mass > 0, ratio, 0)).sum())
    return variation / len(case.logits), divergence / len(case.logits)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(case: Case, compared: dict[str, Codec]) -> dict[str, dict[str, float]]:
    """All rows of a table. Codecs take turns, so that a slow moment of the machine meets all."""
    found: dict[str, dict[str, float]] = {}
    work: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for title, codec in compared.items():
        values = case.state if codec.kind == "hidden" else case.logits
        assert values is not None
        codec.check(values.shape[1:])
        encode = partial(codec.encode, values, seed=0)
        parts = encode()
        decode = partial(codec.decode, parts, shape=values.shape[1:])
        variation, divergence = errors(case, decode())
        found[title] = {
            "bytes": size(parts) / len(values),
            "variation": variation,
            "divergence": divergence,
        }
        work[title] = encode, decode
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for title, (encode, decode) in work.items():
            times[title, "encode"].append(seconds(encode))
            decode()
            times[title, "decode"] += [seconds(decode) for _ in range(TIMINGS)]
    for (title, column), taken in times.items():
        found[title][column] = len(case.logits) / statistics.median(taken)
    return found


def plain_curve(case: Case) -> Curve:
    """Mean total variation of a plain list of the k likeliest classes, as a function of k."""
    mass = np.empty(case.logits.shape, np.float32)
    for start in range(0, len(mass), 64):
        mass[start : start + 64] = -np.sort(-softmax(case.logits[start : start + 64]), axis=1)

    def variation(k: int) -> float:
        total = 0.0
        for start in range(0, len(mass), 64):
            others = mass[start : start + 64, k:].astype(np.float64)
            total += float(np.abs(others - others.mean(axis=1, keepdims=True)).sum())
        return 0.5 * total / len(mass)

    return variation


def classes_at(curve: Curve, goal: float, *, most: int) -> float:
    """The k, interpolated, at which a falling curve comes down to the goal."""
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if curve(middle) > goal else (low, middle)
    above, below = curve(low), curve(high)
    return low + (above - goal) / (above - below)


def line(title: str, found: dict[str, float]) -> list[str]:
    """One row of the table."""
    divergence = f"{found['divergence']:.4f}" if np.isfinite(found["divergence"]) else "–"
    return [
        title,
        f"{found['bytes']:,.1f}",
        f"{found['variation']:.4f}",
        divergence,
        f"{found['encode']:,.0f}",
        f"{found['decode']:,.0f}",
    ]


def show(case: Case, found: dict[str, dict[str, float]]) -> list[str]:
    """Print one case, and give it back as a page has it."""
    table = Table(title=f"{case.title}, {len(case.logits):,} tokens")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "codec" else "right", no_wrap=True)
    rows = [line(title, measured) for title, measured in found.items()]
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    heads = [f"**{case.title}**", *HEADS[1:]]
    return [
        "",
        f"| {' | '.join(heads)} |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def main() -> None:
    """Measure, print, record."""
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    text: list[str] = []
    names = []
    for name, case in cases():
        names.append(name)
        found = measure(case, codecs(case))
        text += show(case, found)
        own = found["top_p 0.98, 64"]
        plain = classes_at(plain_curve(case), own["variation"], most=case.logits.shape[1] - 1)
        figures[f"{name}_bytes_ratio"] = own["bytes"] / (PLAIN_BYTES * plain)
        figures[f"{name}_plain_classes"] = plain
        for column in ("bytes", "variation", "divergence", "encode", "decode"):
            figures[f"{name}_{column}"] = own[column]
    figures["bytes_ratio_at_equal_tv"] = max(figures[f"{name}_bytes_ratio"] for name in names)
    figures["decode_tokens_per_second"] = min(figures[f"{name}_decode"] for name in names)
    left_out = "" if "words" in names else " UNDERSTUDY_DATA is not set: no real teacher."
    each = ", ".join(f"{name} {figures[f'{name}_bytes_ratio']:.2f}" for name in names)
    sentence = (
        f"At equal TV `top_p` takes {figures['bytes_ratio_at_equal_tv']:.2f} of the bytes of a "
        f"plain list, or less ({each}); it decodes {figures['decode_tokens_per_second']:,.0f} "
        f"tokens per second or more.{left_out}"
    )
    Console().print(sentence)
    record("label_codecs", figures, seeds=[0], mode=mode())
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste("\n".join([*text[1:], "", sentence]), name="label_codecs", page=page)


if __name__ == "__main__":
    main()
