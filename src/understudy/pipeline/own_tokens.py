"""Rows of texts as a pretrained teacher reads them: in the tokens that it was trained with.

Student and teacher may have tokenizers of their own. The texts are the same, so an answer belongs
to a row whatever its tokens are, and labels are stored by the row's id.
"""

from dataclasses import replace
from pathlib import Path

import torch

from understudy import build
from understudy.data.rows import Rows
from understudy.data.texts import tokenized
from understudy.data.tokens import TokenFacts, Tokens
from understudy.deployed.texts import Tokenizer, same_tokens
from understudy.errors import DataError, ModelError
from understudy.pipeline.own_classifier import reads_alone
from understudy.pipeline.shared_words import by_words
from understudy.pipeline.work import Material, Work
from understudy.recipe import Entry, Source
from understudy.tasks import Embedding
from understudy.teachers.hf_classifier import classifier_home
from understudy.teachers.hf_encoder import positions_in, there
from understudy.teachers.sentence_encoder import transformer_folder
from understudy.teachers.sentence_model import known_ids, own_tokenizer, sentence_width

KIND = "sentence_encoder"


def encoder_folder(entry: Entry | None, place: Source) -> str | None:
    """The folder, or the name on the hub, of a teacher that is a sentence encoder; else None."""
    if entry is None or entry.kind != KIND:
        return None
    return build.folder(str(entry.parameters["folder"]), place)


def told_width(work: Work) -> int | None:
    """How wide the vectors of a teacher of vectors are; None where nothing says so.

    Raises:
        ModelError: there is no such teacher.
    """
    folder = encoder_folder(work.recipe.teacher.model, work.place)
    return None if work.recipe.task.has_labels or folder is None else sentence_width(folder)


def embedding_task(work: Work, rows: Rows) -> Embedding:
    """The task of vectors, as wide as the recipe says, or as the teacher's are.

    Raises:
        DataError: the rows are no single texts, have labels, or nothing says how wide vectors are.
        ModelError: there is no such teacher.
    """
    if rows.texts is None or len(rows.columns or ()) != 1:
        what = "images or tables" if rows.texts is None else "pairs of texts"
        raise DataError(
            f"`task: {{kind: embedding}}` is for single texts, but these rows are {what}: name one "
            "column of texts"
        )
    if rows.labels is not None:
        raise DataError(
            "vectors are learned from texts alone, but these rows have labels: remove `target` "
            "from `data.source`; labelled texts are for `evaluate.probes`"
        )
    told, own = work.recipe.task.dimension, told_width(work)
    folder = encoder_folder(work.recipe.teacher.model, work.place)
    if told is None and own is None:
        raise DataError(
            f"how wide vectors are is read off a teacher of `kind: {KIND}`; for any other say "
            "`task.dimension`"
        )
    if told is not None and own is not None and told > own:
        raise DataError(
            f"`dimension <= {own}` must hold for this teacher, but got {told}: a student cannot "
            "have more numbers than its teacher"
        )
    if folder is not None:
        _check_ids(folder)
    return Embedding(dimension=int(told or own or 0))


def _check_ids(folder: str) -> None:
    """Refuse a tokenizer that goes beyond its model, before anything is built on it."""
    ids, known = own_tokenizer(folder).vocabulary, known_ids(folder)
    if known is not None and ids > known:
        raise ModelError(
            f"tokenizer and model must belong together, but the tokenizer in {folder} has {ids} "
            f"ids and the model has vectors for {known}: copy the folder again, or name another"
        )


def with_teaching(work: Work, material: Material) -> Material:
    """The material, and beside it the same rows as the teacher reads them, where that differs.

    Raises:
        DataError: a student that is made of its teacher, or random views, need its tokens.
        ModelError: the teacher has no tokenizer.
    """
    found = None if material.tokenizer is None else _reads(work)
    if found is None or material.tokenizer is None:
        return material
    folder, own, home = found
    if same_tokens(own, material.tokenizer):
        return material
    _check_tokens(work, folder)
    own = _within(own, home, work)
    rows = tokenized(material.rows, own)
    facts = TokenFacts.of(own)
    ready: Tokens = facts.preprocess()
    described = ready.describe()
    teaching = replace(
        material,
        rows=rows,
        inputs=torch.from_numpy(rows.inputs),
        facts=dict(ready.facts) | {"width": material.task.width},
        preprocess=lambda: Tokens.from_description(described),
        tokens=facts,
        pad=None if material.pad is None else facts.pad,
        tokenizer=own,
    )
    return replace(material, teaching=teaching)


def _reads(work: Work) -> tuple[str, Tokenizer, Path] | None:
    """A teacher's folder as the recipe names it, its tokenizer, and where its configuration is."""
    folder = encoder_folder(work.recipe.teacher.model, work.place)
    if folder is not None:
        return folder, own_tokenizer(folder), transformer_folder(there(folder))
    found = reads_alone(work)
    return None if found is None else (*found, classifier_home(found[0]))


def _within(own: Tokenizer, home: Path, work: Work) -> Tokenizer:
    """The tokenizer, cutting texts where the model ends or where the recipe cuts them."""
    limit = positions_in(home, own.pad)
    told = work.recipe.data.tokenizer.max_length
    # A text that is cut for the student is not told whole by its teacher.
    most = min(bound for bound in (own.length, limit, told) if bound is not None)
    return own if most == own.length else Tokenizer(own.content, pad=own.pad, length=most)


def _check_tokens(work: Work, folder: str) -> None:
    recipe = work.recipe
    remedy = f"set `data.tokenizer: {recipe.teacher.model.parameters['folder']}`"  # type: ignore[union-attr]
    made_of_it = recipe.student.token_vectors or recipe.student.reused_head
    if recipe.student.inherits or made_of_it is not None:
        raise DataError(
            "a student that is made of its teacher's parts reads its tokens, but this run's "
            f"tokenizer is not the one in {folder}: {remedy}"
        )
    if recipe.data.views or recipe.labels.use == "live" or recipe.transfer is not None:
        what = "random `data.views` change" if recipe.data.views else "`labels.use: live` hands on"
        if recipe.transfer is not None:
            what = "`transfer` asks for features of"
        raise DataError(
            f"{what} the student's tokens, which this teacher cannot read, as its tokenizer is "
            f"the one in {folder}: remove it, or {remedy}"
        )
    reading = [e for phase in recipe.phases for e in phase.objective if build.reads_layers(e)]
    if not all(by_words(entry) for entry in reading):
        raise ModelError(
            "layers are compared token by token, but student and teacher have tokenizers of their "
            "own: compare them word by word (`adapter: {kind: words}`), compare vectors only, or "
            f"{remedy}"
        )
