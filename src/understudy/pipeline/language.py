"""What a run of a language model does in its own way: who tells what, how many rows at a time."""

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy import build
from understudy.engine import Validate
from understudy.errors import DataError, ModelError
from understudy.evaluate.language import bits_per_byte
from understudy.folders import read_json
from understudy.labels.codecs.form import Codec
from understudy.labels.codecs.hidden import Hidden, state_codec
from understudy.losses.vocabulary import LinearHead
from understudy.models.causal import CausalModel
from understudy.models.deployable import Deployable
from understudy.pipeline.work import Work, validator
from understudy.recipe import Entry, Recipe
from understudy.tasks import LanguageModel
from understudy.teachers.causal_teacher import CausalTeacher, Tells
from understudy.teachers.hf_encoder import there
from understudy.teachers.hf_model import fetched

MOST_LOGITS: Final = 2**25
"""Of one batch whose logits are made: 128 MB of them."""


def is_language(recipe: Recipe) -> bool:
    """Whether the run is one of a language model."""
    return recipe.task.kind == "language_model"


def told_by(recipe: Recipe, *, live: bool) -> Tells:
    """What a teacher tells: a live one its states, whose logits nobody keeps."""
    return "states" if live or recipe.labels.codec.kind == "hidden" else "logits"


def codec_of(recipe: Recipe) -> Codec:
    """How a teacher's answer is stored; of one that is told by its states, how these are."""
    entry = recipe.labels.codec
    if is_language(recipe) and entry.kind == "hidden":
        return state_codec(**entry.parameters)
    return build.codec(entry)


def with_head(work: Work, module: Deployable | None) -> Hidden:
    """The teacher's states as its answer: its head lies beside them, and makes logits of them."""
    head = head_of(work, module)
    return Hidden(
        weight=head.weight.float().cpu().numpy(),
        bias=None if head.bias is None else head.bias.float().cpu().numpy(),
        scale=float(head.scale),
        soft_cap=None if head.soft_cap is None else float(head.soft_cap),
        **work.recipe.labels.codec.parameters,
    )


def speaker(work: Work, module: Deployable | None, tells: Tells) -> CausalTeacher:
    """The teacher of a run as one that tells positions.

    Raises:
        ModelError: it is no PyTorch module.
    """
    if module is None:
        raise ModelError(
            "a teacher of a language model must be one PyTorch `model`, with states and a head: "
            "use `kind: hf_causal` or `gpt`"
        )
    return CausalTeacher(module, tells=tells, vocabulary=work.task.width)


def head_of(work: Work, module: Deployable | None) -> LinearHead:
    """What makes logits of the teacher's states."""
    return speaker(work, module, "states").head


def rows_at_once(work: Work, most: int) -> int:
    """How many rows may be asked for logits together: as many as wanted, where there is room."""
    if not is_language(work.recipe):
        return most
    per_row = work.material.inputs.shape[1] * work.task.width
    return max(1, min(most, MOST_LOGITS // per_row))


def validating(work: Work) -> Validate:
    """The primary score as the engine's validation function."""
    task = work.material.task
    if not isinstance(task, LanguageModel):
        return validator(task.scores[0])
    sizes = work.material.bytes
    assert sizes is not None
    special = np.array(task.special)
    held = work.material.splits.validation
    free = np.isin(work.material.all_labels.numpy()[held], special)
    whole = int(sizes.numpy()[held][~free].sum())

    def validate(outputs: Tensor, labels: Tensor) -> float:
        paid = ~np.isin(labels.numpy(), special)
        return bits_per_byte(float((outputs[:, 0].double().numpy() * paid).sum()), whole)

    return validate


def fitting(work: Work, network: nn.Module, *, who: str, tokenizer: Any = None) -> int:
    """How many logits a causal network has per token, once it is known to read the run's tokens.

    Args:
        work: the run.
        network: the teacher's or the student's.
        who: what errors call it.
        tokenizer: the network's own, the JSON of a `tokenizer.json`, where it has one.

    Raises:
        ModelError: it is no causal model, knows fewer tokens or reads shorter rows than the run's,
            or has another tokenizer.
    """
    if not isinstance(network, CausalModel):
        raise ModelError(
            f"{who} must be a causal model, with `states` and a `head`, but "
            f"{type(network).__name__} is none: use `kind: gpt` or `kind: hf_causal`"
        )
    tokens = work.material.tokens
    assert tokens is not None
    if network.vocabulary < tokens.vocabulary:
        raise ModelError(
            f"{who} must know every token, but knows {network.vocabulary:,} and the tokenizer has "
            f"{tokens.vocabulary:,}: name the model's own tokenizer in `data.tokenizer`"
        )
    if network.context < tokens.length:
        raise ModelError(
            f"{who} must read whole rows, but its context is {network.context} tokens and rows "
            f"have {tokens.length}: set `data.tokenizer.max_length: {network.context}`"
        )
    if tokenizer is not None and work.material.tokenizer is not None:
        _same_tokens(json.loads(work.material.tokenizer.content), tokenizer, who)
    return int(network.vocabulary)


def own_tokenizer(work: Work, entry: Entry) -> Any:
    """The tokenizer in the folder of a model, as plain data; None where there is none to see.

    Raises:
        ModelError: there is no model of this name on the hub.
    """
    folder = entry.parameters.get("folder")
    if entry.kind == "custom" or not isinstance(folder, str):
        return None
    found = build.folder(folder, work.place)
    home = work.place.resolve(found)
    if not home.is_dir():
        home = fetched(there(found), patterns=("config.json", "tokenizer.json"))
    path = home / "tokenizer.json"
    return read_json(path) if path.is_file() else None


def reads_its_own_tokens(work: Work, entry: Entry, *, who: str) -> None:
    """Refuse rows of tokens that a pretrained encoder would take for others.

    Raises:
        ModelError: the folder of a `hf_encoder` has another tokenizer than the run.
    """
    told = own_tokenizer(work, entry) if entry.kind == "hf_encoder" else None
    if told is not None and work.material.tokenizer is not None:
        _same_tokens(json.loads(work.material.tokenizer.content), told, who)


def _same_tokens(own: Any, theirs: Any, who: str) -> None:
    sides = [_vocabulary(told) for told in (own, theirs)]
    differ = [t for t, number in sides[0].items() if sides[1].get(t) != number]
    if differ:
        raise ModelError(
            f"{who} must have the run's tokenizer, but {len(differ):,} of {len(sides[0]):,} tokens "
            f"have other numbers or none there (such as {differ[0]!r}): name its folder in "
            "`data.tokenizer`"
        )


def _vocabulary(told: Any) -> dict[str, int]:
    found = told["model"].get("vocab", {})
    if not isinstance(found, dict):  # a list of tokens with their scores
        found = {str(entry[0]): number for number, entry in enumerate(found)}
    added = {token["content"]: int(token["id"]) for token in told.get("added_tokens") or ()}
    return {**found, **added}


def with_bytes(work: Work, positions: NDArray[np.int64], labels: NDArray[Any]) -> NDArray[Any]:
    """What came at each scored position and its bytes, `[positions, 2]`.

    Raises:
        DataError: nothing of these rows stands for text.
    """
    sizes = work.material.bytes
    assert sizes is not None
    found = np.stack([labels, sizes.numpy()[positions]], axis=-1)[labels >= 0]
    if not found[:, 1].any():
        raise DataError("rows must hold text to be judged by, but these stand for no byte of it")
    return np.asarray(found)
