"""What a large store costs to open and to use: milliseconds and memory.

`open_ms`, `open_mb`: `LabelStore(folder)` for ten million rows in a fresh process, libraries loaded
before; median of five. `memory_growth`: the peak of one process that labels rows with a small
network and then trains a student from the store for one epoch, at 10^6 rows over 10^4. Rows lie in
a memory-mapped file. What counts is memory that cannot be taken back (anonymous pages): mapped
files live in the page cache as long as nobody else wants the room; the peak with them is printed
beside it. Rows and teacher are random numbers here: bytes and milliseconds do not depend on them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import mode, paste, record
from rich.console import Console

MANY, FEW, LARGE, WIDTH, COLUMNS = 10_000_000, 10_000, 1_000_000, 10, 32
OPENINGS = 5


def status(name: str) -> float:
    """A line of this process's memory account, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1000
    raise SystemExit(f"this system does not tell {name}")


class Peak:
    """The largest anonymous memory while it watches."""

    def __init__(self) -> None:
        self.anonymous, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.anonymous = max(self.anonymous, status("RssAnon"))

    def stop(self) -> float:
        """The peak, in MB."""
        self._over.set()
        self._thread.join()
        return self.anonymous


def write_store(folder: Path, rows: int) -> None:
    """A store of random answers."""
    import torch

    from understudy.contracts import Batch, Knowledge
    from understudy.labels import codecs
    from understudy.labels.place import LocalPlace
    from understudy.labels.portions import Keep, cut
    from understudy.labels.record import Serial
    from understudy.labels.record import record as write_labels

    class Random:
        offers = frozenset({"logits"})

        def __call__(self, batch: Batch) -> Knowledge:
            seeded = torch.Generator().manual_seed(int(batch.ids[0]))
            return Knowledge(fields={"logits": torch.randn(len(batch), WIDTH, generator=seeded)})

    def batches(start: int, stop: int) -> Iterator[Batch]:
        ids = torch.arange(start, stop)
        yield Batch(inputs=torch.zeros(len(ids), 1), ids=ids)

    portions = cut(batches, rows=rows, batch_size=8192, shard_rows=8192)
    write_labels(
        engine=Serial(Random(), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(folder),
        fingerprints={"teacher": "random"},
    )


def opening(folder: Path) -> dict[str, float]:
    """Run in a process of its own: what opening takes, and then a batch of random rows."""
    import torch

    from understudy.labels.store import LabelStore

    before = status("VmRSS")
    started = time.perf_counter()
    store = LabelStore(folder)
    seconds = time.perf_counter() - started
    grown = status("VmRSS") - before
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, len(store), 256))
    started = time.perf_counter()
    store.read(ids)
    first = time.perf_counter() - started
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, len(store), (50, 256)))
    started = time.perf_counter()
    for some in ids:
        store.read(some)
    again = (time.perf_counter() - started) / len(ids)
    return {"ms": 1e3 * seconds, "mb": grown, "first_ms": 1e3 * first, "batch_ms": 1e3 * again}


