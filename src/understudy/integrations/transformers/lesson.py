"""What one trainer learns of a batch: the student read, the teacher asked, the objective's loss."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.errors import DataError, ModelError, TrainingError
from understudy.integrations.transformers.collating import labels_of, told_in
from understudy.integrations.transformers.encoder_decoder import (
    DECODER,
    decoder_tokens,
    reads_and_writes,
    teachers_tokens,
)
from understudy.integrations.transformers.objective import IGNORED, TokenObjective
from understudy.integrations.transformers.reading import Reader, logits_in
from understudy.integrations.transformers.tokenizers import Tokenizer, shared_tokens
from understudy.losses.vocabulary import DenseLabels, HiddenLabels, VocabularyLoss
from understudy.losses.vocabulary.parts import Labels


class Lesson:
    """What one trainer learns: the objective, the teacher, and how both models are read."""

    def __init__(self, objective: TokenObjective, teacher: Any) -> None:
        self._objective, self._teacher = objective, teacher
        self._student_reader, self._teacher_reader = Reader(), Reader()
        self._sums: Tensor | None = None
        # The answer at a position tells of the next token, or of its own label.
        self.shift = 1

    def begin(
        self, student: nn.Module, tokenizer: Any, teacher_tokenizer: Tokenizer | None
    ) -> None:
        """Refuse what cannot be learned from, and make the teacher ready."""
        self.shift = 0 if reads_and_writes(student) else 1
        if isinstance(self._teacher, nn.Module):
            if self._teacher is student:
                raise ModelError(
                    "the teacher must be another module than the student, but both are one: give "
                    "a copy (`copy.deepcopy(model)`)"
                )
            self._teacher.eval()
        aligned = self._objective.alignment is not None
        if aligned and not self.shift:
            raise ModelError(
                "an `alignment` translates one sequence, but this student reads one and writes "
                "another: use a teacher of the same tokenizer"
            )
        if isinstance(tokenizer, Tokenizer) and teacher_tokenizer is not None and not aligned:
            widths = {_width(student), _width(self._teacher)} - {None}
            shared = min([shared_tokens(tokenizer, teacher_tokenizer), *filter(None, widths)])
            # Heads of one width are compared whole: so what is padding learns to have no mass.
            if len(widths) > 1 and self._objective.vocabulary is None:
                self._objective = replace(self._objective, vocabulary=shared)

    def loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        *,
        bare: nn.Module | None,
        whole: bool,
        divided: float | None,
    ) -> tuple[VocabularyLoss, Any]:
        """The loss of a batch, and the student's answer."""
        asked = dict(inputs)
        stored, labels = told_in(asked), _next(asked, shift=self.shift)
        teachers = asked
        if not self.shift:
            bare, teachers = None, self._written(model, asked, stored)
        asked.pop("labels")
        student, answer = self._student_reader(model, asked, bare=bare, whole=whole)
        teacher = self._told(stored, teachers, full=isinstance(student, Tensor))
        joined = _joined(student, shift=self.shift)
        found = self._objective(joined, labels.flatten(), teacher, denominator=divided)
        return found, answer

    def _written(
        self, model: nn.Module, asked: dict[str, Any], stored: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Give the student's decoder its tokens; what the teacher is asked with."""
        if stored:
            raise TrainingError(
                "stored labels are of causal models, but the student has an encoder and a "
                "decoder: give `teacher=`"
            )
        bare = getattr(model, "module", model)
        tokens = decoder_tokens(bare, asked)
        teachers = dict(asked)
        if self._teacher is not None and self._objective.soft_weight:
            teachers[DECODER] = teachers_tokens(self._teacher, asked, tokens)
        asked[DECODER] = tokens
        return teachers

    def note(self, told: VocabularyLoss) -> None:
        """Remember both sides for the next line of the log."""
        # Numbers stay on their device: reading them would make it wait.
        sides = (told.soft, told.hard, told.counted)
        parts = torch.stack([side.sum().float() for side in sides])
        self._sums = parts if self._sums is None else self._sums + parts

    def seen(self) -> dict[str, float]:
        """Means per token since the last time; nothing where no token was seen."""
        soft, hard, count = (0.0, 0.0, 0.0) if self._sums is None else self._sums.tolist()
        self._sums = None
        if not count:
            return {}
        found = {"divergence": soft / count, "cross_entropy": hard / count}
        used = {
            "divergence": self._objective.soft_weight,
            "cross_entropy": self._objective.hard_weight,
        }
        return {name: value for name, value in found.items() if used[name]}

    def _told(
        self, stored: dict[str, Tensor], asked: Mapping[str, Any], *, full: bool
    ) -> Labels | None:
        if not self._objective.soft_weight:
            return None
        if self._teacher is None:
            return labels_of(stored)
        if stored:
            raise TrainingError(
                "there must be one teacher, but there is `teacher=` and the batch brings "
                f"{', '.join(sorted(stored))}: leave one of them out"
            )
        with torch.no_grad():
            found = self._ask(asked, full=full)
        joined = _joined(found, shift=self.shift)
        return DenseLabels(logits=joined) if isinstance(joined, Tensor) else joined

    def _ask(self, asked: Mapping[str, Any], *, full: bool) -> Tensor | HiddenLabels:
        known = ("input_ids", "attention_mask", "position_ids", DECODER)
        inputs = {name: asked[name] for name in known if name in asked}
        alignment = self._objective.alignment
        if alignment is not None:  # the same text, in the teacher's numbers
            inputs["input_ids"] = alignment.vocabulary.translated(
                inputs["input_ids"], read=inputs.get("attention_mask")
            )
        if not isinstance(self._teacher, nn.Module):
            return logits_in(self._teacher(**inputs))
        self._teacher.to(inputs["input_ids"].device)
        _check_tokens(self._teacher, inputs["input_ids"])
        bare = None if full or not self.shift else self._teacher
        return self._teacher_reader(self._teacher, inputs, bare=bare)[0]


def _joined(told: Tensor | HiddenLabels, *, shift: int) -> Tensor | HiddenLabels:
    """Sequences end to end, without the positions of each after which there is nothing."""
    if isinstance(told, Tensor):
        return told[:, : told.shape[1] - shift].flatten(0, 1)
    hidden = told.hidden[:, : told.hidden.shape[1] - shift]
    return HiddenLabels(hidden=hidden.flatten(0, 1), head=told.head)


def _next(batch: Mapping[str, Any], *, shift: int = 1) -> Tensor:
    """The labels of a batch, each at the position that predicts it."""
    if "labels" not in batch:
        raise DataError(
            f"a batch must have `labels`, but has {', '.join(sorted(batch))}: use `TokenCollator`, "
            "or another collator for causal models"
        )
    return cast(Tensor, batch["labels"])[:, shift:]


def counted(batch: Mapping[str, Any], *, shift: int = 1) -> int:
    """How many tokens of a batch count; `shift` is 0 where a label stands at its own position."""
    return int(_next(batch, shift=shift).ne(IGNORED).sum())


def _width(model: Any) -> int | None:
    found = getattr(getattr(model, "config", None), "vocab_size", None)
    return found if isinstance(found, int) else None


def _check_tokens(teacher: nn.Module, tokens: Tensor) -> None:
    getter = getattr(teacher, "get_input_embeddings", None)
    table = getter() if callable(getter) else None
    if isinstance(table, nn.Embedding) and tokens.numel():
        highest = int(tokens.max())
        if highest >= table.num_embeddings:
            raise ModelError(
                f"the teacher knows {table.num_embeddings} tokens, but the batch has token "
                f"{highest}: it has another tokenizer than the student"
            )
