"""SST-2 in a file of an eighth of the encoder's bytes, with all labels and with a hundred.

`recipes/text_classifier.yaml`: MiniLM (22.7 million parameters) is fine-tuned here and teaches
a recurrent network, also on 8,431 sentences about films without labels, of which none shares six
words in a row with a sentence that is judged. Judged on the 1,821 test sentences; GLUE's 872 dev
sentences stand beside them, and neither chose anything. `accuracy_kept` is the accuracy of the
student's deployed files as a share of the teacher's; bytes and latency are those of the ONNX files:
batch 1, one thread, in turns, over test sentences. `few_label_gain` is in points: the same student
with 100 labels, taught on rows without labels by the teacher that saw all, against its control,
from the same start, on the 100 alone. `static_ms` is a text to a class with NumPy alone, by the
mean of token vectors and a linear layer.

FULL=1: the recipe as it is. Reduced: see `REDUCED` and `FEW`. Goes on where it was stopped.
"""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from harness import Progress, mode
from safetensors.numpy import load_file
from text_classifier_table import report
from text_classifier_texts import films, sst2

from understudy.cli.show import Bars
from understudy.deployed import Deployed, text_rows
from understudy.deployed.static import StaticModel
from understudy.deployed.static_tokens import WordPieces
from understudy.deployed.texts import tokenizer_of
from understudy.pipeline import run

ROOT = Path(__file__).parent.parent
WORK = ROOT / "runs" / "benchmarks" / "text_classifier" / mode()
FILMS, WEIGHTS = WORK / "films.tsv", WORK / "all" / "teacher" / "weights.safetensors"
FULL = mode() == "full"
ALWAYS = [f"data.unlabelled={FILMS}"]
# An epoch of the teacher instead of two, and bfloat16 where it only costs digits and saves time.
REDUCED = [
    "teacher.training.epochs=1",
    "teacher.training.precision=auto",
    "labels.tolerance=0.05",
    "labels.views=3",
    "steps.0.training.epochs=5",
    "steps.0.training.optimizer.learning_rate=0.003",
]
TAUGHT = [f"teacher.weights={WEIGHTS}", "teacher.training=null"]
FEW = ["data.labelled=100", *([] if FULL else ["data.rows=20000", "labels.views=2"])]
STATIC = [
    "student.model={kind: text_static, dim: 64}",
    "student.token_vectors.frozen=false",
    "labels.views=1",
    "steps.0.training.epochs=3",
    "steps.0.control=false",
    "seeds=[0]",
    "evaluate.latency_seconds=0.02",
    *([] if FULL else ["data.rows=10000"]),
]
SEEDS, TIMED, ROUNDS = (0, 1, 2), 100, 7
ARMS = ("teacher", "student", "student_int8", "control")


def arm(name: str, settings: list[str], kept: Progress) -> None:
    """Run the recipe with these settings unless it is kept, and keep which rows were right."""
    if kept.get(name) is not None:
        return
    settings = [*ALWAYS, *([] if FULL else REDUCED), *settings]
    recipe, out = ROOT / "recipes" / "text_classifier.yaml", WORK / name
    result = run(recipe, out=out, settings=settings, progress=Bars(quiet=False)).data
    answers = load_file(out / "evaluate" / "answers.safetensors")
    # The test rows stand behind the training rows, in the file's order.
    places = answers["positions"] - answers["positions"].min()
    truth = np.array([label for _, label in sst2("test")])[places]
    found: dict[str, Any] = {}
    for model in ARMS:
        if model in answers:
            hits = answers[model].argmax(axis=-1) == truth
            found[model] = {
                "hits": [np.packbits(one).tobytes().hex() for one in hits],
                "parameters": result["models"][model]["parameters"],
                "bytes": result["models"][model]["bytes"],
                "seconds": result["models"][model]["seconds"],
            }
    counts = {name: result["rows"][name] for name in ("train", "labelled", "test")}
    kept.keep(name, {**counts, "models": found})


