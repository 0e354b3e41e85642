"""Somebody's own teacher of texts: a module of the student's tokens, or one that reads texts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.contracts import Teacher
from understudy.deployed.texts import Tokenizer
from understudy.errors import ModelError, UnderstudyError
from understudy.pipeline.own_tokenizers import own_tokenizer
from understudy.tasks import AnyTask, Classification
from understudy.teachers.hf_model import TokenModel
from understudy.teachers.text_teacher import Text, TextTeacher, as_text

Predict = Callable[[list[Text]], Any]
_FEW = 16


def folder_of(teacher: Any) -> Path | None:
    """The folder that a Hugging Face model was loaded from, where its tokenizer lies in it."""
    name = getattr(getattr(teacher, "config", None), "_name_or_path", "")
    folder = Path(name) if isinstance(name, str) and name else None
    return folder if folder is not None and (folder / "tokenizer.json").is_file() else None


def text_teacher(
    teacher: Any,
    *,
    task: AnyTask,
    tokenizer: Tokenizer,
    own: Any,
    texts: Sequence[Sequence[str]],
    ids: NDArray[np.int64],
) -> Any:
    """A teacher as `distill` takes it.

    Args:
        teacher: a module, anything that answers a `Batch`, anything with `predict_proba`, or a
            callable of a list of strings (of pairs of strings), which answers a row for each.
        task: what is asked.
        tokenizer: of the student.
        own: the tokenizer of a module that has another one.
        texts: of every row.
        ids: of every row.

    Raises:
        ModelError: model and tokenizer do not belong together, the classes have another order, or
            the teacher cannot answer.
    """
    if isinstance(teacher, nn.Module):
        other = None if own is None else own_tokenizer(own, ())
        reads = tokenizer if other is None else other
        module = _module(teacher, reads, task)
        few = [as_text(row) for row in texts[:2]]
        answer = _tried(lambda: _tokens(module, reads)(few), "the teacher")
        _check_width(answer, task)
        if other is None:
            return module
        predict: Predict = _tokens(module, other)
    elif isinstance(teacher, Teacher):
        return teacher
    elif hasattr(teacher, "predict_proba"):
        predict = _ordered(teacher, task)
    elif callable(teacher):
        predict = teacher
    else:
        raise ModelError(
            "a teacher of texts must be a module, a callable of a list of strings, or have "
            f"`predict_proba`, but got {type(teacher).__name__}"
        )
    few = [as_text(row) for row in texts[:_FEW]]
    return TextTeacher(
        predict,
        texts=texts,
        ids=ids,
        output=task.output,
        width=task.width,
        answers=_kind(_tried(lambda: predict(few), "the teacher"), task),
    )


def _module(teacher: nn.Module, tokenizer: Tokenizer, task: AnyTask) -> nn.Module:
    config = getattr(teacher, "config", None)
    if config is None or not hasattr(teacher, "get_input_embeddings"):
        return teacher
    known = int(teacher.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if tokenizer.vocabulary > known:
        raise ModelError(
            f"tokenizer and model must belong together, but the tokenizer has "
            f"{tokenizer.vocabulary} ids and {type(teacher).__name__} has vectors for {known}: "
            "give the model's own as `tokenizer`, or as `teacher_tokenizer` where the student has "
            "another"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and tokenizer.length > positions:
        raise ModelError(
            f"texts must not be longer than the model, but rows have up to {tokenizer.length} "
            f"tokens and {type(teacher).__name__} has {positions} positions: give a tokenizer that "
            "cuts them, such as its own with `model_max_length`"
        )
    _check_order(config, task)
    return TokenModel(teacher, pad=tokenizer.pad, answer="logits").eval()


def _check_order(config: Any, task: AnyTask) -> None:
    """Named classes of a model must stand in the order of the data's."""
    named = getattr(config, "id2label", None)
    if not isinstance(named, Mapping) or not isinstance(task, Classification):
        return
    own = [str(named[key]).casefold() for key in sorted(named)]
    wanted = [name.casefold() for name in task.classes]
    if sorted(own) == sorted(wanted) and own != wanted:
        raise ModelError(
            f"the classes must stand in the order of the teacher's answers, {', '.join(own)}, but "
            f"those of the labels are {', '.join(wanted)}: give `classes` in the teacher's order"
        )


def _tokens(module: nn.Module, tokenizer: Tokenizer) -> Predict:
    """A module of token ids as a function of texts."""

    def predict(texts: list[Text]) -> Tensor:
        single = [text for text in texts if isinstance(text, str)]
        if single:
            rows = tokenizer(single)
        else:
            rows = tokenizer([text[0] for text in texts], [text[1] for text in texts])
        with torch.no_grad():
            found = module.eval()(torch.from_numpy(rows).long())
        return found if isinstance(found, Tensor) else found.logits

    return predict


def _ordered(teacher: Any, task: AnyTask) -> Predict:
    """The probabilities of an estimator, its columns in the order of the classes."""
    named = getattr(teacher, "classes_", None)
    if named is None or not isinstance(task, Classification):
        return lambda texts: np.asarray(teacher.predict_proba(texts))
    own = [str(name) for name in np.asarray(named).tolist()]
    if sorted(own) != sorted(task.classes):
        raise ModelError(
            f"the teacher must know the classes of the labels, {', '.join(task.classes)}, but "
            f"knows {', '.join(own)}: fit it on the same labels"
        )
    places = [own.index(name) for name in task.classes]
    return lambda texts: np.asarray(teacher.predict_proba(texts))[:, places]


def _kind(answer: Any, task: AnyTask) -> Literal["logits", "probabilities"]:
    _check_width(answer, task)
    if not isinstance(task, Classification):
        return "logits"
    rows = np.asarray(answer.detach() if isinstance(answer, Tensor) else answer, np.float64)
    whole = bool((rows >= 0).all()) and bool((np.abs(rows.sum(axis=1) - 1) < 1e-3).all())
    return "probabilities" if whole else "logits"


def _check_width(answer: Any, task: AnyTask) -> None:
    shape = tuple(np.shape(answer.detach() if isinstance(answer, Tensor) else answer))
    if len(shape) != 2 or shape[1] != task.width:
        raise ModelError(
            f"a teacher must answer with {task.width} numbers per text, but this one answered with "
            f"shape {list(shape)}: give one number per class, or `classes` as many as it has"
        )


def _tried(ask: Callable[[], Any], who: str) -> Any:
    try:
        return ask()
    except UnderstudyError:
        raise
    except Exception as error:  # whatever a model of the user's raises
        text = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"{who} cannot answer texts: {type(error).__name__}: {text}. A callable is given a "
            "list of strings; a module rows of token ids, and a model of Hugging Face needs a head "
            "(`AutoModelForSequenceClassification`)"
        ) from error
