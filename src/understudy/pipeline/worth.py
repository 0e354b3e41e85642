"""What vectors are good for: pairs ranked as people rank them, and linear probes.

Teacher, student, control and int8 files meet the same texts, each through its own tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.contracts import Batch
from understudy.data.lengths import trimmed
from understudy.deployed import Deployed
from understudy.deployed.lengths import lengths
from understudy.deployed.texts import Tokenizer
from understudy.evaluate.quality import Score, interval, score_interval
from understudy.evaluate.similarity import SPEARMAN, cosines, spearman_kept
from understudy.pipeline.deploy import STUDENT
from understudy.pipeline.distil import Trained, trained_module
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.questions import Probe, probe_rows, scored_pairs
from understudy.pipeline.work import Work
from understudy.students.probes import probe_hits

Array = NDArray[Any]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Worth:
    """What was found.

    Attributes:
        score: that models are compared by, of pairs; None where there are none.
        answers: per model the cosines of the pairs, `[seeds, pairs, 1]`.
        labels: what people said of the pairs.
        own: the cosines of the file that is there to be deployed, `[pairs, 1]`.
        record: everything for `run.json`.
    """

    score: Score | None = None
    answers: Mapping[str, Array] = field(default_factory=dict)
    labels: Array
    own: Array
    record: Mapping[str, Any] = field(default_factory=dict)


def worth(work: Work, arms: Sequence[Trained], loaded: Loaded) -> Worth | None:
    """Ask every model; None where the recipe asks nothing of vectors."""
    section = work.recipe.evaluate
    if work.recipe.task.has_labels or (section.pairs is None and not section.probes):
        return None
    models = _models(work, arms, loaded)
    record: dict[str, Any] = {}
    none = np.zeros((0, 1))
    found = Worth(labels=none, own=none, record=record)
    pairs = scored_pairs(work)
    if pairs is not None:
        places = {text: at for at, text in enumerate(pairs.sentences)}
        sides = [np.array([places[t] for t in side]) for side in (pairs.first, pairs.second)]

        def alike(embed: Embed) -> Array:
            vectors = embed(pairs.sentences)
            return cosines(vectors[sides[0]], vectors[sides[1]])[:, None]

        answers = {n: np.stack([alike(embed) for embed in every]) for n, every in models.items()}
        record["pairs"] = _of_pairs(work, answers, pairs.scores)
        found = Worth(
            score=SPEARMAN,
            answers=answers,
            labels=pairs.scores,
            own=alike(_of_file(work, STUDENT)),
            record=record,
        )
    record["probes"] = [
        _of_probe(work, models, probe_rows(work, probe)) for probe in section.probes
    ]
    return found


def _of_pairs(work: Work, answers: Mapping[str, Array], scores: Array) -> dict[str, Any]:
    draws = work.recipe.evaluate.draws
    models: dict[str, Any] = {}
    for name, given in answers.items():
        one = interval(SPEARMAN, given, scores, draws=draws)
        each = [SPEARMAN.value(seed, scores) for seed in given]
        models[name] = {"value": one.value, "low": one.low, "high": one.high, "per_seed": each}
    kept = None
    if models["teacher"]["value"] > 0:
        share = spearman_kept(
            answers["student"][:, :, 0], answers["teacher"][0, :, 0], scores, draws=min(draws, 300)
        )
        kept = {"value": share.value, "low": share.low, "high": share.high}
    return {"rows": len(scores), "models": models, "kept": kept}


def _of_probe(work: Work, models: Mapping[str, Sequence[Embed]], probe: Probe) -> dict[str, Any]:
    found = {}
    for name, every in models.items():
        hits = np.stack(
            [
                probe_hits(
                    embed(probe.texts).astype(np.float64),
                    probe.labels,
                    embed(probe.test_texts).astype(np.float64),
                    probe.test_labels,
                )
                for embed in every
            ]
        )
        one = score_interval(hits, draws=work.recipe.evaluate.draws)
        each = hits.mean(axis=1).tolist()
        found[name] = {"value": one.value, "low": one.low, "high": one.high, "per_seed": each}
    return {
        "name": probe.name,
        "rows": len(probe.texts),
        "test": len(probe.test_texts),
        "classes": list(probe.classes),
        "models": found,
    }


def _models(work: Work, arms: Sequence[Trained], loaded: Loaded) -> dict[str, list[Embed]]:
    """Per model what embeds texts, one for every seed."""
    reads, size = work.teaching.tokenizer, work.recipe.evaluate.batch_size
    own = work.material.tokenizer
    assert reads is not None
    assert own is not None
    teacher, output = loaded.teacher, work.task.output

    def told(rows: Tensor) -> Array:
        return teacher(Batch(inputs=rows)).tensor(output).float().cpu().numpy()

    found: dict[str, list[Embed]] = {"teacher": [partial(_embedded, told, reads, size)]}
    for arm in arms:
        found.setdefault(arm.arm, []).append(partial(_by_arm, work, arm, own, size))
    if work.recipe.quantized is not None:
        files = [f"student-{seed}.int8.onnx" for seed in work.recipe.seed_list]
        found["student_int8"] = [_of_file(work, name) for name in files]
    return found


def _by_arm(
    work: Work, arm: Trained, tokenizer: Tokenizer, size: int, texts: Sequence[str]
) -> NDArray[np.float32]:
    module = trained_module(work, arm)

    def told(rows: Tensor) -> Array:
        with torch.inference_mode():
            return np.asarray(module(rows).float().numpy())

    return _embedded(told, tokenizer, size, texts)


def _of_file(work: Work, name: str) -> Embed:
    """Vectors of an exported file, by the tokenizer of the run."""
    session = Deployed.open(work.folder / "export" / name)
    tokenizer = work.material.tokenizer
    assert tokenizer is not None
    return lambda texts: session.predict(tokenizer(texts))


def _embedded(
    ask: Callable[[Tensor], Array], tokenizer: Tokenizer, size: int, texts: Sequence[str]
) -> NDArray[np.float32]:
    """Vectors of texts, asked for in batches of like lengths, in order."""
    rows = tokenizer(list(texts))
    order = np.argsort(lengths(rows, tokenizer.pad), kind="stable")
    parts = [
        ask(trimmed(torch.from_numpy(rows[order[at : at + size]]), tokenizer.pad))
        for at in range(0, len(rows), size)
    ]
    return np.asarray(np.concatenate(parts)[np.argsort(order)], np.float32)
