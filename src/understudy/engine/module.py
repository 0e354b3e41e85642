"""Student, objective and teacher as Lightning sees them: a few short methods."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn

from understudy.contracts import Batch, Teacher
from understudy.engine.on_policy import Writing
from understudy.errors import DivergedError, TrainingError
from understudy.features.hooks import capture
from understudy.models.deployable import inner
from understudy.objective import AnyObjective, answer, scored_rows, trained
from understudy.recipe import Training
from understudy.students.sparse import Masks

Validate = Callable[[Tensor, Tensor], float]
WRITING = "writing"


class Distiller(lightning.LightningModule):
    """Student, objective and teacher as Lightning sees them. The teacher is no submodule."""

    def __init__(
        self,
        *,
        student: nn.Module,
        objective: AnyObjective,
        teacher: Teacher | None,
        training: Training,
        seed: int,
        validate: Validate | None,
        on_step: Callable[[int], None],
        name: str = "the student",
        masks: Masks | None = None,
        writing: Writing | None = None,
    ) -> None:
        """Hold the finished parts.

        Args:
            student: raw rows to answers.
            objective: batch to loss.
            teacher: None for a control.
            training: optimizer and schedules.
            seed: of everything random inside a step.
            validate: answers and labels of the validation rows to the primary score.
            on_step: called with the number of steps done.
            name: what errors call it.
            masks: of the student's weights, where they are pruned while it learns.
            writing: what the student itself writes, to learn from in place of some batches.
        """
        super().__init__()
        self.student = student
        self.objective = objective
        self.masks = masks
        # In a tuple, or torch would take a teacher that is a module for a part of this one.
        self._teacher = (teacher,)
        self._training, self._seed = training, seed
        self._writing = writing
        self._validate, self._on_step, self._name = validate, on_step, name
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        self._answers: list[tuple[Tensor, Tensor]] = []
        self.score: float | None = None

    @property
    def settled(self) -> bool:
        """Whether the student has the form by now that it will have at the end."""
        return self.masks is None or self.masks.settled

    def on_train_start(self) -> None:
        """Prune what is to be gone before the first step; a checkpoint brings its own masks."""
        if self.masks is not None and self.global_step == 0:
            self.masks.follow(self.student, step=0, steps=self._steps())

    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """A step, and then the weights are brought back to where they are held."""
        super().optimizer_step(*arguments, **named)
        # Lightning counts it when this is over.
        done, steps = self.global_step + 1, self._steps()
        if self.objective.constrained:
            epochs = self._training.epochs
            epoch = done * epochs / max(1, steps)
            self.objective.project(self.student, epoch=epoch, epochs=epochs)
        if self.masks is not None:
            self.masks.follow(self.student, step=done, steps=steps)

    def on_train_epoch_start(self) -> None:
        """Seed from (seed, process, epoch) and begin the epoch's sums."""
        torch.manual_seed((self._seed << 24) + (self.global_rank << 16) + self.current_epoch)
        self._sums, self._batches, self.score = {}, 0, None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch.

        Raises:
            TrainingError: it is not finite; step and term are named.
        """
        epoch = self.current_epoch + batch_idx / max(1, int(self.trainer.num_training_batches))
        if self._writing is not None:
            step = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
            batch = self._writing.batch(
                self.student, batch, step=step, epoch=epoch, epochs=self._training.epochs
            )
        (teacher,) = self._teacher
        # Told in its own numbers, as it would be stored, whatever the student computes in.
        with torch.autocast(self.device.type, enabled=False):
            knowledge = teacher(batch) if teacher is not None else None
        try:
            with capture(inner(self.student), self.objective.spots) as captured:
                answers = answer(self.objective, self.student, batch.inputs)
            total = self.objective(
                answers,
                knowledge,
                batch,
                epoch=epoch,
                epochs=self._training.epochs,
                features=captured.found(),
                weights=trained(self.student) if self.objective.constrained else None,
            )
        except TrainingError as error:
            remedy = (
                ". Try a lower learning rate, `gradient_clip: 1.0`, or a smaller weight"
                if isinstance(error, DivergedError)
                else ""
            )
            raise type(error)(
                f"{self._name}: training stopped in epoch {self.current_epoch + 1}, "
                f"step {self.global_step + 1}: {error}{remedy}; what was written before is whole"
            ) from error
        for name, value in (("loss", total.loss.detach()), *total.parts.items()):
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._batches += 1
        self._on_step(self.global_step + 1)
        return cast(Tensor, total.loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What the student has written goes with it."""
        if self._writing is not None:
            checkpoint[WRITING] = self._writing.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with what the student had written."""
        if self._writing is not None and WRITING in checkpoint:
            self._writing.load(checkpoint[WRITING])

    def means(self) -> dict[str, float]:
        """The epoch's mean loss and parts."""
        return {name: float(value) / self._batches for name, value in self._sums.items()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the answers: the score is taken over all rows at once."""
        del batch_idx
        if batch.labels is not None:
            # Scored as it will be deployed, whatever precision it learns in.
            with torch.autocast(batch.labels.device.type, enabled=False):
                answers, labels = scored_rows(self.objective, self.student, batch)
            self._answers.append((answers.float().cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the primary score as `validation`."""
        if self._answers and self._validate is not None:
            outputs, labels = zip(*self._answers, strict=True)
            score = self._validate(torch.cat(outputs), torch.cat(labels))
            # Every process sees all validation rows, so there is nothing to gather.
            self.log("validation", score, rank_zero_only=False, sync_dist=False, batch_size=1)
            self.score = score
        self._answers = []

    def configure_optimizers(self) -> Any:
        """AdamW or SGD with a schedule per step.

        Raises:
            TrainingError: the loader has no length.
        """
        options = self._training.optimizer
        # Adapters learn beside the student, in a group of their own.
        student = [p for p in self.student.parameters() if p.requires_grad]
        adapters = [p for p in self.objective.parameters() if p.requires_grad]
        parameters = [{"params": group} for group in (student, adapters) if group]
        optimizer: torch.optim.Optimizer
        # One kernel for all tensors: the difference is large for small students. Lightning refuses
        # it where gradients are clipped in mixed precision; float16 scales them. Nor does it go
        # together with every device.
        precision, clipped = str(self.trainer.precision), self.trainer.gradient_clip_val
        plain = precision.startswith("32") or (precision == "bf16-mixed" and not clipped)
        fused = plain and all(p.device.type == "cpu" for p in (*student, *adapters))
        if options.kind == "adamw":
            optimizer = torch.optim.AdamW(
                parameters,
                lr=options.learning_rate,
                weight_decay=options.weight_decay,
                fused=fused,
            )
        else:
            optimizer = torch.optim.SGD(
                parameters,
                lr=options.learning_rate,
                weight_decay=options.weight_decay,
                momentum=options.momentum,
                nesterov=options.nesterov,
                fused=fused,
            )
        steps = int(self.trainer.estimated_stepping_batches)
        if math.isinf(self.trainer.num_training_batches):  # known from here on
            raise TrainingError(
                "a loader must know how many batches an epoch has, since learning rates and "
                "schedules depend on it, but this one has no length: give it a `__len__`"
            )
        factor = learning_rate_factor(self._training, steps=steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch; Lightning itself refuses frozen dataclasses."""
        del dataloader_idx
        if device.type == "cpu" or not isinstance(batch, Batch):
            return batch
        moved = {
            name: value.to(device, non_blocking=True)
            for name in Batch.__dataclass_fields__
            if (value := getattr(batch, name)) is not None
        }
        return replace(batch, **moved)


def learning_rate_factor(training: Training, *, steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step: warm-up, then the schedule."""
    schedule = training.schedule
    warm = round(schedule.warm_up * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if schedule.kind == "cosine":
            return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
        if schedule.kind == "step":
            epoch = step * training.epochs / max(1, steps)
            return math.prod(
                (schedule.factor for m in schedule.milestones if epoch >= m), start=1.0
            )
        return 1.0

    return factor
