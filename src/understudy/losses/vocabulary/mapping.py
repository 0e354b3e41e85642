"""Which columns of two heads mean the same token: a plan, made once from both vocabularies."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from understudy.errors import ModelError

LEAST: Final = 0.9
"""Below such a share of common tokens, two vocabularies are those of two tokenizers."""

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_SHOWN: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VocabularyMap:
    """The tokens that two vocabularies share, as columns of both heads.

    All other columns are masked: tokens that one side lacks, and the columns that padding adds,
    which mean nothing.

    Attributes:
        student: int64 `[shared]`, columns of the student's head, rising.
        teacher: int64 `[shared]`, the columns of the same tokens in the teacher's head.
        student_width: columns of the student's head, padding included.
        teacher_width: columns of the teacher's head, padding included.
        student_tokens: how many of the student's columns are tokens.
        teacher_tokens: how many of the teacher's are.
    """

    student: Tensor
    teacher: Tensor
    student_width: int
    teacher_width: int
    student_tokens: int
    teacher_tokens: int

    def __len__(self) -> int:
        return len(self.student)

    @property
    def coverage(self) -> tuple[float, float]:
        """The share of the student's tokens, and of the teacher's, that both have."""
        return len(self) / self.student_tokens, len(self) / self.teacher_tokens

    @property
    def same_numbers(self) -> bool:
        """Whether every shared token has one number on both sides: padding alone differs."""
        return torch.equal(self.student, self.teacher)

    @property
    def to_student(self) -> Int64[Tensor, " columns"]:
        """Per number of the teacher the student's, -1 where it has none."""
        return _table(self.teacher, self.student, self.teacher_width)

    @property
    def to_teacher(self) -> Int64[Tensor, " columns"]:
        """Per number of the student the teacher's, -1 where it has none."""
        return _table(self.student, self.teacher, self.student_width)

    def to(self, device: torch.device | str) -> "VocabularyMap":
        """The same on another device."""
        return VocabularyMap(
            student=self.student.to(device),
            teacher=self.teacher.to(device),
            student_width=self.student_width,
            teacher_width=self.teacher_width,
            student_tokens=self.student_tokens,
            teacher_tokens=self.teacher_tokens,
        )

    def translated(
        self,
        tokens: Int64[Tensor, " *axes"],
        *,
        unknown: int | None = None,
        read: Shaped[Tensor, " *axes"] | None = None,
    ) -> Int64[Tensor, " *axes"]:
        """The student's tokens in the teacher's numbers, for a teacher that reads the same text.

        Args:
            tokens: the student's numbers.
            unknown: what the teacher reads where it lacks a token; None refuses such texts.
            read: an attention mask: 0 where a token is not read, whatever it is. None: all are.

        Raises:
            ModelError: a token is outside the student's head, or the teacher lacks it.
        """
        if read is not None:
            tokens = tokens.masked_fill(read == 0, int(self.student[0]))
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.student_width:
            raise ModelError(
                f"`0 <= tokens < {self.student_width}` must hold, but got tokens from "
                f"{int(tokens.min())} to {int(tokens.max())}: they are not the student's"
            )
        found = self.to_teacher.to(tokens.device)[tokens]
        lacking = found < 0
        if unknown is None and bool(lacking.any()):
            raise ModelError(
                f"the teacher must know every token that it reads, but lacks the student's "
                f"{int(tokens[lacking][0])} ({int(lacking.sum())} of {tokens.numel()} tokens): "
                "give `unknown`, the number that it reads instead, or leave such texts out"
            )
        return found if unknown is None else found.masked_fill(lacking, unknown)

    def line(self) -> str:
        """For the log."""
        own, theirs = self.coverage
        order = "" if self.same_numbers else ", in another order"
        return (
            f"{len(self)} tokens are shared ({own:.1%} of the student's, {theirs:.1%} of the "
            f"teacher's){order}; masked are {self.student_width - len(self)} of "
            f"{self.student_width} columns of the student and {self.teacher_width - len(self)} of "
            f"{self.teacher_width} of the teacher"
        )


