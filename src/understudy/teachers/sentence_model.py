"""A sentence encoder's folder as one network: the teacher of a run, or what a student is cut from.

It gives what sentence-transformers gives for the folder. Asked for fewer numbers than it has, it
answers on its principal axes, longest first, so that prefixes of a vector mean something too.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from understudy.data.tokenizers import read_tokenizer
from understudy.deployed.texts import Tokenizer
from understudy.errors import DataError, ModelError
from understudy.losses.rows import unit
from understudy.teachers.hf_encoder import check_belongs, there
from understudy.teachers.sentence_encoder import (
    SentenceEncoder,
    load_sentence_encoder,
    transformer_folder,
)
from understudy.teachers.sentence_tokenizer import read_file


class SentenceModel(nn.Module):
    """Token ids `[batch, longest]` to vectors `[batch, width]` of length 1.

    Args:
        folder: of sentence-transformers, or its name on the Hugging Face hub.
        vocabulary: how many ids the tokenizer has.
        pad: the id that fills rows up.
        length: the most tokens of a row.
        width: numbers per vector; fewer than the encoder has are its projection on `axes`.

    Attributes:
        inside: the encoder itself.
        axes: `[encoder's width, width]`, as columns; None where all numbers are kept.

    Raises:
        ModelError: there is no such folder, tokenizer and model do not belong together, or `width`
            is more than the encoder has.
        MissingExtraError: transformers or tokenizers are not installed.

    Example:
        >>> net = SentenceModel(
        ...     folder="MiniLM/", vocabulary=30522, pad=0, length=128, width=256
        ... )  # doctest: +SKIP
    """

    def __init__(self, *, folder: str, vocabulary: int, pad: int, length: int, width: int) -> None:
        super().__init__()
        encoder, _ = load_sentence_encoder(there(folder))
        network = cast(Any, encoder.encoder)
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # never read, so it would never learn
        check_belongs(network, folder, vocabulary=vocabulary, length=length, pad=pad)
        if not 1 <= width <= encoder.width:
            raise ModelError(
                f"`1 <= dimension <= {encoder.width}` must hold for the vectors of {folder}, but "
                f"got {width}: a student cannot have more numbers than its teacher"
            )
        self.inside = SentenceEncoder(
            encoder.encoder, pad=pad, pooling=encoder.pooling, normalize=encoder.normalize
        )
        self.axes: nn.Parameter | None = None
        if width < encoder.width:
            # The first numbers as they are, until somebody finds better ones.
            self.axes = nn.Parameter(torch.eye(encoder.width)[:, :width].clone())

    def forward(self, ids: Int64[Tensor, " batch longest"]) -> Float[Tensor, " batch width"]:
        """One vector per row."""
        vectors = self.inside(ids)
        return unit(vectors if self.axes is None else vectors @ self.axes)

    def turn(self, axes: Float32[np.ndarray, " depth width"]) -> None:
        """Answer on these axes from now on, as of `principal_axes`."""
        assert self.axes is not None
        with torch.no_grad():
            self.axes.copy_(torch.from_numpy(axes))


def sentence_width(folder: str | Path) -> int:
    """How many numbers a vector of this encoder has, without reading its weights.

    Raises:
        ModelError: there is no such folder, or it is none of a sentence encoder.
    """
    inside = transformer_folder(there(str(folder)))
    found = read_file(inside / "config.json").get("hidden_size")
    if not isinstance(found, int):
        raise ModelError(
            f"{inside / 'config.json'} must say its `hidden_size`, but does not: name the folder "
            "of a sentence encoder"
        )
    return found


def known_ids(folder: str | Path) -> int | None:
    """How many ids the model of an encoder has vectors for, as its configuration says.

    Raises:
        ModelError: there is no such folder.
    """
    found = read_file(transformer_folder(there(str(folder))) / "config.json").get("vocab_size")
    return found if isinstance(found, int) else None


def own_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that an encoder was trained with; rows as long as the folder says.

    Raises:
        ModelError: there is no such folder, or no tokenizer in it.
    """
    inside = transformer_folder(there(str(folder)))
    try:
        return read_tokenizer(inside)
    except DataError as error:
        raise ModelError(f"the encoder {folder} cannot read texts: {error}") from error
