"""Stage `data`: read the rows, check them, split them, and find how they are scaled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy import build
from understudy.data.checks import check_rows
from understudy.data.preprocess import Preprocess, fit_preprocess
from understudy.data.rows import Rows
from understudy.data.splits import Splits, split
from understudy.data.tokens import TokenFacts, Tokens
from understudy.data.unlabelled import with_unlabelled
from understudy.data.views import Views
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError
from understudy.folders import file_checksum, fingerprint, read_json, write_atomic, write_json
from understudy.pipeline.commissioned import source_of, texts_of
from understudy.pipeline.documents import load_documents, write_documents
from understudy.pipeline.fitting_views import fitting_views
from understudy.pipeline.language import is_language
from understudy.pipeline.laying import Laid, cut_note, laid
from understudy.pipeline.own_tokens import embedding_task, told_width, with_teaching
from understudy.pipeline.signatures import signatures
from understudy.pipeline.without_labels import NO_UNITS, WHY, check_unlabelled, described
from understudy.pipeline.work import FACTS, Material, Work, task_from
from understudy.tasks import (
    AnyTask,
    Classification,
    Embedding,
    LanguageModel,
    Regression,
    TokenClassification,
)

SPLITS = "splits.safetensors"
TOKENIZER = "tokenizer.json"


def prepare(work: Work) -> dict[str, Any]:
    """Do the stage; what it says of the rows."""
    options = work.recipe.data
    section = options.model_dump(mode="json")
    texts = texts_of(work)
    depends: dict[str, Any] = {
        "data": {k: v for k, v in section.items() if k != "views"},
        "task": work.recipe.task.model_dump(mode="json"),
        "files": signatures(work.recipe.data.source, work.place),
        "unlabelled": [signatures(e, work.place) for e in build.unlabelled_sources(options)],
        "described": work.recipe.teacher.told_classes,
        "width": told_width(work),
    }
    if work.recipe.data.tokenizer.file is not None:
        depends["tokenizer"] = build.tokenizer_mark(work.recipe.data.tokenizer, work.place)
    if texts is not None:
        depends["texts"] = texts
    summary: dict[str, Any] = work.stage("data", depends, lambda folder: _write(work, folder))
    fitting_views(work)
    work.notes.extend(summary["notes"])
    return summary


def view_marks(work: Work) -> list[dict[str, Any]]:
    """What the random views are a function of beside their seed: words, and the user's code."""
    return [
        entry.model_dump(mode="json")
        | ({"code": signatures(entry, work.place)} if entry.kind == "custom" else {})
        for entry in work.recipe.data.views
    ]


def read_rows(work: Work) -> Rows:
    """The raw rows, checked."""
    rows = build.source(source_of(work), work.place)()
    rows = with_unlabelled(rows, build.unlabelled(work.recipe.data, work.place))
    kind = work.recipe.task.kind
    told = work.recipe.teacher.told_classes
    rows = described(rows, told, each_word=kind == "token_classification")
    check_rows(rows)
    found = rows.task
    if kind not in (found, "embedding") and rows.labels is not None:
        raise DataError(
            f"the task is {kind}, but these rows are for {found} (labels of type "
            f"{rows.labels.dtype}): set `task: {{kind: {found}}}`, or the `task` of the data source"
        )
    return rows


def _write(work: Work, folder: Path) -> dict[str, Any]:
    work.progress.say("data: reading the rows")
    rows = read_rows(work)
    if is_language(work.recipe):
        return write_documents(work, rows, folder)
    options = work.recipe.data
    splits = split(
        rows,
        seed=options.seed,
        test=options.test,
        validation=options.validation,
        rows_limit=options.rows,
        labelled=options.labelled,
        overlap=options.overlap,
    )
    splits.save(folder / SPLITS)
    content = rows.fingerprint()
    chosen, notes = options.preprocess, []
    more: dict[str, Any] = {}
    if rows.texts is not None:
        tokens, ready = _tokens(work, rows, splits, folder)
        preprocess: Preprocess | Tokens = tokens.preprocess()
        more, notes = {"tokens": tokens.to_data()}, [ready.note] if ready.note else []
    else:
        ready = Laid(rows=rows, labels=rows.labels)
        preprocess = fit_preprocess(
            rows,
            splits.train,
            scale=chosen.scale,
            mean=None if chosen.mean is None else list(chosen.mean),
            std=None if chosen.std is None else list(chosen.std),
        )
    task = _task(rows, splits) if work.recipe.task.has_labels else embedding_task(work, rows)
    labels = ready.visible(splits)
    seen = task.labelled_rows(labels[splits.train])
    counts = {
        "train": len(splits.train),
        "labelled": int(seen.sum()),
        "validation": len(splits.validation),
        "test": len(splits.test),
    }
    if not counts["labelled"] and work.recipe.task.has_labels:
        every = rows.labels is not None and rows.labelled[splits.train].any()
        check_unlabelled(work.recipe, any_label=bool(every))
        notes.append(
            f"{WHY}. Labels of validation rows are not used either, so the first seed is deployed"
        )
    facts = {
        "content": content,
        # Which row is for what: a student must never be scored on rows that it was trained on.
        "splits": file_checksum(folder / SPLITS),
        "preprocess": preprocess.describe(),
        "facts": dict(preprocess.facts)
        | {"width": task.width}
        | ({} if ready.counted is None else {"each_token": True}),
        "task": _describe(task),
        "counts": counts,
        "columns": [{"name": c.name, "categories": c.categories} for c in rows.columns or ()],
        **more,
    }
    write_json(folder / FACTS, facts)
    if splits.dropped:
        notes.append(
            f"{splits.dropped} training rows were left out because the same rows are test rows"
        )
    if 0 < counts["labelled"] < counts["train"]:
        notes.append(
            f"student and control see {counts['labelled']} of {counts['train']} hard labels; "
            "a teacher that is trained here sees all of them, and validation rows keep theirs"
        )
    return {"counts": counts, "notes": notes, "fingerprint": fingerprint(facts)}


