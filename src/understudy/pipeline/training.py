"""One arm of one seed: all phases of its training, and what is kept between them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from understudy import build
from understudy.contracts import Teacher
from understudy.data.loaders import MemoryLoader
from understudy.engine import Reading, fit, probe
from understudy.folders import read_json, write_json
from understudy.models.deployable import Deployable
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.objective import AnyObjective, control_of, objective_of, usual
from understudy.pipeline.carrying import carry, keep
from understudy.pipeline.chain import after, before, sparsity
from understudy.pipeline.language import head_of, is_language, validating
from understudy.pipeline.matching import Found
from understudy.pipeline.members import load_teacher
from understudy.pipeline.portioning import stored_views, view_seed
from understudy.pipeline.precision import settled
from understudy.pipeline.prepare import chain_of_views
from understudy.pipeline.shared_words import words_known
from understudy.pipeline.signatures import signatures
from understudy.pipeline.teach import joint
from understudy.pipeline.validating import validation_loader
from understudy.pipeline.work import Work, threads_for
from understudy.recipe import Phase, Training
from understudy.students.sparse import Sparsity

Arm = Literal["student", "control"]
HISTORY = "history.json"
TERMS = "terms.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What one arm of one seed learns from.

    Attributes:
        work: the run.
        arm: `student` or `control`.
        seed: which.
        student: from its start weights; trained in place.
        teacher: None for a control.
        layers: per phase and term what it compares.
        left_out: ids of rows that the teacher could not answer.
        precision: what a training's `precision: auto` comes to.
    """

    work: Work
    arm: Arm
    seed: int
    student: Deployable
    teacher: Teacher | None
    layers: Found
    left_out: tuple[int, ...]
    precision: str | None = None

    @property
    def title(self) -> str:
        """What bars and errors call it."""
        return f"{self.arm}, seed {self.seed}"


def what_counts(work: Work, phase: Phase, arm: Arm) -> dict[str, Any]:
    """What an arm is a function of: a control is not touched by a change of the teacher's terms."""
    data = phase.model_dump(mode="json")
    for key in ("checkpoint_seconds", "tensorboard"):
        data["training"].pop(key)
    if arm == "control":  # it takes as many steps, and writes nothing
        data["training"].pop("on_policy")
    terms = build.terms(phase.objective, work.place)
    data["objective"] = [
        entry.model_dump(mode="json")
        | {"code": signatures(entry, work.place) if entry.kind == "custom" else {}}
        for entry, term in zip(phase.objective, terms, strict=True)
        if arm == "student" or term.plain
    ]
    return data


def train(lesson: Lesson, folder: Path) -> dict[str, Any]:
    """Train through the whole chain, each phase going on with the weights before it; a summary."""
    work, student = lesson.work, lesson.student
    results: list[tuple[int, dict[str, Any]]] = []
    chain, number = work.recipe.chain, 0
    pruned = False
    for turn, link in enumerate(chain):
        before(work, student, link, turn, folder, seed=lesson.seed, pruned=pruned)
        zeros = sparsity(link.sparsity, pruned=pruned)
        pruned = pruned or link.sparsity is not None
        for phase in link.phases:
            # A control would train where the student does not; without labels it cannot.
            if lesson.arm == "student" or (work.recipe.task.has_labels and _teaches(work, phase)):
                results.append((number, _done(lesson, number, zeros, folder)))
            number += 1
        after(work, student, link, folder)
    points, seconds, epoch = _joined(work, results)
    if work.crew.leads:
        save_weights(student, folder / "weights.safetensors")
        write_json(folder / HISTORY, points)
        for checkpoint in folder.rglob("*.ckpt"):
            checkpoint.unlink()
    last: dict[str, Any] = results[-1][1] if results else {"points": [], "epoch": epoch}
    score = next((p["validation"] for p in last["points"] if p["epoch"] == last["epoch"]), None)
    terms = [result["terms"] for _, result in results]
    return {"epoch": epoch, "validation": score, "seconds": seconds, "terms": terms}


def _done(lesson: Lesson, number: int, zeros: Sparsity | None, folder: Path) -> dict[str, Any]:
    """What came of a phase; it is trained where an earlier session has not finished it."""
    work, student = lesson.work, lesson.student
    where = folder / f"phase-{number + 1}"
    done = where / "finished.json"
    if done.is_file():
        load_into(student, read_weights(where / "weights.safetensors"), source=str(where))
    elif work.crew.leads:
        where.mkdir(parents=True, exist_ok=True)
    if not work.crew.agree(done.is_file()):
        result = _phase(lesson, number, zeros, where)
        if work.crew.leads:
            save_weights(student, where / "weights.safetensors")
            write_json(done, result)
    work.crew.wait()
    found: dict[str, Any] = read_json(done)
    return found


def _joined(
    work: Work, results: Sequence[tuple[int, dict[str, Any]]]
) -> tuple[list[dict[str, Any]], float, int]:
    """The history of all phases as one, their seconds, and the last one's kept epoch."""
    points: list[dict[str, Any]] = []
    seconds, epoch = 0.0, 0
    for number, result in results:
        points += [p | {"phase": number + 1, "epoch": p["epoch"] + epoch} for p in result["points"]]
        epoch, seconds = (
            epoch + phase_epochs(work.recipe.phases[number]),
            seconds + result["seconds"],
        )
    kept: int = results[-1][1]["epoch"] if results else 0
    return points, seconds, kept


def phase_epochs(phase: Phase) -> int:
    """How many epochs a phase has at most."""
    assert phase.training is not None  # Recipe.phases fills it in
    return phase.training.epochs


