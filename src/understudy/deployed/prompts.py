"""Texts to the tokens that a decoder goes on from, and its tokens to text as they come.

The library `tokenizers` alone, no torch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from understudy.deployed.definitions import defined
from understudy.deployed.texts import refuse_surrogates
from understudy.errors import DataError

# What a decoder of bytes gives for a character of which a part is still to come.
_TORN = "\ufffd"


class PromptCoder:
    """Prompts to tokens, and tokens to text.

    Attributes:
        begin: the token that every prompt begins with; None where there is none.
    """

    def __init__(self, content: str, *, begin: int | None) -> None:
        """Read a definition.

        Args:
            content: the JSON text of a `tokenizer.json`.
            begin: the token that every prompt begins with; None where there is none.

        Raises:
            DataError: the text is no tokenizer.
            MissingExtraError: tokenizers is not installed.
        """
        self._tokenizer = defined(content)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.begin = begin

    @staticmethod
    def of(metadata: Mapping[str, Any], *, name: str) -> "PromptCoder":
        """That of a file's metadata.

        Raises:
            DataError: the file has none.
            MissingExtraError: tokenizers is not installed.
        """
        told = metadata.get("tokenizer")
        if not isinstance(told, Mapping) or "content" not in told:
            raise DataError(
                f"{name} has no tokenizer, so it cannot be given a text: export it with "
                "`export_decoder(..., tokenizer=...)`, or give it tokens with `Decoder.tokens`"
            )
        begin = told.get("begin")
        return PromptCoder(str(told["content"]), begin=None if begin is None else int(begin))

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt.

        Raises:
            DataError: nothing is left of it, or it holds half a character.
        """
        refuse_surrogates([prompt], "prompt")
        ids = list(self._tokenizer.encode(prompt, add_special_tokens=False).ids)
        found = ids if self.begin is None else [self.begin, *ids]
        if not found:
            raise DataError(
                f"a prompt must have a token to go on from, but {prompt!r} has none: begin the text"
            )
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, without those that stand for none."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def stream(self, prompt: Sequence[int], tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens that come one by one, piece by piece; whole characters only.

        Args:
            prompt: what came before them, since spaces depend on it.
            tokens: the new ones.
        """
        # Only the last piece is decoded again, however long the text becomes: whole, as it began
        # with a character.
        held, shown = list(prompt), len(prompt)
        for token in tokens:
            held.append(token)
            before, now = self.decode(held[:shown]), self.decode(held)
            if len(now) > len(before) and not now.endswith(_TORN):
                yield now[len(before) :]
                held = held[shown:]
                shown = len(held)
        rest = self.decode(held)[len(self.decode(held[:shown])) :]
        if rest:
            yield rest
