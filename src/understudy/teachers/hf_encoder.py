"""A pretrained transformer of Hugging Face with a fresh head: the teacher of a text classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from jaxtyping import Float, Int64
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.models.token_masks import max_over, mean_over, real_tokens
from understudy.teachers.hf_model import load_hf_model
from understudy.teachers.sentence_tokenizer import read_file

Pool = Literal["mean", "cls", "max"]
Frozen = Literal["none", "embeddings", "encoder"]

# These count positions from behind the id of padding.
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")


class HFEncoder(nn.Module):
    """Token ids `[batch, longest]` to `[batch, width]`, by a pretrained encoder and a new head.

    The encoder's last states are pooled over the real tokens, and one linear layer answers.

    Args:
        folder: of the model, or its name on the Hugging Face hub.
        vocabulary: how many ids the tokenizer has.
        pad: the id that fills rows up.
        length: the most tokens of a row.
        width: answers per row.
        pool: `mean` over the real tokens, the first token (`cls`), or the `max` per column.
        freeze: what is not trained: `none`, the `embeddings`, or the whole `encoder`.
        dropout: the share of pooled numbers dropped while training.
        each_token: whether every token is answered for, `[batch, longest, width]`, from its own
            state; nothing is pooled then.

    Raises:
        ModelError: there is no such model, it is no encoder of texts, or tokenizer and model do
            not belong together.
        ValueError: the dropout is outside 0 to 1.
        MissingExtraError: transformers is not installed.

    Example:
        >>> net = HFEncoder(
        ...     folder="MiniLM/", vocabulary=30522, pad=0, length=128, width=2
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        folder: str,
        vocabulary: int,
        pad: int,
        length: int,
        width: int,
        pool: Pool = "mean",
        freeze: Frozen = "none",
        dropout: float = 0.1,
        each_token: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"`0 <= dropout < 1` must hold, but got {dropout=}: usual is 0.1")
        self.encoder = load_hf_model(there(folder), answer="states", pad=pad).network
        self.pad, self.pool, self.each_token = pad, pool, each_token
        network = cast(Any, self.encoder)
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # never read, so it would never learn
        check_belongs(network, folder, vocabulary=vocabulary, length=length, pad=pad)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(int(network.config.hidden_size), width)
        frozen = {"none": None, "encoder": network}.get(freeze, network.get_input_embeddings())
        if frozen is not None:
            frozen.requires_grad_(False)

    def forward(
        self, ids: Int64[Tensor, " batch longest"]
    ) -> Float[Tensor, " batch *longest width"]:
        """One row of answers per text, or per token."""
        mask = real_tokens(ids, self.pad)
        seen = mask.clone()
        # Attention over nothing is no number: an empty text looks at its first padding.
        seen[:, 0] = True
        told = self.encoder(input_ids=ids, attention_mask=seen.long(), return_dict=True)
        states = told.last_hidden_state
        if self.each_token:
            pooled = states
        elif self.pool == "cls":
            pooled = states[:, 0]
        else:
            pooled = (mean_over if self.pool == "mean" else max_over)(states, mask)
        answers: Tensor = self.head(self.dropout(pooled))
        return answers


def there(folder: str) -> str | Path:
    """A path where it looks like one: the hub is never asked for what lies on a disk."""
    if "/" in folder and Path(folder).is_absolute():
        return Path(folder)
    return folder


def check_belongs(network: Any, folder: str, *, vocabulary: int, length: int, pad: int) -> None:
    """Refuse a tokenizer that an encoder does not know, and rows that it has no positions for.

    Raises:
        ModelError: with both numbers.
    """
    known = int(network.get_input_embeddings().weight.shape[0])
    if vocabulary > known:
        raise ModelError(
            f"tokenizer and model must belong together, but the tokenizer has {vocabulary} ids and "
            f"{folder} has vectors for {known}: name the model's own folder as `data.tokenizer`"
        )
    usable = _usable(network.config.to_dict(), pad)
    if usable is not None and length > usable:
        raise ModelError(
            f"texts must not be longer than the model, but rows have up to {length} tokens and "
            f"{folder} has {usable} positions: set `max_length: {usable}` in `data.tokenizer`"
        )


def positions_in(home: Path, pad: int) -> int | None:
    """How many tokens a row of the model in a folder may have; None where nothing says so.

    Raises:
        ModelError: there is no configuration in it.
    """
    return _usable(read_file(home / "config.json"), pad)


def _usable(config: Mapping[str, Any], pad: int) -> int | None:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    return positions - (pad + 1 if config.get("model_type") in _SHIFTED else 0)