def chain_of_views(work: Work, *, seed: int) -> Views:
    """The recipe's random operations, for the rows of this run."""
    tokens = work.material.tokens
    return build.views(work.recipe.data.views, work.place, seed=seed, tokens=tokens)


def _tokens(work: Work, rows: Rows, splits: Splits, folder: Path) -> tuple[TokenFacts, Laid]:
    """Come by the tokenizer, and write it down; what it is, and the rows as the task takes them."""
    section = work.recipe.data.tokenizer
    if work.recipe.data.preprocess.model_fields_set & {"scale", "mean", "std"}:
        raise DataError(
            "`scale`, `mean` and `std` of `data.preprocess` are for images and tables, but these "
            "rows are texts: remove them"
        )
    assert rows.texts is not None
    texts = rows.texts
    if section.file is None:
        work.progress.say(f"data: training a tokenizer of at most {section.size} tokens")
    # Of the training rows alone: a vocabulary that knows the test rows is a leak.
    learned = (part for at in splits.train for part in texts[at])
    tokenizer = build.tokenizer(section, work.place, learned)
    ready = laid(work.recipe.task.kind, rows, tokenizer)
    ready = replace(ready, note=cut_note(ready, tokenizer))
    # As long as the rows are, or as was said: the positions that a network needs.
    length = section.max_length or ready.rows.inputs.shape[1]
    tokenizer = Tokenizer(tokenizer.content, pad=tokenizer.pad, length=length)
    write_atomic(folder / TOKENIZER, tokenizer.content)
    facts = TokenFacts.of(tokenizer)
    return facts, ready


def run_tokenizer(work: Work) -> Tokenizer:
    """The tokenizer of a run, as the stage wrote it down."""
    told = TokenFacts.from_data(work.facts["tokens"])
    content = (work.folder / "data" / TOKENIZER).read_text(encoding="utf-8")
    return Tokenizer(content, pad=told.pad, length=told.length)


def _task(rows: Rows, splits: Splits) -> AnyTask:
    if rows.classes is not None:
        kind = TokenClassification if rows.task == "token_classification" else Classification
        return kind(classes=tuple(rows.classes))
    if rows.labels is None:
        raise DataError(
            "these rows have no labels at all: name the target column, or, where the teacher is "
            "all there is to learn from, the source's `classes: [...]` in the order of its answers"
        )
    labels = rows.labels[splits.train_labelled]  # hidden labels set no scale either
    if not len(labels):
        raise DataError(NO_UNITS)
    std = np.nanstd(labels, axis=0)
    return Regression(
        targets=rows.targets or tuple(f"target {i + 1}" for i in range(labels.shape[1])),
        mean=tuple(float(v) for v in np.nanmean(labels, axis=0)),
        std=tuple(float(v) if v > 0 else 1.0 for v in std),
    )


def _describe(task: AnyTask) -> dict[str, Any]:
    if isinstance(task, Classification | TokenClassification):
        return {"name": task.name, "classes": list(task.classes)}
    if isinstance(task, Embedding):
        return {"name": task.name, "dimension": task.dimension}
    if isinstance(task, LanguageModel):
        return {"name": task.name, "vocabulary": task.width}  # its stage says more
    return {
        "name": task.name,
        "targets": list(task.targets),
        "mean": list(task.mean),
        "std": list(task.std),
    }


def load(work: Work) -> Material:
    """Read the rows again and check that they are the ones that the stage saw."""
    folder = work.folder / "data"
    facts = read_json(folder / FACTS)
    rows = read_rows(work)
    if rows.fingerprint() != facts["content"]:
        raise DataError(
            f"the rows are not those that {folder} was made from (fingerprint "
            f"{rows.fingerprint()[:16]} instead of {facts['content'][:16]}): a file has changed "
            f"under the run; choose another folder with --out, or delete {folder}"
        )
    if is_language(work.recipe):
        return load_documents(work, rows)
    splits = Splits.load(folder / SPLITS)
    tokenizer = None if rows.texts is None else run_tokenizer(work)
    ready = laid(work.recipe.task.kind, rows, tokenizer)
    rows, labels = ready.rows, ready.visible(splits)
    every = ready.labels if ready.labels is not None else labels
    description = facts["preprocess"]

    def preprocess() -> nn.Module:
        if description["form"] == "text":
            return Tokens.from_description(description)
        return Preprocess.from_description(description)

    tokens = None
    if rows.texts is not None:
        tokens = TokenFacts.from_data(facts["tokens"])
    # Layers of the same row must have the same length in every batch and in the store.
    whole = any(build.reads_layers(e) for phase in work.recipe.phases for e in phase.objective)
    inputs = rows.inputs
    if not inputs.flags.writeable or not inputs.flags.c_contiguous:
        inputs = np.array(inputs)
    material = Material(
        rows=rows,
        splits=splits,
        task=task_from(facts["task"]),
        facts=facts["facts"],
        preprocess=preprocess,
        inputs=torch.from_numpy(inputs),
        labels=torch.from_numpy(labels),
        all_labels=torch.from_numpy(np.array(every)),
        ids=torch.from_numpy(np.array(rows.ids)),
        fingerprint=fingerprint(facts),
        tokens=tokens,
        pad=None if tokens is None or whole else tokens.pad,
        counted=None if ready.counted is None else torch.from_numpy(ready.counted),
        tokenizer=tokenizer,
    )
    return with_teaching(work, material)