def map_vocabularies(
    student: Mapping[str, int],
    teacher: Mapping[str, int],
    *,
    student_width: int | None = None,
    teacher_width: int | None = None,
    same: Mapping[str, str] = _NONE,
    least: float = LEAST,
) -> VocabularyMap:
    """The plan for two vocabularies, token by token, whatever their numbers are.

    A token is its text, as the tokenizer writes it. That two vocabularies share tokens does not
    make them cut a text alike: below `least` they are taken for two tokenizers, and refused.

    Args:
        student: every token and its number, as `tokenizer.get_vocab()` gives it.
        teacher: likewise.
        student_width: columns of its head, where padding adds some; None for as many as tokens.
        teacher_width: likewise. A token beyond the head is one that the model lacks.
        same: tokens that mean the same under two names, student to teacher: `{"<|end|>": "</s>"}`.
        least: the smallest share of either side's tokens that must be shared.

    Returns:
        The plan.

    Raises:
        ModelError: less is shared; a token of `same` is on neither side.
        ValueError: a token would stand for two, a number is negative, or `least` is no share.

    Paper:
        None: the alignment by text that Boizard et al. 2024, "Towards Cross-Tokenizer
        Distillation" (arXiv 2402.12030), section 2, take for granted where tokenizers are one.

    Example:
        >>> made = map_vocabularies({"a": 0, "b": 1}, {"b": 0, "a": 1}, teacher_width=64)
        >>> made.teacher.tolist(), made.coverage
        ([1, 0], (1.0, 1.0))
    """
    if not 0 < least <= 1:
        raise ValueError(f"`0 < least <= 1` must hold, but got {least=}: usual is {LEAST}")
    own, own_width = _within(student, student_width, "student")
    theirs, their_width = _within(teacher, teacher_width, "teacher")
    _check_same(same, student, teacher)
    pairs = sorted(
        (number, theirs[same.get(text, text)])
        for text, number in own.items()
        if same.get(text, text) in theirs
    )
    for side, name in ((0, "student"), (1, "teacher")):
        if len({pair[side] for pair in pairs}) < len(pairs):
            raise ValueError(
                f"every token of the {name} must stand for one of the other side, but one stands "
                "for two: correct `same`, or the vocabulary that gives two tokens one number"
            )
    tokens = len(set(own.values())), len(set(theirs.values()))
    shares = [len(pairs) / max(count, 1) for count in tokens]
    if min(shares) < least or len(pairs) < 2:
        lacking = [text for text in own if same.get(text, text) not in theirs][:_SHOWN]
        raise ModelError(
            f"`shared / tokens >= {least}` must hold on both sides, but {len(pairs)} tokens are "
            f"shared of the student's {tokens[0]} and the teacher's {tokens[1]} (the teacher has "
            f"no {', '.join(map(repr, lacking)) or 'others'}): these are two tokenizers, which "
            "cut texts differently; compare words of encoders, or chunks of causal models"
        )
    both = torch.tensor(pairs, dtype=torch.int64)
    return VocabularyMap(
        student=both[:, 0].contiguous(),
        teacher=both[:, 1].contiguous(),
        student_width=own_width,
        teacher_width=their_width,
        student_tokens=tokens[0],
        teacher_tokens=tokens[1],
    )


def _within(
    vocabulary: Mapping[str, int], width: int | None, name: str
) -> tuple[Mapping[str, int], int]:
    """The tokens that have a column, and how many columns there are."""
    if min(vocabulary.values(), default=-1) < 0:
        raise ValueError(
            f"the {name}'s vocabulary must hold numbers from 0 on, but holds "
            f"{min(vocabulary.values(), default=None)}: give `tokenizer.get_vocab()`"
        )
    if width is None:
        return vocabulary, max(vocabulary.values()) + 1
    return {text: number for text, number in vocabulary.items() if number < width}, width


def _check_same(
    same: Mapping[str, str], student: Mapping[str, int], teacher: Mapping[str, int]
) -> None:
    for own, goal in same.items():
        for text, known, name in ((own, student, "student"), (goal, teacher, "teacher")):
            if text not in known:
                raise ModelError(
                    f"`same` must name tokens of both sides, but {text!r} is none of the {name}'s "
                    f"{len(known)}: correct it"
                )


def _table(start: Tensor, goal: Tensor, width: int) -> Tensor:
    return torch.full((width,), -1, device=start.device).scatter(0, start, goal)
