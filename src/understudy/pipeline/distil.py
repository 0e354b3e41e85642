"""Stage `distil`: every arm of every seed, through the whole chain of steps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy import build
from understudy.contracts import Student
from understudy.folders import read_json
from understudy.models.deployable import Deployable
from understudy.objective import control_of, objective_of
from understudy.pipeline.chain import as_after, chain_marks
from understudy.pipeline.fresh import fresh_student
from understudy.pipeline.labelling import Labelled, label
from understudy.pipeline.language import codec_of, head_of, is_language, told_by
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.matching import Found, match_layers
from understudy.pipeline.portioning import live, stored_views
from understudy.pipeline.precision import decided
from understudy.pipeline.prepare import view_marks
from understudy.pipeline.student import student_mark
from understudy.pipeline.teach import joint
from understudy.pipeline.training import Arm, Lesson, train, what_counts
from understudy.pipeline.without_labels import check_needs
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
    needs = needed(work, loaded, found)
    check_needs(work, needs)
    labelled = label(work, loaded, needs)
    arms: list[Trained] = []
    for seed in work.recipe.seed_list:
        arms.append(one_arm(work, "student", seed, labelled, loaded, found))
        if work.has_control:
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
    codec = codec_of(work.recipe)
    head = None
    if is_language(work.recipe) and told_by(work.recipe, live=live(work)) == "states":
        head = head_of(work, loaded.module)
    listed = loaded.offers if codec.listed and not live(work) else frozenset[str]()
    for phase, matched in zip(work.recipe.phases, found, strict=True):
        terms = build.terms(phase.objective, work.place, matched=matched)
        inside = {pair.teacher for term in terms for pair in term.pairs}
        offers = loaded.offers | inside | (frozenset({"states"}) if head else frozenset())
        made = objective_of(terms, task=work.task, offers=offers, listed=listed, head=head)
        needs |= made.needs
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
    precision = precision_of(work)
    if precision is not None:
        depends["precision"] = precision
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
                precision=precision,
            ),
            folder,
        ),
        together=together,
    )
    return Trained(arm=arm, seed=seed, folder=work.folder / name, summary=summary)


def precision_of(work: Work) -> str | None:
    """Stage `precision`: what `precision: auto` comes to; None where no phase leaves it open.

    All arms and seeds train in it, or a difference between them could be one of arithmetic; a
    session that goes on with the run keeps it.
    """
    trainings = [phase.training for phase in work.recipe.phases if phase.training is not None]
    first = next((training for training in trainings if training.precision == "auto"), None)
    if first is None:
        return None

    def find(_: Path) -> dict[str, str]:
        rows = work.material.inputs[work.material.splits.train[: first.batch_size]]
        seed, goal = work.recipe.seed_list[0], control_of([], task=work.task)
        found = decided(first, lambda: start(work, seed), goal, rows, work.progress)
        return {"precision": found.precision}

    depends = student_mark(work) | {
        "batch_size": first.batch_size,
        "accelerator": first.trainer.get("accelerator"),
    }
    found: str = work.stage("precision", depends, find)["precision"]
    return found


def start(work: Work, seed: int) -> Deployable:
    """The student of a seed with its start weights."""
    module = fresh_student(work, seed).module
    assert isinstance(module, Deployable)
    return module


def trained_module(work: Work, arm: Trained, *, step: int | None = None) -> Deployable:
    """The module of a finished arm in evaluation mode, as it was after a step or at the end."""
    return as_after(work, start(work, arm.seed), arm.folder, seed=arm.seed, step=step)
