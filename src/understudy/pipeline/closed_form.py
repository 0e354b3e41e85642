"""Stage `closed_form`: the start of a static student, computed from what its teacher says.

The stored labels are what the regression learns from, so the teacher is asked for each text once;
beside them it is asked for every token of the vocabulary alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

from understudy.contracts import Batch, Teacher
from understudy.data.lengths import shortest_first
from understudy.deployed.lengths import padded
from understudy.deployed.texts import Tokenizer
from understudy.errors import ModelError
from understudy.folders import read_json, write_atomic
from understudy.pipeline.labelling import Labelled, label
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.work import Work
from understudy.students.static import Bags, fit_token_vectors, sif_weights
from understudy.students.static.student import Static
from understudy.teachers.checked import CheckedTeacher

STAGE, FILE = "closed_form", "start.safetensors"
_BATCH = 256


def closed_form(work: Work, loaded: Loaded) -> None:
    """Do the stage, and the labels before it.

    Raises:
        DataError: no training text has a token.
        ModelError: the teacher cannot be asked for single tokens.
    """
    entry = work.recipe.student.model
    assert entry is not None
    output = work.task.output
    # Random views are stored in many forms; the regression is of the texts as they are.
    told = Labelled() if work.recipe.data.views else label(work, loaded, frozenset({output}))
    depends = {
        "teacher": loaded.summary["fingerprint"],
        "data": work.data_mark,
        "student": entry.model_dump(mode="json"),
        "left_out": list(told.left_out),
    }
    work.stage(STAGE, depends, lambda folder: _solve(work, loaded.teacher, told, folder))


def closed_mark(work: Work) -> str:
    """The fingerprint of the finished stage."""
    return str(read_json(work.folder / STAGE / "stage.json")["fingerprint"])


def take_start(work: Work, network: Static) -> None:
    """Put what the stage found into a fresh network."""
    told = load_file(work.folder / STAGE / FILE)
    network.begin(told["vectors"], told["weights"], told["left_out"].tolist())


def _solve(work: Work, teacher: Teacher, told: Labelled, folder: Path) -> dict[str, Any]:
    material = work.material
    tokenizer, tokens = material.tokenizer, material.tokens
    if tokenizer is None or tokens is None:
        raise ModelError("a `static` student is for texts: use another `student.model`")
    made = work.recipe.student.model
    assert made is not None
    section = Static(vocabulary=tokens.vocabulary, pad=tokens.pad, width=1, **made.parameters)
    work.progress.say("student: token vectors in closed form")
    positions = np.sort(material.splits.train)
    positions = positions[~np.isin(material.rows.ids[positions], told.left_out)]
    ends = _ends(tokenizer)
    ids = [
        [int(token) for token in row if token != tokens.pad and token not in ends]
        for row in material.rows.inputs[positions]
    ]
    counts = Bags(ids, vocabulary=tokens.vocabulary).counts
    weights = sif_weights(counts, a=section.frequency)
    stored = None if told.teacher is None else told.teacher()
    goals = _of_texts(work, CheckedTeacher(stored or teacher), positions, own=stored is None)
    prior = _of_tokens(work, teacher, tokenizer, tokens.vocabulary)
    found = fit_token_vectors(
        Bags(ids, vocabulary=tokens.vocabulary, weights=weights),
        goals,
        prior,
        strength=section.strength,
        steps=section.steps,
    )
    work.progress.say(
        f"student: token vectors tell {found.explained:.1%} of the teacher's vectors of training "
        f"texts, {found.explained_before:.1%} before the regression"
    )
    start = {
        "vectors": found.vectors,
        "weights": weights,
        "left_out": np.array(sorted(ends), np.int64),
    }
    write_atomic(folder / FILE, save_arrays(start))
    return {"explained": found.explained, "explained_before": found.explained_before}


def _ends(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that the tokenizer puts around every text."""
    (around,) = tokenizer.encode([""])
    return frozenset(int(token) for token in around)


def _of_texts(
    work: Work, teacher: Teacher, positions: NDArray[np.int64], *, own: bool
) -> NDArray[np.float32]:
    """The teacher's vectors of training texts; a live one is asked in tokens of its own."""
    material = work.teaching if own else work.material
    order = positions[shortest_first(material.inputs, positions, material.pad)]
    parts = []
    for start in range(0, len(order), _BATCH):
        index = torch.from_numpy(order[start : start + _BATCH])
        rows = Batch(inputs=material.inputs[index], ids=material.ids[index])
        parts.append(teacher(rows).tensor(work.task.output).float().cpu().numpy())
    # From the shortest first back into the order of the rows.
    return np.asarray(np.concatenate(parts)[np.argsort(order)], np.float32)


def _of_tokens(
    work: Work, teacher: Teacher, tokenizer: Tokenizer, vocabulary: int
) -> NDArray[np.float32]:
    """The teacher's vector of every token of the student's vocabulary alone."""
    parts = []
    for rows in _rows_of_tokens(work, tokenizer, vocabulary):
        told = teacher(Batch(inputs=torch.from_numpy(rows)))
        parts.append(told.tensor(work.task.output).float().cpu().numpy())
    found = np.concatenate(parts)
    bad = int((~np.isfinite(found).all(axis=1)).sum())
    if bad:
        raise ModelError(
            f"a teacher's vectors of single tokens must be finite, but {bad} are not: use another "
            "`student.model`"
        )
    return np.asarray(found, np.float32)


def _rows_of_tokens(
    work: Work, tokenizer: Tokenizer, vocabulary: int
) -> Iterator[NDArray[np.int32]]:
    """Rows of one token each as the teacher reads them, between the ends of its own."""
    reads = work.teaching.tokenizer
    assert reads is not None
    if work.teaching is work.material:
        (around,) = tokenizer.encode([""])
        cut = (len(around) + 1) // 2
        for start in range(0, vocabulary, _BATCH):
            tokens = np.arange(start, min(start + _BATCH, vocabulary), dtype=np.int32)
            rows = np.empty((len(tokens), len(around) + 1), np.int32)
            rows[:, :cut], rows[:, cut], rows[:, cut + 1 :] = around[:cut], tokens, around[cut:]
            yield rows
        return
    texts = _written(tokenizer, vocabulary)
    for start in range(0, vocabulary, _BATCH):
        ids = reads.encode(texts[start : start + _BATCH])
        yield padded(ids, pad=reads.pad, length=reads.length)


def _written(tokenizer: Tokenizer, vocabulary: int) -> Sequence[str]:
    """Every token as a text, for a teacher with another tokenizer."""
    return [tokenizer.written(token) for token in range(vocabulary)]
