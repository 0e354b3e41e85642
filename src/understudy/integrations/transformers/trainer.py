"""A `Trainer` of Hugging Face whose loss is our objective."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from understudy.errors import TrainingError
from understudy.integrations.transformers.collating import COLUMNS
from understudy.integrations.transformers.lesson import Lesson, counted
from understudy.integrations.transformers.objective import TokenObjective
from understudy.integrations.transformers.tokenizers import Tokenizer


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
            self._lesson = Lesson(objective, teacher)
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


def _exported(collator: Any) -> tuple[str, ...]:
    field = getattr(collator, "field", "logits")
    parts = ("ids", "logprobs", "weights", "rest", "entropy")
    return (field, *(f"{field}_{part}" for part in parts))


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
