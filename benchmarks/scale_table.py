"""What huge labelling costs, worked out: the tables of docs/scale.md.

Measured here: bytes per position and encoding speed of every codec on made logits (see
`label_codecs_cases.zipf`: random, and the worst case for the numbers of classes), and what Ray
costs per shard. Assumed, with its source: everything in `ASSUMED`. Everything else is arithmetic;
nothing was run at that scale.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import RESULTS, mode, paste, record
from label_codecs import SCALE, codecs, size, speed
from label_codecs_cases import zipf
from rich.console import Console
from torch import Tensor

from understudy.contracts import Batch, Knowledge
from understudy.labels.codecs import Dense, Hidden
from understudy.labels.codecs.form import Codec
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, Portions, cut
from understudy.labels.ray_engine import RayEngine
from understudy.labels.record import record as write_labels

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
IMAGES, IMAGE_CLASSES, IMAGE_WIDTH = 14_197_122, 21_841, 1024
TOKENS, VOCABULARY, TOKEN_WIDTH, SEQUENCE = 10**12, 131_072, 4096, 2048
# Beside every row: its id and view in the shard, and its place in the index.
ROW_BYTES = 24
SHARDS, WORKERS = 400, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumption:
    """A number that was not measured here.

    Attributes:
        value: in its unit.
        what: with its unit.
        source: who says so.
    """

    value: float
    what: str
    source: str


ASSUMED = {
    "images": Assumption(
        value=912.7,
        what="images/s of a ViT-L/16 at 224 pixels on one GPU",
        source=(
            "published by the timm project for an RTX 4090, mixed precision, batch 1,024, without "
            "reading and decoding (`results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv`)"
        ),
    ),
    "parameters": Assumption(
        value=8e9, what="parameters of the language model", source="an example"
    ),
    "peak": Assumption(
        value=989.4e12,
        what="operations/s of one GPU in bfloat16",
        source="NVIDIA's data sheet for the H100 SXM, without sparsity",
    ),
    "share": Assumption(
        value=0.4, what="share of them that a forward pass reaches", source="our guess"
    ),
    "gpu": Assumption(
        value=2.5,
        what="dollars per GPU-hour",
        source="one H100 on demand; asking prices in 2026 ran from 2 to 12",
    ),
    "storage": Assumption(
        value=0.023,
        what="dollars per GB and month",
        source="Amazon S3 Standard, first 50 TB, us-east-1, 2026; requests not counted",
    ),
}


def token_pace() -> float:
    """Tokens per second of one GPU: two operations per parameter and token, attention left out."""
    return ASSUMED["peak"].value * ASSUMED["share"].value / (2 * ASSUMED["parameters"].value)


def measure(classes: int, width: int, rows: int) -> dict[str, dict[str, float]]:
    """Bytes per position and positions encoded per second on one thread, by codec."""
    case = zipf(classes, rows=rows)
    found = {
        title: _measured(codec, case.logits)
        for title, codec in {"dense float32": Dense(), **codecs(case)}.items()
    }
    # The bytes of a state are those of its width, whatever the numbers are.
    state = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    for precision in ("float16", "int8"):
        head = Hidden(weight=np.zeros((2, width), np.float32), precision=precision)
        found[f"hidden {precision}, {width:,} wide"] = _measured(head, state)
    return found


def _measured(codec: Codec, values: np.ndarray) -> dict[str, float]:
    tokens = len(values)
    return {
        "bytes": size(codec.encode(values, seed=0)) / tokens,
        "encode": speed(lambda: codec.encode(values, seed=0), tokens=tokens, times=3),
    }


class Nothing:
    """A teacher that answers at once: what is left is the cost of Ray and of writing a file."""

    offers = frozenset({"logits"})

    def __call__(self, batch: Batch) -> Knowledge:
        """One number."""
        assert batch.ids is not None
        return Knowledge(fields={"logits": batch.ids.to(torch.float32)[:, None]})


def make() -> tuple[Nothing, Portions]:
    """Eight rows per shard."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        ids: Tensor = torch.arange(start, stop)
        yield Batch(inputs=torch.zeros(len(ids), 1), ids=ids)

    return Nothing(), cut(batches, rows=8 * SHARDS, batch_size=8, shard_rows=8)


def ray_seconds() -> float:
    """Seconds per shard of a crew that has nothing to compute, after its first shard."""
    portions = make()[1]
    stamps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        write_labels(
            engine=RayEngine(make, workers=WORKERS),
            rows=portions.rows,
            keep={"logits": Keep(codec=Dense(), reads="logits")},
            place=LocalPlace(Path(folder)),
            fingerprints={},
            on_rows=lambda _: stamps.append(time.perf_counter()),
        )
    return (stamps[-1] - stamps[1]) / (SHARDS - 1)


