"""A real sentence encoder as a table of token vectors, and nothing else.

all-MiniLM-L6-v2 is asked once for its vectors of sentences and of single tokens. Token vectors of
256 numbers are found by a ridge regression, trained for two epochs, and used with NumPy alone.
`spearman_kept` is Spearman's correlation on the test split of the STS benchmark as a share of the
teacher's; no sentence that is judged is learnt from, and the dev split chose the settings.
`speedup` is sentences per second, text to vector, against the faster of torch and ONNX Runtime for
the teacher: the smaller of batch 1 and 32, in processor time of one thread, so that what else the
machine does counts for neither. Linear probes on frozen vectors (SST-2, subjectivity) stand beside.

FULL=1: all sentences; reduced: STS-B's and 20,000 others. Goes on where it was stopped.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import process_time

import encoder_cut
import numpy as np
import torch
from encoder_cut import BATCH, LENGTH, embedded, exported, teacher_parts
from harness import Progress, mode
from sklearn.linear_model import LogisticRegression
from static_encoder_table import report
from static_encoder_texts import pairs, sentences, sst2, subjectivity

from understudy.contracts import Batch, Knowledge
from understudy.data.sentences import TokenLoader, read_sts
from understudy.deployed import Deployed
from understudy.deployed.static import StaticModel
from understudy.deployed.static_tokens import WordPieces
from understudy.engine import fit
from understudy.evaluate.similarity import cosines
from understudy.export.onnx import export_onnx
from understudy.export.parity import check_parity
from understudy.export.static_encoder import save_static, save_static_int8
from understudy.folders import fingerprint
from understudy.losses.embeddings import Matryoshka, ScoreDistribution
from understudy.objective import Objective, Term
from understudy.recipe import LearningRate, Optimizer, Training
from understudy.students.static import (
    Bags,
    StaticEncoder,
    fit_token_vectors,
    principal_axes,
    sif_weights,
    single_token_vectors,
)
from understudy.tasks.embedding import Embedding
from understudy.teachers.sentence_encoder import SentenceEncoder, SentenceTokenizer

FULL = mode() == "full"
OTHERS = None if FULL else 20_000
WIDTH, SHORTER = 256, (128, 64)
# What the dev split liked best of a few.
FREQUENCY, STRENGTH, EPOCHS, RATE, ROWS = 1e-3, 0.1, 2, 1e-3, 256
SEEDS, ROUNDS, TIMED, PROBED = (0, 1, 2), 5, 192, 4_000
HERE = Path(__file__).parent
WORK = HERE.parent / "runs" / "benchmarks" / "static_encoder" / mode()
Embed = Callable[[Sequence[str]], np.ndarray]


class Whole:
    """The real encoder: texts to vectors, and the vectors it has told already."""

    def __init__(self, encoder: SentenceEncoder, tokenizer: SentenceTokenizer) -> None:
        self.encoder, self.tokenizer = encoder, tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Its vectors of these texts, asked once."""
        path = WORK / f"teacher-{fingerprint(list(texts))}.npy"
        if not path.is_file():
            ids = [row[:LENGTH] for row in self.tokenizer.encode(texts)]
            loader = TokenLoader(ids, pad=self.tokenizer.pad, batch_size=BATCH)
            _keep(path, embedded(self.encoder, loader))
        return np.load(path)

    def alone(self, size: int) -> np.ndarray:
        """Its vectors of single tokens."""
        path = WORK / "single.npy"
        if not path.is_file():
            first, last = self.tokenizer.encode([""])[0]
            with torch.inference_mode():
                found = single_token_vectors(
                    lambda rows: self.encoder(torch.from_numpy(rows)).numpy(),
                    vocabulary=size,
                    before=(first,),
                    after=(last,),
                )
            _keep(path, found)
        return np.load(path)


