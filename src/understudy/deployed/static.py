"""A static sentence encoder at work: a vector per token, added up, with NumPy alone.

It reads what `export.static_encoder` writes. The table of vectors is mapped, not read, so that
opening a folder costs little more than reading its vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.deployed.static_tokens import WordPieces
from understudy.errors import DataError, ModelError

INT8 = "static.int8.safetensors"
_TYPES = {"F32": np.float32, "I8": np.int8}


class StaticModel:
    """Token vectors and a tokenizer; a text's vector is the sum of its tokens', of length 1.

    Attributes:
        pieces: the tokenizer.
        width: how many numbers a vector has.
        normalize: whether vectors have length 1; if not, a vector is its tokens' mean.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32] | NDArray[np.int8],
        pieces: WordPieces,
        *,
        scales: NDArray[np.float32] | None = None,
        normalize: bool = True,
    ) -> None:
        """Join the parts; `StaticModel.open` reads a folder.

        Args:
            vectors: `[vocabulary, width]`, each times its token's weight; int8 with `scales`.
            pieces: what makes tokens of texts.
            scales: `[vocabulary]`, what a row of int8 is multiplied with.
            normalize: whether vectors are brought to length 1.

        Raises:
            ModelError: the tokenizer has ids that no vector belongs to, or there is not one scale
                per row of int8 and none otherwise.
        """
        if pieces.size > len(vectors):
            raise ModelError(
                "a static encoder must have a vector for every token, but its tokenizer goes up to "
                f"id {pieces.size - 1} and there are {len(vectors)} vectors: the two files do not "
                "belong together"
            )
        if (scales is None) != (vectors.dtype != np.int8) or (
            scales is not None and len(scales) != len(vectors)
        ):
            raise ModelError(
                "vectors of int8 must come with one scale per row, and others with none, but got "
                f"{vectors.dtype} {vectors.shape} and "
                f"{'no scales' if scales is None else scales.shape}: save the encoder again"
            )
        self._vectors, self._scales = vectors, scales
        self.pieces, self.normalize = pieces, normalize
        self.width = int(vectors.shape[1])

    @classmethod
    def open(cls, folder: str | Path) -> "StaticModel":
        """Open a folder that `save_static` or `save_static_int8` wrote.

        Folders of sentence-transformers are read as well, where they are a StaticEmbedding and
        perhaps a Normalize.

        Raises:
            ModelError: the folder or a file in it is missing, damaged or of another kind.

        Example:
            >>> model = StaticModel.open("static/")  # doctest: +SKIP
            >>> model.embed(["A man eats."]).shape  # doctest: +SKIP
            (1, 256)
        """
        home = Path(folder)
        if (home / INT8).is_file():
            tensors, notes = _tensors(home / INT8)
            normalize = notes.get("normalize") == "true"
            vectors, scales = _named(tensors, "vectors", home), _named(tensors, "scales", home)
        else:
            home, normalize = _part(home)
            tensors, _ = _tensors(home / "model.safetensors")
            vectors, scales = _named(tensors, "embedding.weight", home), None
        pieces = WordPieces.read(_json(home / "tokenizer.json"))
        return cls(vectors, pieces, scales=scales, normalize=normalize)

    def embed(
        self, texts: Sequence[str], *, width: int | None = None, batch: int = 64
    ) -> NDArray[np.float32]:
        """One vector per text, float32 `[texts, width]`; zeros for a text without any token.

        Args:
            texts: of any length; nothing is cut off.
            width: how many of the first numbers of a vector are kept, for an encoder that was
                trained so that these are a vector by themselves (Matryoshka).
            batch: texts that are looked up together, which bounds the memory that is used.

        Raises:
            DataError: something is no text, or `width` or `batch` is out of range.
        """
        if width is not None and not 1 <= width <= self.width:
            raise DataError(
                f"`1 <= width <= {self.width}` must hold for this encoder, but got {width=}"
            )
        if batch < 1:
            raise DataError(f"`batch >= 1` must hold, but got {batch=}")
        parts = [
            self._some(texts[at : at + batch], width or self.width)
            for at in range(0, len(texts), batch)
        ]
        if not parts:
            return np.zeros((0, width or self.width), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _some(self, texts: Sequence[str], width: int) -> NDArray[np.float32]:
        ids, counts = self.pieces.flat(texts)
        rows = self._vectors.take(ids, axis=0)[:, :width]
        if self._scales is None:
            found = _sums(rows, counts)
        else:
            found = _sums(rows * self._scales.take(ids)[:, None], counts)
        sizes = np.sqrt(np.einsum("ij,ij->i", found, found)) if self.normalize else counts
        found /= np.maximum(sizes, 1e-12)[:, None]
        return found


def _sums(rows: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The sum of the rows of every text, zeros for a text without any."""
    if len(counts) == 1:
        return np.add.reduce(rows, axis=0, keepdims=True)
    found = np.zeros((len(counts), rows.shape[1]), np.float32)
    some = np.flatnonzero(counts)
    if len(some):
        starts = np.cumsum(counts) - counts
        found[some] = np.add.reduceat(rows, starts[some], axis=0)
    return found


def _part(home: Path) -> tuple[Path, bool]:
    """Where the token vectors lie, and whether what they add up to is brought to length 1."""
    listed = _json(home / "modules.json")
    try:
        kinds = [str(part["type"]).rpartition(".")[2] for part in listed]
        places = [str(part["path"]) for part in listed]
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{home / 'modules.json'} must list parts with `type` and `path`, but does not: save "
            "the encoder again"
        ) from error
    if kinds not in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]):
        raise ModelError(
            "a static encoder must be a StaticEmbedding and perhaps a Normalize, but "
            f"{home} has {', '.join(kinds) or 'nothing'}: a transformer is read by "
            "`load_sentence_encoder`"
        )
    if ".." in Path(places[0]).parts or Path(places[0]).is_absolute():
        raise ModelError(
            f"parts of an encoder must lie in its folder {home}, but one is at {places[0]}: "
            "correct modules.json"
        )
    return home / places[0], len(kinds) == 2


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): save the encoder again") from error


def _tensors(path: Path) -> tuple[dict[str, NDArray[Any]], Mapping[str, str]]:
    """The tensors of a safetensors file, mapped into memory, and what is noted beside them."""
    try:
        whole = np.memmap(path, np.uint8, mode="r")
        start = 8 + int(whole[:8].view("<u8")[0])
        header = json.loads(whole[8:start].tobytes())
        notes = header.pop("__metadata__", {})
        return {name: _tensor(whole[start:], told) for name, told in header.items()}, notes
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors of float32 or int8 ({error!r}): save the "
            "encoder again"
        ) from error


def _tensor(data: NDArray[np.uint8], told: Mapping[str, Any]) -> NDArray[Any]:
    low, high = told["data_offsets"]
    flat = data[low:high].view(np.dtype(_TYPES[told["dtype"]]).newbyteorder("<"))
    # A plain array over the same mapped bytes: rows of a memmap are slower to pick.
    return np.asarray(flat).reshape(told["shape"])


def _named(tensors: Mapping[str, NDArray[Any]], name: str, home: Path) -> NDArray[Any]:
    wanted = 1 if name == "scales" else 2
    if name not in tensors or tensors[name].ndim != wanted:
        held = ", ".join(f"{n} {list(t.shape)}" for n, t in tensors.items()) or "nothing"
        raise ModelError(
            f"a static encoder must hold `{name}` with {wanted} axes, but {home} has {held}: save "
            "the encoder again"
        )
    return tensors[name]