def image_table(found: dict[str, dict[str, float]]) -> list[str]:
    """ImageNet-21k by codec, in 1 and 4 views."""
    pace = ASSUMED["images"].value
    lines = [
        "| codec | bytes per image | 1 view | per month | 4 views | per month | cores per GPU |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for title, one in found.items():
        cells = [title, f"{one['bytes']:,.0f}"]
        for views in (1, 4):
            total = IMAGES * (views * (one["bytes"] + ROW_BYTES) + 8)
            cells += [amount(total), dollars(total / 1e9 * ASSUMED["storage"].value)]
        lines.append("| " + " | ".join([*cells, cores(pace / one["encode"])]) + " |")
    return lines


def token_table(found: dict[str, dict[str, float]]) -> list[str]:
    """A trillion tokens by codec."""
    pace = token_pace()
    lines = [
        "| codec | bytes per token | a trillion | per month | cores per GPU |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, one in found.items():
        total = TOKENS * (one["bytes"] + (ROW_BYTES + 16) / SEQUENCE)
        price = dollars(total / 1e9 * ASSUMED["storage"].value)
        cells = [title, f"{one['bytes']:,.1f}", amount(total), price, cores(pace / one["encode"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pass_table() -> list[str]:
    """Hours and dollars of the teacher pass; and what this machine was measured at."""
    jobs = [
        (f"ImageNet-21k, {views} view{'s' if views > 1 else ''}", IMAGES * views, pace, True)
        for pace in [ASSUMED["images"].value]
        for views in (1, 4)
    ]
    jobs.append(("a trillion tokens", TOKENS, token_pace(), True))
    measured = cpu_pace()
    if measured is not None:
        job = "as many rows as ImageNet-21k, ResNet-32 at 32 pixels, these two cores (measured)"
        jobs.append((job, IMAGES, measured, False))
    lines = [
        "| teacher pass | per second | GPU-hours | on 8 GPUs | dollars |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, count, pace, rented in jobs:
        hours = count / pace / 3600
        cells = [title, f"{pace:,.0f}"]
        if rented:
            price = dollars(hours * ASSUMED["gpu"].value)
            cells += [f"{hours:,.1f}", f"{hours / 8:,.1f} h", price]
        else:
            cells += [f"{hours:,.1f} (no GPU)", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cpu_pace() -> float | None:
    """Images per second of the fastest backend in `teacher_pass.json`, where there is one."""
    path = RESULTS / "teacher_pass.json"
    if not path.exists():
        return None
    figures = json.loads(path.read_text())["figures"]
    return max(v for name, v in figures.items() if name.endswith("_images_per_second"))


def assumption_table() -> list[str]:
    """What was not measured."""
    heads = ["| assumed | value | source |", "|---|---:|---|"]
    return heads + [f"| {a.what} | {number(a.value)} | {a.source} |" for a in ASSUMED.values()]


def number(value: float) -> str:
    """As it is read aloud."""
    for word, step in (("thousand billion", 1e12), ("billion", 1e9)):
        if value >= step:
            return f"{value / step:,.4g} {word}"
    return f"{value:,.4g}"


def amount(count: float) -> str:
    """Bytes with three digits."""
    for unit, step in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= step:
            return f"{count / step:,.3g} {unit}" if count < 1e18 else f"{count / step:,.0f} {unit}"
    return f"{count:,.0f} B"


def dollars(count: float) -> str:
    """Whole dollars, or cents of few."""
    return f"${count:,.0f}" if count >= 10 else f"${count:,.2f}"


def cores(count: float) -> str:
    """Processor cores that encode as fast as one GPU answers."""
    return f"{count:,.1f}" if count >= 0.05 else "< 0.1"


def main() -> None:
    """Measure, work out, print, record, paste."""
    torch.set_num_threads(1)
    images = measure(IMAGE_CLASSES, IMAGE_WIDTH, 512 * SCALE)
    tokens = measure(VOCABULARY, TOKEN_WIDTH, 256 * SCALE)
    seconds = ray_seconds()
    figures = {"ray_seconds_per_shard": seconds, "token_pace": token_pace()}
    figures |= {f"assumed_{name}": found.value for name, found in ASSUMED.items()}
    for job, found in (("images", images), ("tokens", tokens)):
        for title, one in found.items():
            figures |= {f"{job}: {title}: {column}": value for column, value in one.items()}
    sentence = (
        f"Measured: {SHARDS} shards with nothing to compute took {1000 * seconds:.0f} ms each on "
        f"{WORKERS} workers that shared two cores."
    )
    tables = {
        "scale_assumed": assumption_table(),
        "scale_pass": pass_table(),
        "scale_images": image_table(images),
        "scale_tokens": token_table(tokens),
        "scale_ray": [sentence],
    }
    for name, lines in tables.items():
        Console().print("\n".join(lines), markup=False)
        paste("\n".join(lines), name=name, page=PAGE)
    record("scale_table", figures, seeds=[0], mode=mode())


if __name__ == "__main__":
    main()
