"""Stage `distil`: every arm of every seed, through the whole chain of steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy import build
from understudy.contracts import Student
from understudy.data.lengths import shortest_first, trimmed
from understudy.folders import read_json
from understudy.models.deployable import Deployable
from understudy.objective import Objective
from understudy.pipeline.chain import as_after, chain_marks
from understudy.pipeline.labelling import Labelled, label, live, stored_views
from understudy.pipeline.matching import Found, match_layers
from understudy.pipeline.prepare import view_marks
from understudy.pipeline.student import fresh_student, student_mark
from understudy.pipeline.teach import Loaded, joint
from understudy.pipeline.training import Arm, Lesson, train, what_counts
from understudy.pipeline.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """One finished arm of one seed.

    Attributes:
        arm: `student` or `control`.
        seed: which.
        folder: holds `weights.safetensors`, `history.json` and the phases' logs.
        summary: epochs, seconds, validation score.
    """

    arm: Arm
    seed: int
    folder: Path
    summary: dict[str, Any]


def distil(work: Work, loaded: Loaded) -> tuple[list[Trained], float]:
    """Do the stage `distil` for every seed and arm; the arms, and the teacher pass's seconds."""
    found = layers(work, loaded)
    labelled = label(work, loaded, needed(work, loaded, found))
    arms: list[Trained] = []
    for seed in work.recipe.seed_list:
        arms.append(one_arm(work, "student", seed, labelled, loaded, found))
        if work.recipe.has_control:
            arms.append(one_arm(work, "control", seed, labelled, loaded, found))
    return arms, labelled.seconds


def layers(work: Work, loaded: Loaded) -> Found:
    """The layers that the terms of every phase compare."""

    def student() -> Student:
        return fresh_student(work, work.recipe.seed_list[0])

    return match_layers(work, loaded, student, student_mark(work))


def needed(work: Work, loaded: Loaded, found: Found) -> frozenset[str]:
    """The teacher's knowledge that the objectives of all phases need, layers included."""
    needs: frozenset[str] = frozenset()
    codec = build.codec(work.recipe.labels.codec)
    listed = loaded.offers if codec.listed and not live(work) else frozenset[str]()
    for phase, matched in zip(work.recipe.phases, found, strict=True):
        terms = build.terms(phase.objective, work.place, matched=matched)
        inside = {pair.teacher for term in terms for pair in term.pairs}
        offers = loaded.offers | inside
        needs |= Objective(terms, task=work.task, offers=offers, listed=listed).needs
    return needs


def one_arm(
    work: Work, arm: Arm, seed: int, labelled: Labelled, loaded: Loaded, found: Found
) -> Trained:
    """Train one arm of one seed, as a stage."""
    marks = read_json(work.folder / "student" / "stage.json")["summary"]["start"]
    depends: dict[str, Any] = {
        "arm": arm,
        "seed": seed,
        "start": marks[str(seed)],
        "student": student_mark(work),
        "views": view_marks(work),
        "phases": [what_counts(work, phase, arm) for phase in work.recipe.phases],
        "chain": chain_marks(work),
    }
    teacher = labelled.teacher if arm == "student" else None
    if teacher is not None:
        depends["teacher"] = loaded.summary["fingerprint"]
        depends["layers"] = [[None if m is None else m.to_data() for m in p] for p in found]
        if not live(work):
            depends["labels"] = labelled.plan
    if stored_views(work) is not None:
        depends["stored_views"] = stored_views(work)
    if labelled.left_out:
        depends["left_out"] = list(labelled.left_out)
    name = f"distil/{arm}-{seed}"
    together = any(joint(p.training, work.crew) for p in work.recipe.phases if p.training)
    summary = work.stage(
        name,
        depends,
        lambda folder: train(
            Lesson(
                work=work,
                arm=arm,
                seed=seed,
                student=start(work, seed),
                teacher=teacher() if teacher else None,
                layers=found,
                left_out=labelled.left_out,
            ),
            folder,
        ),
        together=together,
    )
    return Trained(arm=arm, seed=seed, folder=work.folder / name, summary=summary)


def start(work: Work, seed: int) -> Deployable:
    """The student of a seed with its start weights."""
    module = fresh_student(work, seed).module
    assert isinstance(module, Deployable)
    return module


def trained_module(work: Work, arm: Trained, *, step: int | None = None) -> Deployable:
    """The module of a finished arm in evaluation mode, as it was after a step or at the end."""
    return as_after(work, start(work, arm.seed), arm.folder, seed=arm.seed, step=step)


def predict(module: nn.Module, work: Work, positions: NDArray[Any]) -> NDArray[Any]:
    """Answers of a module to rows, `[rows, width]` float32."""
    inputs, pad, size = work.material.inputs, work.material.pad, work.recipe.evaluate.batch_size
    order = shortest_first(inputs, positions, pad)
    answers = []
    with torch.inference_mode():
        for start in range(0, len(positions), size):
            rows = inputs[torch.from_numpy(positions[order[start : start + size]])]
            answers.append(module(rows if pad is None else trimmed(rows, pad)).float().numpy())
    return np.concatenate(answers)[np.argsort(order)]