def on_dev() -> dict[str, list[float]]:
    """The accuracy of the deployed files on GLUE's dev sentences."""
    rows = sst2("dev")
    truth = np.array([label for _, label in rows])
    files = {"teacher": ["teacher.onnx"], "student": [f"student-{s}.int8.onnx" for s in SEEDS]}
    found = {}
    for model, names in files.items():
        opened = [Deployed.open(WORK / "all" / "export" / name, threads=1) for name in names]
        found[model] = [
            float((one.predict(text_rows([t for t, _ in rows], one)).argmax(1) == truth).mean())
            for one in opened
        ]
    return found


def latencies() -> dict[str, Any]:
    """Milliseconds of one row of tokens, the two files by turns; the medians, and their ratio."""
    home = WORK / "all" / "export"
    files = [Deployed.open(home / f"{n}.onnx", threads=1) for n in ("teacher", "student.int8")]
    tokenizer = tokenizer_of(files[1])
    rows = [tokenizer([text]) for text, _ in sst2("test")[:TIMED]]
    ratios, every = [], []
    for number in range(ROUNDS + 1):
        medians = [float(np.median([_ms(one.predict, row) for row in rows])) for one in files]
        if number:  # the first round warms up
            ratios.append(medians[0] / medians[1])
            every.append(medians)
    sizes = [(home / f"{n}.onnx").stat().st_size for n in ("teacher", "student.int8")]
    teacher, student = np.median(every, axis=0).tolist()
    ratio = float(np.median(ratios))
    return {"teacher_ms": teacher, "student_ms": student, "ratio": ratio, "bytes": sizes}


def static() -> dict[str, float]:
    """A text to its class with NumPy alone: milliseconds, and how far from the ONNX file's."""
    home = WORK / "static"
    onnx = Deployed.open(home / "export" / "student.onnx", threads=1)
    tokenizer = tokenizer_of(onnx)
    pieces = WordPieces.read(json.loads(tokenizer.content))
    weights = load_file(home / "distil" / "student-0" / "weights.safetensors")
    found = {name.removeprefix("network."): value for name, value in weights.items()}
    model = StaticModel(found["embedding.weight"], pieces, normalize=False)
    turn, shift = found["head.weight"].T.copy(), found["head.bias"]

    def classify(text: str) -> np.ndarray:
        # The marks at the ends are tokens of the student's rows.
        return model.embed([f"[CLS]{text}[SEP]"]) @ turn + shift

    texts = [text for text, _ in sst2("test")]
    first = float(np.median([_ms(classify, text) for text in texts]))
    answers = np.concatenate([classify(text) for text in texts])
    # Rows of the file are cut at its length, texts here are not.
    whole = [at for at, text in enumerate(texts) if not tokenizer.cut([text])]
    off = np.abs(answers - onnx.predict(text_rows(texts, onnx)))[whole].max()
    if off > 1e-4:
        raise SystemExit(f"NumPy and ONNX Runtime must agree, but differ by {off:.5f}")
    times = [float(np.median([_ms(classify, text) for text in texts])) for _ in range(ROUNDS)]
    truth = np.array([label for _, label in sst2("test")])
    right = float((answers.argmax(1) == truth).mean())
    return {"ms": float(np.median(times)), "first_ms": first, "accuracy": right}


def _ms(call: Any, given: Any) -> float:
    start = perf_counter()
    call(given)
    return 1e3 * (perf_counter() - start)


def main() -> None:
    """All labels, a hundred, the static student, times, record."""
    kept = Progress("text_classifier")
    if not FILMS.is_file():
        films(FILMS)
    arm("all", [], kept)
    arm("few", [*TAUGHT, *FEW], kept)
    arm("static", [*TAUGHT, *STATIC], kept)
    for name, measure in (("dev", on_dev), ("latency", latencies), ("numpy", static)):
        if kept.get(name) is None:
            kept.keep(name, measure())
    report(kept.finished(), seeds=SEEDS)


if __name__ == "__main__":
    main()
