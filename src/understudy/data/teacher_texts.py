"""Texts that a teacher has written, as rows: what a run writes first, and reads then."""

import json
from pathlib import Path

from understudy.data.documents import COMPLETION, PROMPT, from_documents
from understudy.data.rows import Rows
from understudy.data.texts import Asked, text_rows
from understudy.errors import DataError


def teacher_text(
    *,
    count: int,
    prompts: str | list[str] | None = None,
    max_tokens: int = 256,
    temperature: float | int | None = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
    seed: int = 0,
    ended: bool = False,
    file: str | None = None,
) -> Rows:
    """Rows of texts that the teacher of a run has written: documents, or prompts and completions.

    A run writes them before it reads them; in Python that is `teachers.writing.write_texts`.

    Args:
        count: how many texts; more may be in the file, and are left alone.
        prompts: what the teacher goes on from, round and round: a list, or a file with one per
            line. None: from nothing.
        max_tokens: the most tokens that it writes per text.
        temperature: of its drawing; None takes the likeliest tokens.
        top_k: draw from so many likeliest tokens.
        top_p: draw from the likeliest tokens of this mass.
        seed: of the draws.
        ended: whether texts that were cut at `max_tokens` are left out.
        file: the file of JSON lines, which other runs may share; None: in the run's folder.

    Raises:
        DataError: the file is absent or damaged, or holds fewer texts.
    """
    del max_tokens, temperature, top_k, top_p, seed  # what it was written with
    path = Path(file or "")
    if not path.is_file():
        raise DataError(
            f"the texts of a teacher must have been written, but there is no {file}: run a recipe "
            "of `task: {kind: language_model}`, or call `teachers.writing.write_texts`"
        )
    try:
        texts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [text for text in texts[:count] if text["ended"] or not ended]
        sides = [(str(text[PROMPT]), str(text[COMPLETION])) for text in kept]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no file of written texts ({error!r}): remove it, and have it written again"
        ) from error
    if len(texts) < count:
        raise DataError(f"{path} must hold {count} texts, but holds {len(texts)}: run again")
    sides = [(prompt, completion) for prompt, completion in sides if completion.strip()]
    if not sides:
        raise DataError(
            f"none of the {count} texts in {path} can be learned from: raise `max_tokens`, or "
            "leave `ended` out"
        )
    if prompts is None:
        return from_documents([completion for _, completion in sides])
    table = {PROMPT: [prompt for prompt, _ in sides], COMPLETION: [text for _, text in sides]}
    return text_rows(table, None, Asked(texts=(PROMPT, COMPLETION)))
