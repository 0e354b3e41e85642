"""Stage `texts`: what the teacher writes, where the rows are to be its own texts."""

from pathlib import Path
from typing import Any

import torch

from understudy import build
from understudy.build.commissions import KIND, commission
from understudy.build.hub_names import tokenizer_home
from understudy.data.language_tokens import Coder, read_coder
from understudy.errors import ModelError
from understudy.folders import file_checksum, fingerprint, read_json
from understudy.models.weights import load_into, read_weights
from understudy.pipeline.model_marks import model_marks
from understudy.pipeline.work import Work
from understudy.recipe import Entry
from understudy.teachers.writing import write_texts

FILE = "texts.jsonl"
# Rows of a language model are as long as this where nobody says how long.
CONTEXT = 256


def source_of(work: Work) -> Entry:
    """Where the rows come from, by a file that is there."""
    entry = work.recipe.data.source
    if entry.kind != KIND:
        return entry
    return Entry.model_validate({"kind": KIND, **entry.parameters, "file": str(_file(work))})


def texts_of(work: Work) -> str | None:
    """Let the teacher write its texts, where they are asked for; a mark of what they are.

    Raises:
        DataError: a file of other texts is in the way, or a prompt does not fit the teacher.
        ModelError: the teacher cannot be loaded.
    """
    entry = work.recipe.data.source
    if entry.kind != KIND:
        return None
    if entry.parameters.get("file") is not None:  # it goes on by itself, for several runs
        if work.crew.leads:
            _written(work, _file(work))
        work.crew.wait()
    else:
        teacher = work.recipe.teacher
        marks: dict[str, Any] = {
            "source": entry.model_dump(mode="json"),
            "prompts": fingerprint(list(commission(entry, work.place).prompts)),
            "teacher": teacher.model_dump(mode="json", include={"model", "weights"}),
            "weights": _weights_mark(work),
            "tokenizer": build.tokenizer_mark(work.recipe.data.tokenizer, work.place),
            "context": work.recipe.data.tokenizer.max_length,
        }
        work.stage("texts", marks, lambda folder: _written(work, folder / FILE))
    about = _file(work).with_name(f"{_file(work).name}.about.json")
    return fingerprint([read_json(about), entry.model_dump(mode="json")])


def _weights_mark(work: Work) -> dict[str, str]:
    """The checksums of what the teacher is loaded from."""
    section = work.recipe.teacher
    marks = model_marks(section.model, work.place)
    if section.weights is not None:
        marks["weights"] = file_checksum(work.place.resolve(section.weights))
    return marks


def _written(work: Work, path: Path) -> dict[str, Any]:
    entry, section = work.recipe.data.source, work.recipe.data.tokenizer
    coder = read_coder(tokenizer_home(section, work.place))
    asked = commission(entry, work.place)
    write_texts(_teacher(work, coder), coder, asked, path, progress=work.progress)
    return {"texts": asked.count, "about": read_json(path.with_name(f"{path.name}.about.json"))}


def _teacher(work: Work, coder: Coder) -> torch.nn.Module:
    section = work.recipe.teacher
    if section.model is None:
        raise ModelError("texts are written by a teacher that is one PyTorch `model`")
    facts = {
        "vocabulary": coder.vocabulary,
        "context": work.recipe.data.tokenizer.max_length or CONTEXT,
        "begin": coder.begin,
        "end": coder.end,
    }
    known = {name: value for name, value in facts.items() if value is not None}
    network = build.network(section.model, known, work.place, where="the teacher's model")()
    if section.weights is not None:
        path = work.place.resolve(section.weights)
        load_into(network, read_weights(path), source=str(path))
    return network.eval()


def _file(work: Work) -> Path:
    given = work.recipe.data.source.parameters.get("file")
    return work.folder / "texts" / FILE if given is None else work.place.resolve(given)
