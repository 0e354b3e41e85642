"""What is kept of a training: its history, the chosen weights, and checkpoints at epoch ends."""

import csv
import io
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from understudy.engine.module import Distiller
from understudy.folders import write_with
from understudy.recipe import Training

CHECKPOINT = "checkpoint.ckpt"


class Keeper(Callback):
    """Keeps history, the chosen weights, and a checkpoint at epoch boundaries."""

    def __init__(self, folder: Path | None, training: Training, *, higher_is_better: bool) -> None:
        """Write into `folder`, or nowhere."""
        self._folder, self._training = folder, training
        self._sign = 1.0 if higher_is_better else -1.0
        self.points: list[dict[str, Any]] = []
        self.best: float | None = None
        self.best_epoch = 0
        self.seconds = 0.0
        self._stopped = False
        self._started = self._saved = time.monotonic()
        self._best_weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Numbers and tensors, so that a checkpoint is read with `weights_only=True`."""
        return {
            "points": self.points,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self._best_weights,
            "seconds": self.elapsed(),
            "stopped": self._stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.points = list(state_dict["points"])
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._best_weights = state_dict["best_weights"]
        self.seconds, self._stopped = state_dict["seconds"], state_dict["stopped"]

    def elapsed(self) -> float:
        """Seconds of training in all sessions."""
        return self.seconds + time.monotonic() - self._started

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop again where early stopping had stopped before the checkpoint."""
        del pl_module
        trainer.should_stop = trainer.should_stop or self._stopped

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note the epoch, keep the best weights, save a checkpoint when one is due."""
        module = cast(Distiller, pl_module)
        epoch = trainer.current_epoch + 1
        score = module.score
        means = module.means()
        point: dict[str, Any] = {
            "epoch": epoch,
            "step": trainer.global_step,
            "training_loss": means.pop("loss"),
        }
        point |= {"validation": score}
        if module.masks is not None:
            point["sparsity"] = module.masks.share()
        self.points.append(point | {"parts": means})
        # A student that is still to lose weights is none to keep.
        if module.settled and self._is_better(score):
            self.best, self.best_epoch = score, epoch
            if self._training.choose == "validation":
                state = module.student.state_dict()
                self._best_weights = {k: v.detach().cpu().clone() for k, v in state.items()}
        self._stopped = trainer.should_stop
        due = time.monotonic() - self._saved >= self._training.checkpoint_seconds
        # One clock decides for all processes: a checkpoint is something that they do together.
        if self._folder is not None and trainer.strategy.broadcast(due):
            self._save(trainer, self._folder / CHECKPOINT)
            self._saved = time.monotonic()

    def _is_better(self, score: float | None) -> bool:
        if score is None or math.isnan(score):
            return False
        return self.best is None or score * self._sign > self.best * self._sign

    def _save(self, trainer: lightning.Trainer, path: Path) -> None:
        # Lightning's own writing is not atomic where the folder for temporary files is on another
        # disk, and knows nothing of a power cut.
        if trainer.is_global_zero:
            write_with(path, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(path)

    def choose(self, student: nn.Module) -> int:
        """Put the chosen weights into the student; the number of their epoch."""
        if self._training.choose == "validation" and self.best_epoch:
            student.load_state_dict(self._best_weights)
            return self.best_epoch
        return int(self.points[-1]["epoch"]) if self.points else 0


def history_csv(points: Iterable[Mapping[str, Any]]) -> str:
    """Epochs as CSV: epoch, step, training loss, validation score, sparsity, each term's mean."""
    rows = [{k: v for k, v in p.items() if k != "parts"} | dict(p["parts"]) for p in points]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["epoch"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
