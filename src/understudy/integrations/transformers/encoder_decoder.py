"""Models that read one sequence and write another: what they are told of what they write."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from understudy.errors import ModelError

DECODER = "decoder_input_ids"


def reads_and_writes(model: Any) -> bool:
    """Whether a model has an encoder beside its decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def decoder_tokens(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """What a decoder is given: its labels moved to the right, after the token that it begins with.

    So the answer at a position is compared with the label at that position, and not with the next
    one. What the batch brings under `decoder_input_ids` is taken as it is.

    Raises:
        ModelError: the model cannot move labels to the right.
    """
    if DECODER in batch:
        given: Tensor = batch[DECODER]
        return given
    moved = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if moved is None:
        raise ModelError(
            f"{type(model).__name__} must move labels to the right "
            "(`prepare_decoder_input_ids_from_labels`), but cannot: bring `decoder_input_ids` in "
            "the batch"
        )
    tokens: Tensor = moved(labels=batch["labels"])
    return tokens


def teachers_tokens(teacher: Any, batch: Mapping[str, Any], students: Tensor) -> Tensor:
    """What a teacher's decoder is given: begun by its own token where it knows one.

    Raises:
        ModelError: the teacher is a causal model, or another one that writes nothing.
    """
    config = getattr(teacher, "config", None)
    if config is not None and not reads_and_writes(teacher):
        raise ModelError(
            "the teacher of an encoder-decoder model must be one too, but "
            f"{type(teacher).__name__} is none: both must answer to the same labels"
        )
    if config is None or DECODER in batch:
        return students
    return decoder_tokens(teacher, batch)