def working(folder: Path, rows: int) -> dict[str, float]:
    """Run in a process of its own: label and train, and what memory that takes at most."""
    import torch
    from torch import nn

    from understudy.contracts import Batch
    from understudy.data.loaders import MemoryLoader
    from understudy.data.prefetch import Ahead
    from understudy.engine import fit
    from understudy.labels import codecs
    from understudy.labels.place import LocalPlace
    from understudy.labels.portions import Keep, cut
    from understudy.labels.record import Serial
    from understudy.labels.record import record as write_labels
    from understudy.labels.store import LabelStore
    from understudy.losses import SoftTargetKL
    from understudy.objective import Objective, Term
    from understudy.recipe import Training
    from understudy.tasks import Classification
    from understudy.teachers.cached import CachedTeacher
    from understudy.teachers.torch_module import TorchTeacher

    torch.set_num_threads(1)
    torch.manual_seed(0)
    watch = Peak()
    whole = np.lib.format.open_memmap(folder / "rows.npy", mode="c")
    inputs = torch.from_numpy(whole[:rows])
    positions = np.arange(rows)
    teacher = nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, WIDTH))
    size = 1024
    options = {
        "inputs": inputs, "labels": None, "ids": torch.arange(rows), "positions": positions
    }  # fmt: skip
    source = MemoryLoader(**options, batch_size=size)

    def batches(start: int, stop: int) -> Ahead[Batch]:
        return Ahead(
            source.batch(positions[first : min(first + size, stop)])
            for first in range(start, stop, size)
        )

    portions = cut(batches, rows=rows, batch_size=size, shard_rows=8192)
    store = folder / f"labels-{rows}"
    write_labels(
        engine=Serial(TorchTeacher(teacher, output="logits"), portions),
        rows=portions.rows,
        keep={"logits": Keep(codec=codecs.make("dense", {}, {}), reads="logits")},
        place=LocalPlace(store),
        fingerprints={"teacher": "random"},
    )
    labelled = watch.anonymous
    opened = LabelStore(store)
    soft = Term(name="soft", loss=SoftTargetKL(), reads="logits", needs=("logits",))
    task = Classification(classes=tuple(str(number) for number in range(WIDTH)))
    fit(
        student=nn.Linear(COLUMNS, WIDTH),
        objective=Objective([soft], task=task, offers=opened.offers),
        teacher=CachedTeacher(opened),
        training=Training(epochs=1, batch_size=size),
        loader=MemoryLoader(**options, batch_size=size, seed=0),
        validation=None,
        validate=None,
    )
    return {"anonymous": watch.stop(), "resident": status("VmHWM"), "labelling": labelled}


def alone(*arguments: object) -> dict[str, float]:
    """What one of the above says in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Write, open, work, record."""
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_store(folder / "many", MANY)
        opened = [alone("open", folder / "many") for _ in range(OPENINGS)]
        rows = np.lib.format.open_memmap(
            folder / "rows.npy", mode="w+", dtype=np.float32, shape=(LARGE, COLUMNS)
        )
        draw = np.random.default_rng(0)
        for start in range(0, LARGE, 100_000):
            rows[start : start + 100_000] = draw.standard_normal((100_000, COLUMNS))
        rows.flush()
        few, large = alone("work", folder, FEW), alone("work", folder, LARGE)
    figures = {
        "open_ms": statistics.median(found["ms"] for found in opened),
        "open_mb": statistics.median(found["mb"] for found in opened),
        "first_batch_ms": statistics.median(found["first_ms"] for found in opened),
        "batch_ms": statistics.median(found["batch_ms"] for found in opened),
        "memory_growth": large["anonymous"] / few["anonymous"],
        "resident_growth": large["resident"] / few["resident"],
        "peak_mb_few": few["anonymous"],
        "peak_mb_large": large["anonymous"],
        "resident_mb_few": few["resident"],
        "resident_mb_large": large["resident"],
    }
    lines = [
        f"- Opening a store of {MANY:,} rows: {figures['open_ms']:.1f} ms and "
        f"{figures['open_mb']:.1f} MB. The first 256 random rows, which verify the shards they lie "
        f"in: {figures['first_batch_ms']:,.0f} ms; 256 others after that: "
        f"{figures['batch_ms']:.1f} ms.",
        f"- Labelling and training at {LARGE:,} rows takes {figures['memory_growth']:.3f} times "
        f"the memory that it takes at {FEW:,} ({figures['peak_mb_few']:,.0f} to "
        f"{figures['peak_mb_large']:,.0f} MB); with mapped files, which the system can take back, "
        f"{figures['resident_mb_few']:,.0f} to {figures['resident_mb_large']:,.0f} MB.",
    ]
    console.print("\n".join(lines))
    record("label_store", figures, seeds=[0], mode=mode())
    page = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    paste("\n".join(lines), name="label_store", page=page)


if __name__ == "__main__":
    if sys.argv[1:2] == ["open"]:
        print(json.dumps(opening(Path(sys.argv[2]))))
    elif sys.argv[1:2] == ["work"]:
        print(json.dumps(working(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