class Told:
    """A teacher that knows the rows it was asked about."""

    offers = frozenset({"embedding"})

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = torch.from_numpy(vectors)

    def __call__(self, batch: Batch) -> Knowledge:
        """Their vectors, by id."""
        return Knowledge(fields={"embedding": self._vectors[batch.ids]})


def _keep(path: Path, found: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, found)
    part.replace(path)


def taught(start: StaticEncoder, ids: list[list[int]], goals: np.ndarray, seed: int) -> None:
    """Train the encoder in place."""
    terms = [
        Term(
            name="cosine",
            loss=Matryoshka(widths=(WIDTH, *SHORTER)),
            reads="embedding",
            needs=("embedding",),
        ),
        Term(
            name="score_distribution",
            loss=ScoreDistribution(),
            reads="embedding",
            needs=("embedding",),
            weight=0.3,
            related=True,
        ),
    ]
    fit(
        student=start,
        objective=Objective(terms, task=Embedding(dimension=WIDTH), offers=Told.offers),
        teacher=Told(goals),
        training=Training(
            epochs=EPOCHS,
            batch_size=ROWS,
            optimizer=Optimizer(kind="adamw", learning_rate=RATE, weight_decay=0.0),
            schedule=LearningRate(kind="cosine"),
        ),
        loader=TokenLoader(ids, pad=start.pad, batch_size=ROWS, seed=seed),
        validation=None,
        validate=None,
        seed=seed,
    )


def pair_cosines(embed: Embed, split: str) -> np.ndarray:
    """One cosine per pair."""
    both = read_sts(pairs(split))
    return cosines(embed(both.first), embed(both.second))


def probed(embed: Embed) -> dict[str, float]:
    """Accuracy of a logistic regression on frozen vectors, on what was held out."""
    found = {}
    for name, probe in (("sst2", sst2(PROBED)), ("subjectivity", subjectivity(PROBED))):
        model = LogisticRegression(C=10.0, max_iter=1_000)
        model.fit(embed(probe.texts), probe.labels)
        found[name] = float(model.score(embed(probe.test_texts), probe.test_labels))
    return found


def judged(embed: Embed, *, probes: bool = True) -> dict[str, object]:
    """Everything that is asked of one encoder."""
    found: dict[str, object] = {s: pair_cosines(embed, s).tolist() for s in ("dev", "test")}
    return {**found, "probes": probed(embed)} if probes else found


def checked_onnx(student: StaticEncoder, ids: list[list[int]]) -> int:
    """The bytes of the student's ONNX file, once it answers as the module does."""
    path = WORK / "student.onnx"
    (batch,) = TokenLoader(ids[:16], pad=student.pad, batch_size=16)
    export_onnx(student, batch.inputs, path, metadata={"task": '"embedding"'}, free_length=True)
    with torch.inference_mode():
        answer = student(batch.inputs).numpy()
    check_parity(answer, path, batch.inputs.numpy(), atol=1e-5, rtol=1e-4)
    return path.stat().st_size


def speeds(whole: Whole, model: StaticModel) -> dict[str, float]:
    """Sentences per second of processor time by batch; all take turns."""
    pad, texts = whole.tokenizer.pad, list(read_sts(pairs("test")).sentences[:TIMED])
    # The teacher's rows are padded to the longest beside them: like lengths together.
    texts.sort(key=lambda text: len(whole.tokenizer.encode([text])[0]))
    path = exported(whole.encoder, WORK / "teacher.onnx", encoder_cut.Judge(whole.tokenizer), pad)
    runtime = Deployed.open(path, threads=1)

    def by_torch(some: list[str]) -> object:
        with torch.inference_mode():
            return whole.encoder(torch.from_numpy(whole.tokenizer(some))).numpy()

    arms: dict[str, Callable[[list[str]], object]] = {
        "onnx": lambda some: runtime.predict(whole.tokenizer(some)),
        "torch": by_torch,
        "student": model.embed,
    }
    found = {}
    for size in (1, 32):
        chunks = [texts[at : at + size] for at in range(0, TIMED, size)]
        times: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(ROUNDS):
            for name, embed in arms.items():
                start = process_time()
                for chunk in chunks:
                    embed(chunk)
                times[name].append(process_time() - start)
        best = min(("onnx", "torch"), key=lambda name: np.median(times[name]))
        ratios = np.array(times[best]) / np.array(times["student"])
        found[f"speedup_batch_{size}"] = float(np.median(ratios))
        for name, spent in times.items():
            found[f"{name}_per_second_batch_{size}"] = TIMED / float(np.median(spent))
    return found


