"""SentencePiece's pieces and scores as a `tokenizer.json`, for models that come with no other.

Llama-type models in plain form list their pieces, `[{"piece": " the", "score": -6.0}, ...]`: first
`<unk>`, `<s>` and `</s>`, then all bytes, then what was learned. A pair of pieces is joined if the
whole is a piece, the one of the highest score first.
"""

import json
import re
from typing import Any, Final

from understudy.errors import DataError

FILE: Final = "vocabulary.json"
_SPACE: Final = "\u2581"
_SPECIAL: Final = ("<unk>", "<s>", "</s>")
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")


def pieces_definition(text: str) -> str:
    """The definition of a tokenizer, the JSON text of a `tokenizer.json`.

    Text comes back as it was, letters that no piece has through their bytes; `<s>` begins it.

    Args:
        text: the JSON text of a list of pieces, each with its `piece` and `score`.

    Raises:
        DataError: it is no such list.

    Example:
        >>> letters = [{"piece": p, "score": -n} for n, p in enumerate([" ", "a", "b", "ab"])]
        >>> special = [{"piece": p, "score": 0} for p in ("<unk>", "<s>", "</s>")]
        >>> sorted(json.loads(pieces_definition(json.dumps(special + letters))))[:2]
        ['added_tokens', 'decoder']
    """
    try:
        listed = [(str(one["piece"]), float(one["score"])) for one in json.loads(text)]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"`{FILE}` must list pieces, each with `piece` and `score`, but it does not ({error}): "
            "copy it again, or give a `tokenizer.json`"
        ) from error
    names = [_name(piece) for piece, _ in listed]
    if tuple(names[:3]) != _SPECIAL or len(set(names)) != len(names):
        raise DataError(
            f"pieces must begin with {', '.join(_SPECIAL)} and be different, but got "
            f"{', '.join(names[:3])} and {len(names) - len(set(names))} repeated: give a "
            "`tokenizer.json`"
        )
    vocabulary = {name: at for at, name in enumerate(names)}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": _SPECIAL[0],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": _merges({name: score for name, (_, score) in zip(names, listed, strict=True)}),
    }
    return json.dumps({**_AROUND, "model": model}, ensure_ascii=False, separators=(",", ":"))


def _name(piece: str) -> str:
    """As the library names it: special ones are written into some lists with line ends around."""
    bare = piece.strip("\n")
    return bare if bare in _SPECIAL else piece.replace(" ", _SPACE)


def _merges(scores: dict[str, float]) -> list[list[str]]:
    """Pairs of pieces that join to a piece, best first; where they tie, as they are listed."""
    learned = {n: s for n, s in scores.items() if n not in _SPECIAL and not _BYTE.fullmatch(n)}
    found = [
        (score, [name[:at], name[at:]])
        for name, score in learned.items()
        for at in range(1, len(name))
        if name[:at] in scores and name[at:] in scores
    ]
    return [pair for _, pair in sorted(found, key=lambda one: -one[0])]


def _token(at: int, content: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": at, "content": content, **plain, "special": True}


_AROUND: Final[dict[str, Any]] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [_token(at, name) for at, name in enumerate(_SPECIAL)],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": _SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        ],
    },
    "pre_tokenizer": None,
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<s>", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    },
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    },
}
