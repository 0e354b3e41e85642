"""`distill`: the same evidence for somebody's own modules and loaders, without a recipe."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.contracts import Batch, Progress, Silent, Teacher
from understudy.data.rows import Rows
from understudy.engine import BATCHES, fit, probe
from understudy.errors import DataError, ModelError
from understudy.export.onnx import export_onnx
from understudy.folders import make_folder
from understudy.models.deployable import Deployable
from understudy.objective import Objective, Term, control_objective
from understudy.pipeline.distilled import Distilled
from understudy.pipeline.own_evidence import evidence
from understudy.pipeline.own_loaders import Loader
from understudy.pipeline.own_rows import are_texts
from understudy.pipeline.own_terms import own_terms
from understudy.pipeline.own_texts import OwnTexts, own_texts
from understudy.pipeline.precision import decided
from understudy.pipeline.without_labels import WHY
from understudy.pipeline.work import threads_for, validator
from understudy.recipe import TermEntry, Training
from understudy.students.scratch import scratch
from understudy.tasks import AnyTask, Classification, Regression
from understudy.teachers.checked import CheckedTeacher

Make = Callable[[], nn.Module]
Array = NDArray[Any]


def distill(
    teacher: Any,
    make_student: Make | nn.Module | str | Mapping[str, Any],
    train_loader: Iterable[Any] | Rows,
    validation_loader: Iterable[Any] | Rows | None = None,
    *,
    test_loader: Iterable[Any] | Rows | None = None,
    objective: Sequence[Term | TermEntry | Mapping[str, Any]] | None = None,
    training: Training | None = None,
    seeds: int | Sequence[int] = 5,
    control: bool = True,
    margin: float = 0.01,
    out: str | Path | None = None,
    progress: Progress | None = None,
    tokenizer: Any = None,
    teacher_tokenizer: Any = None,
    classes: Sequence[str] | None = None,
) -> Distilled:
    """Distil a teacher of one's own into a student of one's own, and say whether it helped.

    Args:
        teacher: a module, anything with `offers` that answers a `Batch`, or a callable of NumPy
            rows. It is asked at every step, since a loader may augment its rows. Of texts also a
            model of Hugging Face, or a callable of a list of strings.
        make_student: a factory without arguments; a module is copied, and then the seeds vary
            nothing but the order of rows. Of texts also a kind, such as `text_cnn`.
        train_loader: batches as `(inputs, labels)`, `(inputs, labels, ids)`, a mapping with these
            names, or `Batch`; labels -1 or NaN where there are none. Or texts: a list of strings,
            `(texts, labels)`, `Rows` of texts, a data set of Hugging Face with a column of texts.
        validation_loader: for choosing the seed to deploy; never the test rows.
        test_loader: for the evidence; without it the verdict is `UNDECIDED`.
        objective: terms, or mappings as in a recipe; Hinton's by default.
        training: how long and how; the same for student and control.
        seeds: how many, or which.
        control: whether to train the same students without the teacher.
        margin: the smallest difference in the primary score that matters.
        out: a folder for the ONNX file.
        progress: where long work shows itself.
        tokenizer: of texts: a path, an object of `tokenizers` or `transformers`, or the fields of
            `data.tokenizer`; None: the teacher's own where it lies beside it, or a trained one.
        teacher_tokenizer: of a module that reads other tokens than the student.
        classes: their names in the order of the answers, where labels do not say it.

    Raises:
        UnderstudyError: whatever the caller can fix.
    """
    training = training or Training()
    texts: OwnTexts | None = None
    asked, make = teacher, make_student
    given: tuple[Any, Any, Any] = (train_loader, validation_loader, test_loader)
    with _as_found(teacher):
        if are_texts(train_loader):
            texts = own_texts(
                teacher,
                make_student,
                *given,
                tokenizer=tokenizer,
                teacher_tokenizer=teacher_tokenizer,
                classes=classes,
                batch_size=training.batch_size,
            )
            asked, make = texts.teacher, texts.make_student
            given = (texts.train, texts.validation, texts.test)
        train, validation, test = (
            part if part is None or isinstance(part, Loader) else Loader(part, trains=number == 0)
            for number, part in enumerate(given)
        )
        assert train is not None
        if isinstance(make, str | Mapping):
            raise ModelError(
                "a student is named by its kind where rows are texts; these rows come from a "
                "loader, so give a factory or a module"
            )
        return _distill(
            asked,
            make,
            train,
            validation,
            test,
            texts=texts,
            objective=objective,
            training=training,
            seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
            control=control,
            margin=margin,
            out=out,
            progress=progress or Silent(),
        )


@contextmanager
def _as_found(teacher: Any) -> Iterator[None]:
    """Leave a module in the mode that it came in."""
    mode = teacher.training if isinstance(teacher, nn.Module) else None
    try:
        yield
    finally:
        if mode is not None:
            teacher.train(mode)


def _distill(
    teacher: Any,
    make_student: Make | nn.Module,
    train: Loader,
    validation: Loader | None,
    test: Loader | None,
    *,
    texts: OwnTexts | None,
    objective: Sequence[Term | TermEntry | Mapping[str, Any]] | None,
    training: Training,
    seeds: tuple[int, ...],
    control: bool,
    margin: float,
    out: str | Path | None,
    progress: Progress,
) -> Distilled:
    # Looked at once: a second look at somebody's loader may change the order of its rows.
    first_batches = list(islice(train, BATCHES))
    task, example = _task(teacher, first_batches) if texts is None else (texts.task, texts.example)
    lesson = own_terms(
        objective,
        task=task,
        teacher=teacher,
        student=lambda: _fresh(make_student, task, seeds[0], texts),
        train=train,
        batch=first_batches[0],
    )
    asked = CheckedTeacher(lesson.teacher)
    terms = lesson.terms(seeds[0])
    pad = None if texts is None else texts.tokenizer.pad
    first = Objective(terms, task=task, offers=asked.offers)  # refuses before anything is trained
    told = _labelled(task, chain(first_batches, train)) if texts is None else texts.labelled
    control = control and told
    seen = validation is None or _labelled(task, validation)
    validation = validation if seen else None
    notes = _notes(told=told, unseen=not seen, given=isinstance(make_student, nn.Module))
    # Once, or arms could differ by their arithmetic.
    training = decided(
        training,
        lambda: _fresh(make_student, task, seeds[0], texts),
        first,
        first_batches[0].inputs,
        progress,
    )
    arms: dict[str, dict[int, nn.Module]] = {"student": {}, "control": {}}
    chosen: dict[int, float] = {}
    for seed in seeds:
        for arm in ("student", "control") if control else ("student",):
            student = _fresh(make_student, task, seed, texts)
            goal = control_objective(terms, task=task)
            if arm == "student":
                goal = Objective(lesson.terms(seed), task=task, offers=asked.offers, pad=pad)
                readings = probe(
                    student=student,
                    objective=goal,
                    teacher=asked if first.needs else None,
                    loader=first_batches,
                    epochs=training.epochs,
                    seed=seed,
                )
                if seed == seeds[0]:
                    for reading in readings:
                        progress.say(reading.line())
            score = task.scores[0]
            steps = training.epochs * len(train)
            with (
                threads_for(student, example, len(example)),
                progress.track(f"{arm}, seed {seed}", steps, "steps") as tracker,
            ):
                fitted = fit(
                    student=student,
                    objective=goal,
                    teacher=asked if arm == "student" and first.needs else None,
                    training=training,
                    loader=train,
                    validation=validation,
                    validate=validator(score),
                    higher_is_better=score.higher_is_better,
                    seed=seed,
                    on_step=tracker,
                )
            arms[arm][seed] = student
            if arm == "student":
                found = [p["validation"] for p in fitted.points if p["epoch"] == fitted.epoch]
                chosen[seed] = (found[0] if found and found[0] is not None else 0.0) * (
                    1 if score.higher_is_better else -1
                )
    best = max(seeds, key=lambda s: (chosen[s], -s))
    alone = WHY if WHY in notes else "without a control nothing was proved"
    verdict, gap, scores = evidence(task, asked, arms, test, margin, alone)
    onnx = None
    if out is not None:
        onnx = make_folder(Path(out)) / "student.onnx"
        names = {"classes": task.classes} if isinstance(task, Classification) else {}
        more = {} if texts is None else texts.metadata
        facts = {"task": task.name, "output": task.output, **names, **more}
        metadata = {key: json.dumps(value) for key, value in facts.items()}
        export_onnx(arms["student"][best], example[:4], onnx, metadata=metadata)
    return Distilled(
        student=arms["student"][best],
        seed=best,
        verdict=verdict,
        gap_closed=gap,
        scores=scores,
        students=arms["student"],
        controls=arms["control"],
        notes=tuple(notes),
        onnx=onnx,
        classes=task.classes if isinstance(task, Classification) else None,
        tokenizer=None if texts is None else texts.tokenizer,
    )


def _task(teacher: Any, batches: Sequence[Batch]) -> tuple[AnyTask, Tensor]:
    """What is asked: integers are classes, as many as the teacher answers; floats are targets."""
    batch = batches[0] if batches else None
    if batch is None or batch.labels is None:
        raise DataError("the first training batch must have labels (-1 or NaN where unknown)")
    if batch.labels.is_floating_point():
        width = batch.labels.shape[1]
        return Regression(targets=tuple(f"target {i + 1}" for i in range(width))), batch.inputs
    if isinstance(teacher, nn.Module):
        with torch.no_grad():
            answer = teacher.eval()(batch.inputs[:2])
    elif isinstance(teacher, Teacher):
        answer = teacher(batch)["logits"]
    else:
        answer = teacher(batch.inputs[:2].numpy())
    width = int(np.shape(_tensor(answer))[-1])
    return Classification(classes=tuple(str(i) for i in range(width))), batch.inputs


def _notes(*, told: bool, unseen: bool, given: bool) -> list[str]:
    """What somebody should know of a call."""
    every = {
        WHY: not told,
        "no validation row has a label, so none of them chose anything": unseen,
        "the student was given as a module: the seeds vary the order of rows only": given,
    }
    return [note for note, holds in every.items() if holds]


def _labelled(task: AnyTask, batches: Iterable[Batch]) -> bool:
    """Whether any row has a label; batches behind the first such are not looked at."""
    return any(
        batch.labels is not None and bool(task.labelled(batch.labels).any()) for batch in batches
    )


def _tensor(answer: Any) -> Any:
    if isinstance(answer, (Tensor, np.ndarray)):
        return answer
    if isinstance(answer, (tuple, list)):
        return answer[0]
    if isinstance(answer, Mapping):
        return answer.get("logits", next(iter(answer.values())))
    return answer.logits


def _fresh(
    make: Make | nn.Module, task: AnyTask, seed: int, texts: OwnTexts | None = None
) -> nn.Module:
    def network() -> nn.Module:
        made = copy.deepcopy(make) if isinstance(make, nn.Module) else make()
        if not isinstance(made, nn.Module):
            raise ModelError(
                f"`make_student` must return a torch module, but returned {type(made).__name__}"
            )
        before = nn.Identity() if texts is None else texts.facts.preprocess()
        rescale = None if texts is None else texts.rescale
        return Deployable(preprocess=before, network=made, width=task.width, rescale=rescale)

    return scratch(network, seed=seed).module
