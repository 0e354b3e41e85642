"""Texts to an answer for each of their words, from an exported file. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.deployed.lengths import padded
from understudy.deployed.restoring import put_together, restores
from understudy.deployed.session import Deployed
from understudy.deployed.text_files import texts_in
from understudy.deployed.texts import tokenizer_of
from understudy.deployed.words import word_spans
from understudy.errors import DataError, ExportError

TASK = "token_classification"


def word_answers(texts: Sequence[str], deployed: Deployed) -> list[dict[str, Any]]:
    """Per text its `words`, each with `class` and `probability`, None for one without a token.

    Where the classes are case and punctuation, `text` is the text with both restored.

    Raises:
        DataError: the model is not asked per word, takes no texts, or one is empty.
        ExportError: the file names more or fewer classes than it answers with.
        MissingExtraError: tokenizers is not installed.

    Example:
        >>> deployed = Deployed.open("student.onnx")  # doctest: +SKIP
        >>> word_answers(["anna is in paris"], deployed)[0]["words"]  # doctest: +SKIP
    """
    if deployed.task != TASK:
        raise DataError(
            f"{deployed.path.name} answers once per row ({deployed.task}), not for every word: "
            "use `answers`"
        )
    bare = [at + 1 for at, text in enumerate(texts) if not text.strip()]
    if bare:
        raise DataError(
            f"every text must hold something to read, but {len(bare)} of {len(texts)} are empty "
            f"(the first is number {bare[0]}): leave them out"
        )
    if not texts:
        return []
    tokenizer, classes = tokenizer_of(deployed), deployed.classes or ()
    ids, places = tokenizer.words(texts)
    outputs = deployed.predict(padded(ids, pad=tokenizer.pad, length=tokenizer.length))
    if outputs.ndim != 3 or outputs.shape[2] != len(classes):
        raise ExportError(
            f"answers must be [rows, length, {len(classes)}], one number per class and token, but "
            f"{deployed.path.name} answered {list(outputs.shape)}: export it again"
        )
    found = []
    for text, firsts, answers in zip(texts, places, outputs, strict=True):
        words = [text[start:end] for start, end in word_spans(text)]
        logits = answers[np.maximum(firsts, 0)].astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        told = [
            _word(word, classes, share if first >= 0 else None)
            for word, first, share in zip(words, firsts, shares, strict=True)
        ]
        one: dict[str, Any] = {"words": told}
        if classes and restores(classes):
            one["text"] = put_together(words, [word["class"] for word in told])
        found.append(one)
    return found


def file_word_answers(
    files: Sequence[Path], deployed: Deployed
) -> tuple[list[dict[str, Any]], list[str]]:
    """The same for the texts in files, and a name for each.

    Raises:
        DataError: as of `word_answers`, or a file cannot be read.
    """
    texts, names = texts_in(files, deployed)
    return word_answers([row[0] for row in texts], deployed), names


def line(answer: Mapping[str, Any]) -> str:
    """One answer for people: the restored text, or every word with its class."""
    if "text" in answer:
        return str(answer["text"])
    return " ".join(f"{word['word']}/{word['class'] or '?'}" for word in answer["words"])


def _word(word: str, classes: Sequence[str], share: Any) -> dict[str, Any]:
    if share is None:
        return {"word": word, "class": None, "probability": None}
    best = int(share.argmax())
    return {"word": word, "class": classes[best], "probability": float(share[best])}
