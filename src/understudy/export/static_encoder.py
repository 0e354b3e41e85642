"""A static sentence encoder as a folder: of sentence-transformers, or a quarter of its size.

Both are read by `deployed.static.StaticModel` with NumPy alone. The ONNX file of the same encoder
is made by `export_onnx` with `free_length=True`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors.numpy import save

from understudy.deployed.static import INT8
from understudy.deployed.static_tokens import WordPieces
from understudy.errors import ExportError
from understudy.folders import make_folder, write_atomic, write_json

_KINDS = ("StaticEmbedding", "Normalize")


def save_static(
    vectors: Float32[np.ndarray, " vocabulary width"],
    tokenizer: Mapping[str, Any],
    folder: Path,
    *,
    normalize: bool = True,
) -> Path:
    """Write a folder that sentence-transformers and `StaticModel.open` read.

    Args:
        vectors: a vector per token id, each times its token's weight.
        tokenizer: the content of the `tokenizer.json` that gave the ids. What it says of
            truncation and padding is left out: a text of any length is encoded whole.
        folder: made where it is not there.
        normalize: whether vectors of texts are brought to length 1.

    Returns:
        The folder.

    Raises:
        ExportError: vectors and tokenizer do not belong together, or a number is not finite.
        ModelError: the tokenizer cannot be read without its library.
        RunError: the folder cannot be written.

    Example:
        >>> save_static(encoder.folded(), tokenizer, Path("static"))  # doctest: +SKIP
    """
    _check(vectors, tokenizer)
    make_folder(folder / "0_StaticEmbedding")
    tensors = save({"embedding.weight": np.ascontiguousarray(vectors)}, {"format": "pt"})
    write_atomic(folder / "0_StaticEmbedding" / "model.safetensors", tensors)
    _write_tokenizer(tokenizer, folder / "0_StaticEmbedding")
    kinds = _KINDS if normalize else _KINDS[:1]
    for number, kind in enumerate(kinds):
        make_folder(folder / f"{number}_{kind}")
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    return folder


def save_static_int8(
    vectors: Float32[np.ndarray, " vocabulary width"],
    tokenizer: Mapping[str, Any],
    folder: Path,
    *,
    normalize: bool = True,
) -> Path:
    """As `save_static`, in bytes with a scale per token; only `StaticModel.open` reads it.

    Raises:
        ExportError: vectors and tokenizer do not belong together, or a number is not finite.
        ModelError: the tokenizer cannot be read without its library.
        RunError: the folder cannot be written.
    """
    _check(vectors, tokenizer)
    make_folder(folder)
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
    # A row of zeros is divided by one, and stays what it is.
    rows = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    noted = {"normalize": json.dumps(normalize)}
    write_atomic(folder / INT8, save({"vectors": rows, "scales": scales}, noted))
    _write_tokenizer(tokenizer, folder)
    return folder


def _write_tokenizer(tokenizer: Mapping[str, Any], folder: Path) -> None:
    content = {**tokenizer, "truncation": None, "padding": None}
    write_atomic(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False))


def _check(vectors: np.ndarray, tokenizer: Mapping[str, Any]) -> None:
    size = WordPieces.read(tokenizer).size
    if size > len(vectors):
        raise ExportError(
            "a static encoder must have a vector for every token, but its tokenizer goes up to id "
            f"{size - 1} and there are {len(vectors)} vectors: give the tokenizer that it was "
            "trained with"
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise ExportError(
            f"token vectors must be finite, but {len(wrong)} are not (token {wrong[0]} first): "
            "lower the learning rate"
        )
