"""`fit`: finished parts in, a trained student out. Lightning's Trainer is made here only."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from understudy.allocator import keep_freed_memory
from understudy.contracts import Batch, Teacher
from understudy.engine.keeper import CHECKPOINT, Keeper, history_csv
from understudy.engine.module import Distiller, Validate
from understudy.engine.on_policy import OnPolicy, Writing
from understudy.engine.precision import AUTO, LIGHTNING, pick
from understudy.errors import MissingExtraError, TrainingError
from understudy.folders import make_folder, write_atomic
from understudy.objective import AnyObjective
from understudy.recipe import EarlyStopping as Stop
from understudy.recipe import Training
from understudy.students.sparse import Masks, Sparsity

# What the recipe says in its own words; the rest of `training.trainer` is Lightning's.
EMPTY = "a loader must give at least one batch per epoch, but this gave none"
OURS = frozenset({"max_epochs", "callbacks", "gradient_clip_val", "logger"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What a training came to; the module that was passed in holds the chosen weights.

    Attributes:
        points: per validated epoch its number, step, mean loss, parts and validation score, and
            the share of weights that are zero where they are pruned.
        epoch: whose weights were kept, counted from 1.
        seconds: of training, over all sessions, a live teacher's included.
        written: how many batches were given, written by the student and replayed; None where it
            does not write.
    """

    points: tuple[Mapping[str, Any], ...]
    epoch: int
    seconds: float
    written: Mapping[str, int] | None = None


def fit(
    *,
    student: nn.Module,
    objective: AnyObjective,
    teacher: Teacher | None,
    training: Training,
    loader: Iterable[Batch],
    validation: Iterable[Batch] | None,
    validate: Validate | None,
    higher_is_better: bool = True,
    seed: int = 0,
    folder: Path | None = None,
    on_step: Callable[[int], None] = lambda _: None,
    name: str = "the student",
    sparsity: Sparsity | None = None,
    writing: Writing | None = None,
) -> Fitted:
    """Train `student` in place and leave the chosen weights in it.

    The global random state of torch is left as it was.

    Args:
        student: raw rows to answers; trained on whatever device Lightning chooses.
        objective: batch to loss.
        teacher: what the objective compares with; None for a control.
        training: everything about optimization; its `trainer` goes to Lightning as it is.
        loader: training batches; one whose `sampler` has `set_epoch` is told the epoch. With
            `precision: auto` its first batch is looked at before.
        validation: validation batches, in any order.
        validate: answers and labels of all validation rows to the primary score.
        higher_is_better: of that score.
        seed: of everything random inside a step.
        folder: for checkpoints and logs; a checkpoint found there is gone on from.
        on_step: called with the number of steps done.
        name: what errors call it.
        sparsity: how many of the student's weights become zero while it learns; they are zero
            exactly at the end. Weights of an epoch before all were gone are not chosen, and early
            stopping waits for it.
        writing: what a language model itself writes, to learn from in place of some batches; the
            teacher must be live. None: as `training.on_policy` says, where there is a teacher.

    Raises:
        ModelError: no weight can be pruned so, or the student cannot write.
        TrainingError: a loss that is not finite, a loader without batches or without length, or
            several processes that would write together.
        KeyboardInterrupt: Ctrl-C; the last checkpoint is whole.
    """
    keep_freed_memory()
    if training.precision == AUTO:
        training = _picked(student, objective, training, loader, seed)
    if writing is None and training.on_policy is not None and teacher is not None:
        writing = Writing(OnPolicy.of(training.on_policy), seed=seed)
    keeper = Keeper(folder, training, higher_is_better=higher_is_better)
    callbacks: list[Callback] = [keeper]
    masks = None if sparsity is None else Masks(student, sparsity)
    if training.early_stopping is not None and validation is not None and validate is not None:
        callbacks.append(_early_stopping(training.early_stopping, higher_is_better))
    module = Distiller(
        student=student,
        objective=objective,
        teacher=teacher,
        training=training,
        seed=seed,
        validate=validate,
        on_step=on_step,
        name=name,
        masks=masks,
        writing=writing,
    )
    objective.begin(student)
    checkpoint = folder / CHECKPOINT if folder is not None else None
    resume = checkpoint if checkpoint is not None and checkpoint.is_file() else None
    if folder is not None:
        make_folder(folder)
    with quiet_lightning(), _listening(), torch.random.fork_rng(devices=[]):
        # Somebody's loader may draw its first order before the first epoch begins.
        torch.manual_seed(seed << 24)
        trainer = _trainer(training, callbacks, folder, validated=validation is not None)
        if writing is not None and trainer.world_size > 1:
            raise TrainingError(
                f"on-policy batches are written by one process, but there are {trainer.world_size}:"
                " train in one, or leave `on_policy` out"
            )
        # A plain iterable: Lightning looks for shuffling in what it takes for a DataLoader.
        rows = None if validation is None else _Plain(validation)
        # Lightning leaves a module in the mode that it came in: a student built or scored before
        # would train without dropout and with frozen batch statistics.
        module.train()
        trainer.fit(module, loader, rows, ckpt_path=resume, weights_only=True)
    if not keeper.points:
        raise TrainingError(EMPTY)
    epoch = keeper.choose(student)
    student.cpu().eval()
    if masks is not None and not masks.settled:
        # Ended before its time, by a limit of Lightning's: what was asked for is still so.
        masks.cpu().finish(student)
    if folder is not None and trainer.is_global_zero:
        write_atomic(folder / "log.csv", history_csv(keeper.points))
    return Fitted(
        points=tuple(keeper.points),
        epoch=epoch,
        seconds=keeper.elapsed(),
        written=None if writing is None else writing.counts,
    )


