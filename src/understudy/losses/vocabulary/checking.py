"""What a loss over a vocabulary refuses, and in which words."""

import math
from typing import Final

import torch
from torch import Tensor

from understudy.errors import TrainingError
from understudy.losses.vocabulary.parts import (
    DenseLabels,
    Divergence,
    Forward,
    HiddenLabels,
    Labels,
    LinearHead,
    ListedLabels,
)

PADDING: Final = 1024
"""The most columns that padding adds: embeddings are padded to multiples of 64 to 1024."""


def check_head(hidden: Tensor, head: LinearHead, *, name: str = "hidden") -> None:
    """Refuse hidden states that a head cannot take."""
    if hidden.ndim != 2:
        raise ValueError(
            f"`{name}` must be [tokens, width], but got {tuple(hidden.shape)}: join sequences end "
            "to end with `flatten(0, 1)`, one row per token"
        )
    if hidden.shape[1] != head.weight.shape[1]:
        raise ValueError(
            f"`{name}.shape[1] == weight.shape[1]` must hold, but got {name} "
            f"{tuple(hidden.shape)} and weight {tuple(head.weight.shape)}"
        )


def check_weights(
    teacher: Labels | None,
    labels: Tensor | None,
    soft_weight: float,
    hard_weight: float,
    label_smoothing: float,
) -> None:
    """Refuse weights that leave nothing to learn, or mean nothing."""
    if teacher is not None and not (math.isfinite(soft_weight) and soft_weight > 0):
        raise ValueError(
            f"`soft_weight > 0` must hold with a teacher, but got {soft_weight=}: for cross "
            "entropy alone leave the teacher out"
        )
    if not (math.isfinite(hard_weight) and hard_weight >= 0):
        raise ValueError(f"`hard_weight >= 0` must hold, but got {hard_weight=}: usual is 0 to 1")
    if hard_weight and labels is None:
        raise ValueError(f"`labels` must be there, as {hard_weight=}: give the next tokens")
    if teacher is None and not hard_weight:
        raise ValueError(
            "there must be something to learn, but got neither a teacher nor a hard_weight above "
            "0: give `hard_weight=1` for cross entropy alone"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"`0 <= label_smoothing < 1` must hold, but got {label_smoothing=}: usual is 0 or 0.1"
        )


def common_width(head: LinearHead, teacher: Labels | None, vocabulary: int | None) -> int:
    """How many leading columns are compared.

    Raises:
        ValueError: the sides have fewer than `vocabulary`, or differ by more than padding.
    """
    own = len(head.weight)
    theirs = own
    if isinstance(teacher, HiddenLabels):
        theirs = len(teacher.head.weight)
    elif isinstance(teacher, DenseLabels):
        theirs = teacher.logits.shape[-1]
    width = min(own, theirs)
    if vocabulary is None and abs(own - theirs) >= PADDING:
        raise ValueError(
            f"student and teacher must differ by less than {PADDING} columns, as by padding, but "
            f"got {own} and {theirs}: if it is one tokenizer, say how many leading columns both "
            f"share (`vocabulary={width}`); two tokenizers cannot be compared column by column"
        )
    if vocabulary is not None and vocabulary > width:
        raise ValueError(
            f"`vocabulary <= {width}` must hold, but got {vocabulary=}, {own} columns of the "
            f"student and {theirs} of the teacher"
        )
    width = width if vocabulary is None else vocabulary
    if width < 2:
        raise ValueError(f"there must be 2 columns or more, but got {width}")
    return width


def counted_rows(
    hidden: Tensor, labels: Tensor | None, mask: Tensor | None, ignore_index: int
) -> Tensor:
    """Which tokens count, bool `[tokens]`."""
    counted = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    for name, given, dtype in (("labels", labels, torch.int64), ("mask", mask, torch.bool)):
        if given is None:
            continue
        _check_rows(name, given, len(hidden), ndim=1)
        if given.dtype != dtype:
            raise ValueError(f"`{name}.dtype == {dtype}` must hold, but got {given.dtype}")
        counted &= given if name == "mask" else given != ignore_index
    return counted


def check_labels(labels: Tensor, rows: Tensor, *, width: int) -> None:
    """Refuse hard labels outside the vocabulary; those that do not count are not looked at."""
    used = labels[rows]
    wrong = (used < 0) | (used >= width)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"`0 <= labels < {width}` must hold, but got label {int(used[at])} at token "
            f"{int(rows[at])}: give tokens that do not count the `ignore_index`, and labels of "
            "the student's tokenizer to the others"
        )


def check_teacher(
    teacher: Labels, rows: Tensor, *, tokens: int, width: int, kind: Divergence, at: float
) -> None:
    """Refuse labels of another shape or vocabulary, and a divergence that they cannot give."""
    if isinstance(teacher, HiddenLabels):
        check_head(teacher.hidden, teacher.head, name="teacher.hidden")
        _check_rows("teacher.hidden", teacher.hidden, tokens, ndim=2)
    elif isinstance(teacher, DenseLabels):
        _check_rows("teacher.logits", teacher.logits, tokens, ndim=2)
    else:
        _check_list(teacher, rows, tokens=tokens, width=width)
        if teacher.sampled:
            _check_sampled(teacher, kind, at)


