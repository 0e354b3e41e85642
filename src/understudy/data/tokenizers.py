"""Tokenizers: read from a file or a folder of Hugging Face, or trained on texts."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError, MissingExtraError

Trained = Literal["wordpiece", "bpe"]

# Where nothing else says how long a row may be.
USUAL_LENGTH = 512
_PAD, _UNK, _MASK, _SEP = "[PAD]", "[UNK]", "[MASK]", "[SEP]"
_SPECIAL = (_PAD, _UNK, _SEP, _MASK)
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>")
_FILE = "tokenizer.json"
# Libraries write such a number where there is no bound.
_NO_BOUND = 100_000


def read_tokenizer(path: Path, *, length: int | None = None) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, or of the folder of a Hugging Face model.

    Args:
        path: the file, or the folder that holds it.
        length: the most tokens of a row; without it what the folder says, else 512.

    Raises:
        DataError: there is none, it is damaged, or nothing says how rows are filled up.
        MissingExtraError: tokenizers is not installed.
    """
    file = path / _FILE if path.is_dir() else path
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"a tokenizer must be a `{_FILE}`, but there is no {file}: correct the path, or make "
            f"it with `AutoTokenizer.from_pretrained(...).save_pretrained({str(file.parent)!r})`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a tokenizer ({error}): copy it again") from error
    if not isinstance(told, dict) or not isinstance(told.get("model"), dict):
        raise DataError(
            f"{file} must define a tokenizer of the library `tokenizers`, but has no `model`: name "
            f"a `{_FILE}`"
        )
    about = {
        name: _json(file.parent / name)
        for name in ("tokenizer_config.json", "sentence_bert_config.json", "config.json")
    }
    pad = _pad(told, about, file)
    # It goes into every exported file, and most files are written for people to read.
    content = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return Tokenizer(content, pad=pad, length=_bound(about) if length is None else length)


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Trained = "wordpiece",
    size: int = 8000,
    lower: bool = True,
    length: int | None = None,
) -> Tokenizer:
    """A tokenizer of its own for these texts; equal texts in equal order give equal ones.

    Args:
        texts: to learn from.
        kind: `wordpiece` splits at spaces and punctuation first, `bpe` knows every byte and has
            no unknown token.
        size: the most tokens.
        lower: whether texts are put in lower case, and accents taken away (`wordpiece` only).
        length: the most tokens of a row; without it 512.

    Raises:
        DataError: nothing can be learned from the texts, or `size` has no room.
        MissingExtraError: tokenizers is not installed.

    Example:
        >>> tokenizer = train_tokenizer(["a fine film", "a dull film"], size=60)
        >>> tokenizer(["a film"]).shape
        (1, 8)
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text") from error
    least = 300 if kind == "bpe" else 32
    if size < least:
        raise DataError(f"`size >= {least}` must hold for kind `{kind}`, but got {size}")
    known = list(texts)
    tokenizer, trainer = _fresh(tokenizers, kind, size, known, lower=lower)
    tokenizer.train_from_iterator(known, trainer=trainer)
    separator = tokenizer.token_to_id(_SEP)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A", pair=f"$A {_SEP} $B:1", special_tokens=[(_SEP, separator)]
    )
    if tokenizer.get_vocab_size() <= len(_SPECIAL):
        raise DataError("a tokenizer must have texts to learn from, but these hold no characters")
    pad = tokenizer.token_to_id(_PAD)
    return Tokenizer(
        _plain(tokenizer.to_str()), pad=pad, length=USUAL_LENGTH if length is None else length
    )


def _fresh(
    library: Any, kind: Trained, size: int, texts: Sequence[str], *, lower: bool
) -> tuple[Any, Any]:
    if kind == "wordpiece":
        tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=_UNK))
        tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lower)
        tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        letters = _alphabet(map(tokenizer.normalizer.normalize_str, texts), (size - 4) // 4)
        # The library numbers letters inside words in no fixed order, and ties between pieces go by
        # these numbers: named here, equal texts give equal tokenizers.
        trainer = library.trainers.WordPieceTrainer(
            vocab_size=size,
            special_tokens=[*_SPECIAL, *(f"##{letter}" for letter in letters)],
            initial_alphabet=letters,
            limit_alphabet=len(letters),
            min_frequency=2,
            show_progress=False,
        )
        return tokenizer, trainer
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.NFC()
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIAL),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    return tokenizer, trainer


def _alphabet(texts: Iterable[str], most: int) -> list[str]:
    """The most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return sorted([letter for letter in kept if not letter.isspace()][:most])


def _plain(content: str) -> str:
    """A definition in which letters inside words are ordinary tokens."""
    told = json.loads(content)
    told["added_tokens"] = [t for t in told["added_tokens"] if t["content"] in _SPECIAL]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pad(told: Mapping[str, Any], about: Mapping[str, Mapping[str, Any]], file: Path) -> int:
    known = {token["content"]: token["id"] for token in told.get("added_tokens") or ()}
    vocabulary = told["model"].get("vocab")
    if isinstance(vocabulary, dict):
        known |= vocabulary
    named = about["tokenizer_config.json"].get("pad_token")
    text = named.get("content") if isinstance(named, Mapping) else named
    own = (told.get("padding") or {}).get("pad_token")
    for name in (text, own, *_PADS):
        if name in known:
            return int(known[name])
    configured = about["config.json"].get("pad_token_id")
    if isinstance(configured, int) and configured >= 0:
        return configured
    raise DataError(
        f"a tokenizer must say how rows are filled up, but {file} has no token for padding, and "
        "nothing beside it names one: write `pad_token` into `tokenizer_config.json`"
    )


def _bound(about: Mapping[str, Mapping[str, Any]]) -> int:
    for file, name in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        found = about[file].get(name)
        if isinstance(found, int | float) and 0 < found < _NO_BOUND:
            return int(found)
    return USUAL_LENGTH
