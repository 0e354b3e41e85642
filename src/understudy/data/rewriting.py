"""Sentences in lower case without punctuation, and as they were written: prompts and completions.

Nobody has to write the answers: the text itself is the answer. A causal model learns to rewrite it.
"""

import re
from collections.abc import Iterator

from understudy.data.documents import COMPLETION, PROMPT, named_texts
from understudy.data.restoring import joined, paragraph
from understudy.data.rows import Rows
from understudy.data.text_files import decoded
from understudy.data.texts import Asked, text_rows
from understudy.errors import DataError

UNKNOWN = "<unk>"
# Where tokenised collections leave spaces that no text has.
_BEFORE = re.compile(r"\s+([,.;:!?%)\]])")
_BEHIND = re.compile(r"([(\[$£])\s+")
_QUOTED = re.compile(r'"\s+([^"]*?)\s+"')
_DASHED = re.compile(r"(?<=\d) – (?=\d)")
# A mark that ends a sentence, its closing quote, and a capital behind it.
_END = re.compile(r'(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b[A-Z][a-z]\.)\s+(?=["(]?[A-Z0-9])')


def rewriting(
    *,
    path: str,
    test_path: str | None = None,
    words: int = 32,
    least: int = 3,
    separator: str = " -> ",
    encoding: str = "utf-8",
) -> Rows:
    """Rows for rewriting: a sentence in lower case without punctuation, and the sentence itself.

    Sentences with `<unk>` are left out, since nobody knows how they were written, and so are
    headings. The quirks of tokenised collections (WikiText) are taken back in both.

    Args:
        path: a file of plain text with a paragraph a line, a folder of them, or a pattern.
        test_path: the source's own test text, in any of these forms.
        words: the most words of a sentence.
        least: the fewest words of a sentence.
        separator: what stands behind the prompt, so that a model sees where its own part begins.
        encoding: of the files.

    Raises:
        DataError: a file is absent or in another encoding, a number is too small, or there is no
            such sentence.
    """
    if not 1 <= least <= words:
        raise DataError(f"`1 <= least <= words` must hold, but got {least=}, {words=}")

    def read(place: str, option: str) -> dict[str, list[str]]:
        found = [
            pair
            for file in named_texts(place, option)
            for pair in pairs(decoded(file, encoding), words=words, least=least)
        ]
        if not found:
            raise DataError(
                f"{place} must hold sentences of {least} to {words} words, but holds none: give a "
                "text with capitals and punctuation, or a larger `words`"
            )
        return {
            PROMPT: [prompt + separator for prompt, _ in found],
            COMPLETION: [completion for _, completion in found],
        }

    test = None if test_path is None else read(test_path, "test_path")
    return text_rows(read(path, "path"), test, Asked(texts=(PROMPT, COMPLETION)))


def pairs(text: str, *, words: int, least: int) -> Iterator[tuple[str, str]]:
    """The sentences of a text, a paragraph a line: without case and marks, and as written.

    Example:
        >>> list(pairs('In May , the " Old Man " was 40 @-@ odd .', words=9, least=3))
        [('in may the old man was 40-odd', 'In May, the "Old Man" was 40-odd.')]
    """
    for line in text.split("\n"):
        for sentence in sentences(line):
            bare = [word for word, _, _ in paragraph(sentence)]
            if least <= len(bare) <= words and UNKNOWN not in sentence:
                yield " ".join(bare), sentence


def sentences(line: str) -> list[str]:
    """The sentences of a paragraph, with spaces where a text has them."""
    text = _DASHED.sub("–", joined(line)).strip()
    text = _QUOTED.sub(r'"\1"', text)
    text = _BEHIND.sub(r"\1", _BEFORE.sub(r"\1", text))
    return [part for part in _END.split(" ".join(text.split())) if part]
