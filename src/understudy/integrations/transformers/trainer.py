"""A `Trainer` of Hugging Face whose loss is our objective."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from understudy.errors import DataError, ModelError, TrainingError
from understudy.integrations.transformers.collating import COLUMNS, labels_of, told_in
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


def distilled(
    trainer: Any,
    *,
    objective: TokenObjective,
    teacher: Any = None,
    teacher_tokenizer: Tokenizer | None = None,
) -> Any:
    """A class like `trainer` that learns from a teacher; it is made and used as `trainer` is.

    The loss of an optimizer step is the sum over all tokens that count, of all its micro-batches
    and processes, divided by their number: the same for any way to cut them. A token counts where
    the label after it is not -100. The logits of a Hugging Face model are never all computed where
    its hidden states and head are sure to give the same; evaluation computes them.

    Of models with an encoder and a decoder (T5, BART) a token counts where its own label is not
    -100: they are given their labels moved to the right, and are read by their logits.

    Args:
        trainer: `transformers.Trainer`, or a class made of it, for causal models and for models
            with an encoder and a decoder.
        objective: what is learned.
        teacher: a module or any callable, asked for every batch with `input_ids` and
            `attention_mask`, that answers with logits. None reads stored labels from the batch,
            as `TokenCollator` brings them.
        teacher_tokenizer: compared with the trainer's `processing_class`, if both are known.

    Returns:
        The class. Making its trainer raises `ModelError` where the tokenizers differ, or the
        teacher is the student, and `TrainingError` where the trainer has a loss of its own.

    Example:
        >>> made = distilled(Trainer, objective=TokenObjective(), teacher=big)  # doctest: +SKIP
        >>> made(model=small, args=args, train_dataset=rows).train()  # doctest: +SKIP
    """

    class Distilled(trainer):  # type: ignore[misc]
        # Older versions divide by the number of micro-batches where this does not stop them.
        loss_is_scaled_for_ga = True
        _signature_columns: list[str]

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            _refuse(self)
            self.model_accepts_loss_kwargs = True
            self._lesson = _Lesson(objective, teacher)
            self._lesson.begin(
                self.model, getattr(self, "processing_class", None), teacher_tokenizer
            )

        def get_batch_samples(
            self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
        ) -> tuple[list[Any], Tensor]:
            """The micro-batches of a step, and how many tokens count in those of all processes."""
            samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
            shift = self._lesson.shift
            count = torch.tensor([counted(batch, shift=shift) for batch in samples]).sum()
            return samples, self.accelerator.gather(count.to(device)).sum()

        def compute_loss(
            self,
            model: nn.Module,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            """The objective's loss of a micro-batch, as its part of the step's."""
            denominator = None
            if model.training and num_items_in_batch is not None:
                # Gradients are averaged over the processes afterwards.
                denominator = max(float(num_items_in_batch), 1.0) / self.accelerator.num_processes
            bare = self.accelerator.unwrap_model(model)
            plain = model is bare or isinstance(model, DistributedDataParallel)
            told, outputs = self._lesson.loss(
                model,
                inputs,
                bare=bare if plain else None,
                whole=return_outputs,
                divided=denominator,
            )
            if model.training:
                self._lesson.note(told)
            return (told.loss, outputs) if return_outputs else told.loss

        def log(self, logs: dict[str, float], *given: Any, **named: Any) -> None:
            """With the means of both sides since the last time, as this process saw them."""
            super().log(logs | self._lesson.seen() if "loss" in logs else logs, *given, **named)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            own = ("completion_mask", "id")
            stored = (*COLUMNS, *_exported(self.data_collator))
            columns = (*self._signature_columns, *own, *stored)
            self._signature_columns = list(dict.fromkeys(columns))

    Distilled.__name__ = Distilled.__qualname__ = f"Distilled{trainer.__name__}"
    return Distilled


class _Lesson:
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


def _exported(collator: Any) -> tuple[str, ...]:
    field = getattr(collator, "field", "logits")
    parts = ("ids", "logprobs", "weights", "rest", "entropy")
    return (field, *(f"{field}_{part}" for part in parts))


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


def _refuse(trainer: Any) -> None:
    """What would be left out without a word, or change what is learned."""
    if trainer.compute_loss_func is not None:
        raise TrainingError("a distilled trainer has a loss: leave `compute_loss_func` out")
    if trainer.label_smoother is not None:
        raise TrainingError(
            "`label_smoothing_factor` is not read by a distilled trainer: set "
            f"`TokenObjective(label_smoothing={trainer.args.label_smoothing_factor})`"
        )
    for name in ("tp", "cp", "sp"):
        size = getattr(trainer, f"get_{name}_size", lambda: 1)()
        if size > 1:
            raise TrainingError(
                f"a distilled trainer takes whole sequences in every process, but {name}={size} "
                "cuts them: use data parallelism"
            )