def divided_by(denominator: float | int | Tensor | None, count: int) -> float:
    """The denominator; 1 where nothing counts and none is given.

    Raises:
        ValueError: it is not one positive, finite number.
    """
    if denominator is None:
        return float(max(count, 1))
    if isinstance(denominator, Tensor) and denominator.numel() != 1:
        raise ValueError(
            f"`denominator` must be one number, but got {tuple(denominator.shape)}: give the "
            "tokens that count in all batches together"
        )
    value = float(denominator)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(
            f"`denominator > 0` must hold, but got {value}: give the tokens that count in all "
            "batches together, or leave it out for the mean"
        )
    return value


def check_finite(
    soft: Tensor,
    hard: Tensor,
    rows: Tensor,
    *,
    hidden: Tensor,
    head: LinearHead,
    teacher: Labels | None,
) -> None:
    """Refuse to go on from a value that is not finite.

    Raises:
        TrainingError: names the first such token, and where the fault is as far as it is seen.
    """
    wrong = ~((soft + hard)[rows].isfinite())
    if not wrong.any():
        return
    at = int(rows[int(wrong.nonzero()[0])])
    value = "divergence" if not soft[at].isfinite() else "cross entropy"
    worth = float(soft[at] if value == "divergence" else hard[at])
    raise TrainingError(
        f"the value of every token must be finite, but the {value} of token {at} is {worth} "
        f"({int(wrong.sum())} of {len(rows)} tokens): {_fault(at, hidden, head, teacher)}"
    )


def _fault(at: int, hidden: Tensor, head: LinearHead, teacher: Labels | None) -> str:
    told: dict[str, Tensor | None] = {
        "the student's hidden states are": hidden[at],
        "the student's head is": head.weight,
        "the student's bias is": head.bias,
    }
    if isinstance(teacher, HiddenLabels):
        told["the teacher's hidden states are"] = teacher.hidden[at]
        told["the teacher's head is"] = teacher.head.weight
    elif isinstance(teacher, DenseLabels):
        # -inf is an answer: a token that cannot be.
        told["the teacher's logits are"] = teacher.logits[at].nan_to_num(neginf=0.0, nan=torch.nan)
    elif teacher is not None:
        told["the teacher's list is"] = teacher.log_mass[at].nan_to_num(neginf=0.0, nan=torch.nan)
    for name, tensor in told.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            return f"{name} not finite there; mask this token, or find what made them so"
    return (
        "one side rules out what the other allows; use `Blend` or `Skew`, which stay finite, or "
        "mask tokens of which the teacher says nothing"
    )


def _check_rows(name: str, given: Tensor, tokens: int, *, ndim: int) -> None:
    if given.ndim != ndim or len(given) != tokens:
        law = "[tokens]" if ndim == 1 else "[tokens, columns]"
        raise ValueError(
            f"`{name}` must be {law} with the student's tokens, but got {tuple(given.shape)} and "
            f"{tokens} tokens: give one row per token; nothing is broadcast"
        )


def _check_list(teacher: ListedLabels, rows: Tensor, *, tokens: int, width: int) -> None:
    _check_rows("ids", teacher.ids, tokens, ndim=2)
    if teacher.log_mass.shape != teacher.ids.shape:
        raise ValueError(
            f"`log_mass.shape == ids.shape` must hold, but got {tuple(teacher.log_mass.shape)} "
            f"and {tuple(teacher.ids.shape)}"
        )
    _check_rows("rest", teacher.rest, tokens, ndim=1)
    if teacher.ids.dtype != torch.int64:
        raise ValueError(
            f"`ids.dtype == torch.int64` must hold, but got {teacher.ids.dtype}: call "
            "`ids.long()`, with -1 where nothing is listed"
        )
    used = teacher.ids[rows]
    wrong = ((used < -1) | (used >= width)).any(dim=1)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"`-1 <= ids < {width}` must hold, but got ids from {int(used[at].min())} to "
            f"{int(used[at].max())} at token {int(rows[at])}: use labels of a teacher with the "
            "student's vocabulary"
        )


def _check_sampled(teacher: ListedLabels, kind: Divergence, at: float) -> None:
    if kind != Forward():
        raise ValueError(
            f"`divergence == Forward()` must hold for sampled labels, but got {kind}: draws "
            "estimate no other; store the largest outcomes instead"
        )
    if at != 1:
        raise ValueError(
            f"`temperature == 1` must hold for sampled labels, but got temperature={at}: their "
            "weights are unbiased at temperature 1 only; store the largest outcomes instead"
        )
    if teacher.entropy is None:
        raise ValueError(
            "`entropy` must be there for sampled labels, but got entropy=None: give the teacher's "
            "entropy that is stored beside them, in nats"
        )
    _check_rows("entropy", teacher.entropy, len(teacher.ids), ndim=1)
