"""Stage `teacher`: come by the model that knows, loaded or trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.contracts import Teacher
from understudy.data.loaders import MemoryLoader
from understudy.engine import CHECKPOINT, fit
from understudy.errors import ModelError, UnderstudyError
from understudy.evaluate.cost import parameters
from understudy.export.beside import weights_beside
from understudy.folders import file_checksum, fingerprint
from understudy.models.deployable import Deployable
from understudy.models.weights import (
    load_into,
    read_weights,
    save_weights,
    weights_fingerprint,
)
from understudy.objective import control_of
from understudy.pipeline.crew import Crew, wanted_devices
from understudy.pipeline.language import rows_at_once, validating
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.members import Section, load_member, member_module, weights_name
from understudy.pipeline.model_marks import model_marks
from understudy.pipeline.portioning import check_codec
from understudy.pipeline.precision import decided, settled
from understudy.pipeline.prepare import chain_of_views, view_marks
from understudy.pipeline.reference import refer, turn
from understudy.pipeline.signatures import signatures
from understudy.pipeline.validating import validation_loader
from understudy.pipeline.work import Work, threads_for
from understudy.pipeline.zero_shot import encoder_mark, tell
from understudy.recipe import MemberSection, Training
from understudy.teachers.checked import CheckedTeacher
from understudy.teachers.ensemble import EnsembleTeacher
from understudy.teachers.hf_classifier import HFClassifier
from understudy.teachers.sentence_model import SentenceModel
from understudy.teachers.torch_module import TorchTeacher

WEIGHTS = weights_name(0)


def teach(work: Work) -> Loaded:
    """Do the stage `teacher`."""
    check_codec(work)
    section = work.recipe.teacher
    depends: dict[str, Any] = {
        "teacher": section.model_dump(mode="json"),
        "data": work.data_mark,
        "seed": work.recipe.data.seed,
    }
    if section.training is not None:
        depends["views"] = view_marks(work)
    for number, member in enumerate(section.members):
        depends |= _beyond(member, work, f"{number} " if section.ensemble else "")
    summary = work.stage(
        "teacher",
        depends,
        lambda folder: _teacher(work, folder, fingerprint(depends)),
        together=section.training is not None and joint(section.training, work.crew),
    )
    work.notes.extend(summary.get("notes", ()))
    loaded = Loaded(work, summary)
    if not work.recipe.task.has_labels:
        refer(work, lambda: loaded.teacher, summary["fingerprint"])
    return loaded


def _beyond(section: Section, work: Work, which: str) -> dict[str, Any]:
    """What a member is a function of beyond its words in the recipe: files, and its own code."""
    depends: dict[str, Any] = {}
    for name in ("weights", "onnx"):
        value = getattr(section, name)
        if value is not None:
            path = work.place.resolve(value)
            depends[which + name] = file_checksum(path)
            beside = weights_beside(path) if name == "onnx" else []
            depends |= {f"{which}{name} {p.name}": file_checksum(p) for p in beside}
    if section.zero_shot is not None:
        depends[f"{which}encoder"] = encoder_mark(section.zero_shot, work.place)
    depends |= {f"{which}{n}": mark for n, mark in model_marks(section.model, work.place).items()}
    for name in ("model", "predictor"):
        entry = getattr(section, name)
        if entry is not None and entry.kind == "custom":
            depends[f"{which}{name} code"] = signatures(entry, work.place)
    return depends


def joint(training: Training, crew: Crew) -> bool:
    """Whether all processes train together; where the recipe names no devices, one does."""
    return crew.size > 1 and wanted_devices(training) == crew.size


def _teacher(work: Work, folder: Path, mark: str) -> dict[str, Any]:
    section, material = work.recipe.teacher, work.material
    seconds = 0.0
    if section.ensemble:
        return _ensemble(work, section.ensemble, folder, mark)
    if section.zero_shot is not None:
        told = tell(work, section.zero_shot, keep=folder / WEIGHTS)
        _try(load_member(work, section, folder / WEIGHTS)[0], work)
        return told.summary | {"fingerprint": fingerprint([mark, told.mark])}
    if section.model is None:
        _try(load_member(work, section, folder / WEIGHTS)[0], work)
        kind = "onnx" if section.onnx else "predictor"
        return {"kind": kind, "fingerprint": mark, "parameters": None, "seconds": 0.0}
    module = member_module(work, section)
    if section.training is not None:
        seconds = _train(work, module, _numbers(work, module, section.training, folder), folder)
    elif section.weights is not None:
        path = work.place.resolve(section.weights)
        load_into(module.network, read_weights(path), source=str(path))
    elif isinstance(module.network, SentenceModel):
        turn(work, module.network)
    if work.crew.leads:
        _try(TorchTeacher(module, output=material.task.output), work)
        save_weights(module.network, folder / WEIGHTS, rescale=module.rescale)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return {
        "kind": "torch",
        # Weights alone are not enough: the same ones in changed code are another teacher.
        "fingerprint": fingerprint([mark, weights_fingerprint(module)]),
        "parameters": parameters(module),
        "seconds": seconds,
        "notes": _notes(work, module),
    }


def _notes(work: Work, module: Deployable) -> list[str]:
    """What a person should know of how the classes of a fine-tuned model were matched."""
    note = module.network.note if isinstance(module.network, HFClassifier) else ""
    if note:
        work.progress.say(f"teacher: {note}")
    return [note] if note else []


def _ensemble(
    work: Work, members: Sequence[MemberSection], folder: Path, mark: str
) -> dict[str, Any]:
    """Load every member, keep its weights, and try all of them together."""
    marks, teachers, counts = [mark], [], []
    notes: list[str] = []
    for number, section in enumerate(members):
        if section.zero_shot is not None:
            told = tell(work, section.zero_shot, keep=folder / weights_name(number))
            marks.append(told.mark)
            counts.append(parameters(told.module))
            notes += told.notes
        if section.model is not None:
            module = member_module(work, section)
            if section.weights is not None:
                path = work.place.resolve(section.weights)
                load_into(module.network, read_weights(path), source=str(path))
            if work.crew.leads:
                name = weights_name(number)
                save_weights(module.network, folder / name, rescale=module.rescale)
            marks.append(weights_fingerprint(module))
            counts.append(parameters(module))
            notes += _notes(work, module)
        if work.crew.leads:
            teachers.append(load_member(work, section, folder / weights_name(number))[0])
    if work.crew.leads:
        _try(EnsembleTeacher(teachers), work)
    return {
        "kind": "ensemble",
        "fingerprint": fingerprint(marks),
        "parameters": sum(counts) if len(counts) == len(members) else None,
        "seconds": 0.0,
        "notes": notes,
    }


def _try(teacher: Teacher, work: Work) -> None:
    """Ask the teacher for a few rows before anything is built on it."""
    material = work.teaching
    every = material.splits.train
    # Spread over all rows: they may be sorted, and the same answer to equal rows is no defect.
    count = rows_at_once(work, min(len(every), 64))
    positions = every[np.linspace(0, len(every) - 1, count).astype(np.int64)]
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=None,
        ids=material.ids,
        positions=positions,
        batch_size=len(positions),
        pad=material.pad,
        counted=material.counted,
    )
    try:
        finite = work.recipe.labels.on_bad_rows == "error"
        CheckedTeacher(teacher, finite=finite)(loader.batch(positions))
    except UnderstudyError:
        raise
    except Exception as error:  # whatever a model of the user's raises
        shape = list(material.inputs.shape[1:])
        tokens, remedy = material.tokens, "check its arguments and `preprocess`"
        if tokens is not None:
            remedy = (
                f"a teacher of texts must know all {tokens.vocabulary} ids of the tokenizer and "
                f"rows of {tokens.length} tokens: name its own tokenizer in `data.tokenizer`, or "
                "cut the texts with `max_length`"
            )
        raise ModelError(
            f"the teacher cannot answer raw rows of shape {shape}: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}: {remedy}"
        ) from error


def _numbers(work: Work, module: Deployable, training: Training, folder: Path) -> Training:
    """The training with its precision decided, by the leader where several train together."""
    if training.precision != "auto":
        return training
    rows = work.material.inputs[work.material.splits.train[: training.batch_size]]
    goal = control_of([], task=work.material.task)
    if work.crew.leads:
        training = decided(training, lambda: module, goal, rows, work.progress, keep=folder)
    together = joint(training, work.crew)
    return settled(training, work.crew.agree(training.precision)) if together else training


def _train(work: Work, module: Deployable, training: Training, folder: Path) -> float:
    material = work.material
    positions = material.splits.train
    seen = material.task.labelled_rows(material.all_labels.numpy()[positions])
    loader = MemoryLoader(
        inputs=material.inputs,
        labels=material.all_labels,
        ids=material.ids,
        positions=positions[seen],
        batch_size=training.batch_size,
        views=chain_of_views(work, seed=work.recipe.data.seed),
        seed=work.recipe.data.seed,
        rank=work.crew.rank if joint(training, work.crew) else 0,
        ranks=work.crew.size if joint(training, work.crew) else 1,
        pad=material.pad,
        counted=material.counted,
    )
    score = material.task.scores[0]
    total = training.epochs * len(loader)
    with (
        threads_for(module, material.inputs, training.batch_size),
        work.progress.track("teacher: training", total, "steps") as tracker,
    ):
        fitted = fit(
            name="the teacher",
            student=module,
            objective=control_of([], task=material.task),
            teacher=None,
            training=training,
            loader=loader,
            validation=validation_loader(work),
            validate=validating(work),
            higher_is_better=score.higher_is_better,
            seed=work.recipe.data.seed,
            folder=folder,
            on_step=tracker,
        )
    return fitted.seconds