def load_ms(folder: Path) -> float:
    """Processor time of opening a folder in a fresh process, and of one vector; the median."""
    code = (
        "import sys, time\n"
        "from understudy.deployed.static import StaticModel\n"
        "start = time.process_time()\n"
        "StaticModel.open(sys.argv[1]).embed(['A man eats.'])\n"
        "print(1e3 * (time.process_time() - start))\n"
    )
    run = [sys.executable, "-c", code, str(folder)]
    times = [float(subprocess.run(run, check=True, capture_output=True).stdout) for _ in range(5)]
    return float(np.median(times))


def main() -> None:
    """Ask the teacher, regress, train every seed, save, time, record."""
    progress, whole = Progress("static_encoder"), Whole(*teacher_parts())
    description = whole.tokenizer.files()["tokenizer.json"]
    pieces = WordPieces.read(description)
    texts = [text for text in sentences(OTHERS) if pieces.encode(text)]
    ids = [pieces.encode(text)[:LENGTH] for text in texts]
    vectors, single = whole(texts), whole.alone(pieces.size)
    axes = principal_axes(vectors, width=WIDTH)
    weights = sif_weights(Bags(ids, vocabulary=pieces.size).counts, a=FREQUENCY)
    bags = Bags(ids, vocabulary=pieces.size, weights=weights)
    if progress.get("teacher") is None:
        progress.keep("teacher", judged(whole))
    if progress.get("single") is None:
        progress.keep("single", judged(StaticModel(single, pieces).embed))
    closed = fit_token_vectors(bags, vectors @ axes, single @ axes, strength=STRENGTH, steps=10)
    if progress.get("closed") is None:
        folded = closed.vectors * weights[:, None]
        told = {"explained": closed.explained, "explained_before": closed.explained_before}
        progress.keep("closed", {**judged(StaticModel(folded, pieces).embed), **told})
    for seed in SEEDS:
        if progress.get(f"trained-{seed}") is not None:
            continue
        student = StaticEncoder(closed.vectors, pad=whole.tokenizer.pad, weights=weights)
        taught(student, ids, vectors @ axes, seed)
        folder = save_static(student.folded(), description, WORK / f"student-{seed}")
        model = StaticModel.open(folder)
        for width in SHORTER:
            shorter = judged(partial(model.embed, width=width), probes=False)
            progress.keep(f"shorter-{width}-{seed}", shorter)
        small = save_static_int8(student.folded(), description, WORK / f"int8-{seed}")
        progress.keep(f"int8-{seed}", judged(StaticModel.open(small).embed, probes=False))
        size = checked_onnx(student, ids)
        progress.keep(f"trained-{seed}", {**judged(model.embed), "onnx_bytes": size})
        print(f"seed {seed}: done", file=sys.stderr)
    if progress.get("speed") is None:
        folders = {"float32": WORK / "student-0", "int8": WORK / "int8-0"}
        sizes = {
            f"megabytes_{name}": sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / 1e6
            for name, home in folders.items()
        }
        loads = {f"load_ms_{name}": load_ms(home) for name, home in folders.items()}
        timed = speeds(whole, StaticModel.open(folders["float32"]))
        sizes["megabytes_teacher"] = (WORK / "teacher.onnx").stat().st_size / 1e6
        progress.keep("speed", {**timed, **sizes, **loads})
    report(progress, seeds=SEEDS, count=len(ids), shorter=SHORTER, width=WIDTH)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