def _teaches(work: Work, phase: Phase) -> bool:
    """Whether a phase moves the student, and not only an adapter for a later one."""
    return any(term.teaches for term in build.terms(phase.objective, work.place))


def _judged(work: Work, phase: Phase) -> Training:
    """A phase's training; without a choice by score where no term reads what is scored.

    A validation score of an answer that nothing has trained is noise.
    """
    assert phase.training is not None
    terms = build.terms(phase.objective, work.place)
    if any(term.reads not in ("features", "weights") and usual(term.weight) > 0 for term in terms):
        return phase.training
    return phase.training.model_copy(update={"choose": "last", "early_stopping": None})


def _phase(lesson: Lesson, number: int, zeros: Sparsity | None, folder: Path) -> dict[str, Any]:
    work, phase = lesson.work, lesson.work.recipe.phases[number]
    training = settled(_judged(work, phase), lesson.precision)
    material = lesson.work.material
    teacher = lesson.teacher
    objective = _objective(lesson, number)
    if not objective.needs:
        teacher = None
    loader = _loader(lesson, phase)
    carry(objective, [folder.parent / f"phase-{n + 1}" for n in range(number)])
    readings = _looked_at(lesson, objective, teacher, loader, training.epochs, folder)
    score = material.task.scores[0]
    with (
        threads_for(lesson.student, material.inputs, training.batch_size),
        work.progress.track(lesson.title, training.epochs * len(loader), "steps") as tracker,
    ):
        fitted = fit(
            name=lesson.title,
            student=lesson.student,
            objective=objective,
            teacher=teacher,
            training=training,
            loader=loader,
            # A run without labels has none to choose by either.
            validation=None if work.unlabelled else validation_loader(work),
            validate=validating(work),
            higher_is_better=score.higher_is_better,
            seed=lesson.seed,
            folder=folder,
            on_step=tracker,
            sparsity=zeros,
        )
    if work.crew.leads:
        keep(objective, folder)
    points = [dict(point) for point in fitted.points]
    return {
        "points": points,
        "epoch": fitted.epoch,
        "seconds": fitted.seconds,
        "terms": readings,
        "on_policy": None if fitted.written is None else dict(fitted.written),
    }


def _objective(lesson: Lesson, number: int) -> AnyObjective:
    work, teacher = lesson.work, lesson.teacher
    phase, matched = work.recipe.phases[number], lesson.layers[number]
    if lesson.arm == "control":
        terms = build.terms(phase.objective, work.place)
        return control_of(terms, task=work.task)
    plain = build.terms(phase.objective, work.place, matched=matched)
    terms = build.with_adapters(
        phase.objective, plain, matched=matched, known=_known(lesson), seed=lesson.seed
    )
    offers = teacher.offers if teacher is not None else frozenset[str]()
    listed: frozenset[str] = getattr(teacher, "listed", frozenset())
    pad = None if work.material.tokens is None else work.material.tokens.pad
    head = None
    if is_language(work.recipe) and "states" in offers:
        _, modules = load_teacher(work)
        head = head_of(work, modules[0])
    return objective_of(terms, task=work.task, offers=offers, listed=listed, head=head, pad=pad)


def _known(lesson: Lesson) -> Mapping[str, Any]:
    """What an adapter may be told."""
    material = lesson.work.material
    positions = _positions(lesson)
    labels = material.labels[positions]
    known = {"ids": material.ids[positions], "answers": material.task.width}
    known |= words_known(lesson.work, lesson.work.recipe.phases, positions)
    plain = labels.ndim == 1 and not labels.is_floating_point()
    return known | {"labels": labels} if plain else known


def _positions(lesson: Lesson) -> Any:
    # A row that the teacher could not answer is left out for the control too.
    material = lesson.work.material
    positions = material.splits.train
    return positions[~np.isin(material.rows.ids[positions], lesson.left_out)]


def _loader(lesson: Lesson, phase: Phase) -> MemoryLoader:
    work, material, training = lesson.work, lesson.work.material, phase.training
    assert training is not None
    positions, every = _positions(lesson), material.splits.train
    student = lesson.arm == "student"
    together = joint(training, work.crew)
    return MemoryLoader(
        inputs=material.inputs,
        labels=material.labels,
        ids=material.ids,
        positions=positions if student else material.labelled(positions),
        batch_size=training.batch_size,
        views=chain_of_views(work, seed=view_seed(work, lesson.seed)),
        cycle=stored_views(work),
        # Whom a row is mixed with must not depend on which rows are left out here.
        pool=every if student else material.labelled(every),
        seed=lesson.seed,
        length=len(positions),
        rank=work.crew.rank if together else 0,
        ranks=work.crew.size if together else 1,
        pad=material.pad,
        counted=material.counted,
    )


def _looked_at(
    lesson: Lesson,
    objective: AnyObjective,
    teacher: Teacher | None,
    loader: MemoryLoader,
    epochs: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """What every term is worth at the start; weights that are to be found are fixed, once."""
    if lesson.arm == "control":
        return []
    work, path = lesson.work, folder / TERMS
    if work.crew.leads and not path.is_file():
        found: tuple[Reading, ...] = probe(
            student=lesson.student,
            objective=objective,
            teacher=teacher,
            loader=loader,
            epochs=epochs,
            seed=lesson.seed,
        )
        write_json(path, [asdict(reading) for reading in found])
        # The other seeds differ in their start weights only.
        if lesson.seed == work.recipe.seed_list[0]:
            for reading in found:
                work.progress.say(reading.line())
    work.crew.wait()
    readings: list[dict[str, Any]] = read_json(path)
    objective.balance({r["term"]: r["weight"] for r in readings if r["found"]})
    return readings