def _picked(
    student: nn.Module,
    objective: AnyObjective,
    training: Training,
    loader: Iterable[Batch],
    seed: int,
) -> Training:
    """With the faster precision; who trains several students to compare them picks before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed << 24)
        first = next(iter(loader), None)
    if first is None:
        raise TrainingError(EMPTY)
    found = pick(student, objective, first.inputs, training)
    return training.model_copy(update={"precision": found.precision})


class _Stopping(EarlyStopping):
    """Early stopping of a student that has its final form: one that is pruned gets worse first."""

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Count the epoch, if it counts."""
        if cast(Distiller, pl_module).settled:
            super().on_validation_end(trainer, pl_module)


def _early_stopping(stop: Stop, higher_is_better: bool) -> EarlyStopping:
    return _Stopping(
        "validation",
        min_delta=stop.minimum,
        patience=stop.patience,
        mode="max" if higher_is_better else "min",
        # Right after the validation, so that its count is in the checkpoint of the same epoch.
        check_on_train_epoch_end=False,
    )


def _trainer(
    training: Training,
    callbacks: list[Callback],
    folder: Path | None,
    *,
    validated: bool,
) -> lightning.Trainer:
    logger: Any = False
    if training.tensorboard and folder is not None:
        try:
            logger = TensorBoardLogger(str(make_folder(folder)), name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
    settings: dict[str, Any] = {
        # One process trains on one device; several are started by torchrun, and say so.
        "devices": 1,
        "max_epochs": training.epochs,
        "callbacks": callbacks,
        "logger": logger,
        "gradient_clip_val": training.gradient_clip,
        "check_val_every_n_epoch": training.validate_every,
        "limit_val_batches": 1.0 if validated else 0,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        # Our loader takes its own share of every epoch; see MemoryLoader.
        "use_distributed_sampler": False,
        "precision": LIGHTNING[training.precision],
    }
    settings |= training.trainer
    alone = str(settings["devices"]) == "1" and str(settings.get("num_nodes", 1)) == "1"
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and not alone and settings.get("strategy", "ddp") == "ddp":
        # What lies behind the layers that are read has no gradient, nor has what a weight of 0
        # switches off; plain DDP would wait for it.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    return lightning.Trainer(**settings)


@contextmanager
def quiet_lightning() -> Any:
    """Lightning's advice is for people who write their own loop; ours is said elsewhere."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 with torch 2.13; neither is ours to mend.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _listening() -> Iterator[None]:
    """Lightning turns Ctrl-C into an exit, and hears no other one; ours is the caller's affair."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop


class _Plain:
    """Something to iterate over, and nothing else."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)
