"""Stage `data` of a language model: documents are split, made tokens of, and packed into rows.

Documents are what is split, rows of tokens are what is trained on: each split is packed by itself,
so that no row holds tokens of two of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from understudy import build
from understudy.data.language_tokens import Coder
from understudy.data.packing import Packed, crossing, pack, stretches
from understudy.data.rows import Rows
from understudy.data.splits import Splits, split
from understudy.data.tokens import TokenFacts, Tokens
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError
from understudy.folders import file_checksum, fingerprint, read_json, write_atomic, write_json
from understudy.pipeline.work import FACTS, Material, Work, task_from
from understudy.recipe import Recipe

PACKED, CODER, TOKENIZER = "rows.safetensors", "coder.json", "tokenizer.json"
SPLITS = "splits.safetensors"
CONTEXT = 256
_PARTS = ("train", "validation", "test")


def write_documents(work: Work, rows: Rows, folder: Path) -> dict[str, Any]:
    """Split, train or read the tokenizer, pack; what the stage says.

    Raises:
        DataError: there are too few documents, or they hold nothing to predict.
    """
    options = work.recipe.data
    parts, dropped = divided(rows, work.recipe)
    section = options.tokenizer
    if section.file is None:
        work.progress.say(f"data: training a tokenizer of at most {section.size} tokens")
    # Of the training documents alone: a vocabulary that knows the test's is a leak.
    coder = build.coder(section, work.place, (text for row in parts["train"] for text in row))
    context = section.max_length or CONTEXT
    packed = {name: _packed(coder, texts, context) for name, texts in parts.items()}
    for name, some in packed.items():
        lost = crossing(some.labels, some.tokens, end=coder.end)
        if lost:  # what follows would be predicted from nothing, as another document
            raise DataError(
                f"the token that ends a text must not stand inside of one, but the {name} "
                f"documents hold it {lost} times: divide the source into documents there, or "
                "remove the mark from the texts"
            )
    splits = _places([len(packed[name]) for name in _PARTS], dropped)
    splits.save(folder / SPLITS)
    write_atomic(folder / TOKENIZER, coder.content)
    write_json(folder / CODER, {"end": coder.end, "begin": coder.begin})
    save_packed(packed, folder / PACKED)
    tokens = TokenFacts(
        vocabulary=coder.vocabulary,
        pad=coder.end,
        mask=coder.end,
        special=coder.special,
        length=context,
        fingerprint=fingerprint(coder.describe()),
    )
    counts = {name: len(packed[name]) for name in _PARTS}
    facts = {
        "content": rows.fingerprint(),
        "splits": file_checksum(folder / SPLITS),
        "rows": file_checksum(folder / PACKED),
        "preprocess": tokens.preprocess().describe(),
        "facts": {
            **tokens.preprocess().facts,
            "context": context,
            "begin": coder.begin,
            "end": coder.end,
            "width": coder.vocabulary,
            "each_token": True,
        },
        "task": {
            "name": "language_model",
            "vocabulary": coder.vocabulary,
            "end": coder.end,
            "special": list(coder.special),
        },
        "counts": counts | {"labelled": counts["train"]},
        "columns": [{"name": column.name, "categories": None} for column in rows.columns or ()],
        "tokens": tokens.to_data(),
        "documents": {name: len(texts) for name, texts in parts.items()},
        "counted": {name: packed[name].counted for name in _PARTS},
    }
    write_json(folder / FACTS, facts)
    notes = _notes(packed, rows, dropped)
    return {"counts": facts["counts"], "notes": notes, "fingerprint": fingerprint(facts)}


def divided(rows: Rows, recipe: Recipe) -> tuple[dict[str, list[tuple[str, ...]]], int]:
    """The documents of every split in order, and how many were left out as copies.

    One document alone is divided into contiguous parts, the test part last.

    Raises:
        DataError: rows are no texts, or are too few.
    """
    options = recipe.data
    if rows.texts is None:
        raise DataError(
            "a language model learns texts, but these rows are none: use `kind: documents` or "
            "`kind: completions` as `data.source`"
        )
    given = rows.test_rows if rows.test_rows is not None else np.zeros(len(rows), np.bool_)
    own = np.flatnonzero(~given)
    if len(own) == 1 and len(rows.texts[0]) == 1:
        return _stretched(rows, given, recipe), 0
    splits = split(
        replace(rows, labels=None, classes=None),
        seed=options.seed,
        test=options.test,
        validation=options.validation,
        rows_limit=options.rows,
        overlap=options.overlap,
    )
    texts = rows.texts
    found = {name: [texts[at] for at in getattr(splits, name)] for name in _PARTS}
    return found, splits.dropped


def _stretched(
    rows: Rows, given: NDArray[np.bool_], recipe: Recipe
) -> dict[str, list[tuple[str, ...]]]:
    options = recipe.data
    assert rows.texts is not None
    counts = {n: v for n, v in (("test", options.test), ("validation", options.validation))
              if isinstance(v, int)}  # fmt: skip
    if counts or options.rows is not None:
        name, value = next(iter(counts.items()), ("rows", options.rows))
        raise DataError(
            f"there is one document, which is divided into contiguous parts by shares, but got "
            f"`{name}: {value}`: give shares such as 0.1, or `divide` the source into documents"
        )
    judged = options.test
    if judged == "given":
        if not given.any():
            raise DataError("`test: given` needs a source with `test_path`, but it has none")
        shares: tuple[float, ...] = (1 - float(options.validation), float(options.validation))
    elif given.any():
        raise DataError(
            f"the source has test documents of its own, but `test: {judged}` would draw others: "
            "say `test: given`"
        )
    else:
        left = 1 - float(judged)
        held = float(options.validation) * left
        shares = (left - held, held, float(judged))
    text = rows.texts[int(np.flatnonzero(~given)[0])][0]
    parts: list[list[tuple[str, ...]]] = [[(part,)] for part in stretches(text, shares)]
    if judged == "given":
        parts.append([rows.texts[at] for at in np.flatnonzero(given)])
    return dict(zip(_PARTS, parts, strict=True))


def _packed(coder: Coder, texts: Sequence[tuple[str, ...]], context: int) -> Packed:
    if texts and len(texts[0]) == 2:
        sides = list(zip(*texts, strict=True))
        documents = coder.encode_pairs(list(sides[0]), list(sides[1]))
        return pack(documents, context=context, end=coder.end, whole=True)
    return pack(coder.encode([row[0] for row in texts]), context=context, end=coder.end)


def _places(counts: Sequence[int], dropped: int) -> Splits:
    """Rows lie split after split."""
    ends = np.cumsum(counts)
    train, validation, test = (
        np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)
    )
    labelled = np.ones(len(train), np.bool_)
    return Splits(train=train, validation=validation, test=test, labelled=labelled, dropped=dropped)


def _notes(packed: Mapping[str, Packed], rows: Rows, dropped: int) -> list[str]:
    notes = []
    cut = sum(some.cut for some in packed.values())
    if cut:
        length = packed["train"].tokens.shape[1]
        told = f"{cut} of {len(rows)} texts are longer than {length} tokens"
        notes.append(f"{told} and lose their end")
    if dropped:
        notes.append(
            f"{dropped} training documents were left out because the same ones are test documents"
        )
    return notes


def save_packed(packed: Mapping[str, Packed], path: Path) -> None:
    """The rows of all splits, one after the other."""
    arrays = {
        name: np.concatenate([getattr(packed[part], name) for part in _PARTS])
        for name in ("tokens", "labels", "bytes")
    }
    write_atomic(path, save(arrays))


def run_coder(work: Work) -> Coder:
    """The tokenizer of a run, as the stage wrote it down."""
    folder = work.folder / "data"
    told = read_json(folder / CODER)
    content = (folder / TOKENIZER).read_text(encoding="utf-8")
    return Coder(content, end=told["end"], begin=told["begin"])


def load_documents(work: Work, rows: Rows) -> Material:
    """The packed rows, as the stage wrote them.

    Raises:
        DataError: they are not what the stage wrote.
    """
    folder = work.folder / "data"
    facts = read_json(folder / FACTS)
    if file_checksum(folder / PACKED) != facts["rows"]:
        raise DataError(f"{folder / PACKED} is damaged: delete {folder}, and run again")
    arrays = load_file(folder / PACKED)
    inputs, labels = arrays["tokens"], torch.from_numpy(arrays["labels"].astype(np.int64))
    ids = np.arange(len(inputs))
    made = Rows(inputs=inputs, labels=arrays["labels"], ids=ids, form="text", columns=rows.columns)
    tokens = TokenFacts.from_data(facts["tokens"])
    description = facts["preprocess"]
    content = (folder / TOKENIZER).read_text(encoding="utf-8")
    return Material(
        rows=made,
        splits=Splits.load(folder / SPLITS),
        task=task_from(facts["task"]),
        facts=facts["facts"],
        preprocess=lambda: Tokens.from_description(description),
        inputs=torch.from_numpy(inputs),
        labels=labels,
        all_labels=labels,
        ids=torch.from_numpy(ids),
        fingerprint=fingerprint(facts),
        tokens=tokens,
        # Rows are full: what fills the last one up ends texts elsewhere.
        pad=None,
        counted=labels >= 0,
        tokenizer=Tokenizer(content, pad=tokens.pad, length=tokens.length),
        bytes=torch.from_numpy(arrays["bytes"].astype(np.int64)),
    )
