"""What is kept of a training: its history, the chosen weights, and checkpoints at epoch ends."""

import csv
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from understudy.engine.module import Distiller
from understudy.models.weights import load_into, read_weights, save_weights
from understudy.recipe import Training

CHECKPOINT, BEST = "checkpoint.ckpt", "best.safetensors"


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
        self._started = self._saved = time.monotonic()
        self._best_weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, so that a checkpoint is read with `weights_only=True`."""
        return {
            "points": self.points,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "seconds": self.elapsed(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.points = list(state_dict["points"])
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.seconds = state_dict["seconds"]

    def elapsed(self) -> float:
        """Seconds of training in all sessions."""
        return self.seconds + time.monotonic() - self._started

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note the epoch, keep the best weights, save a checkpoint when one is due."""
        module = cast(Distiller, pl_module)
        epoch = trainer.current_epoch + 1
        score = module.score
        means = module.means()
        point = {"epoch": epoch, "step": trainer.global_step, "training_loss": means.pop("loss")}
        self.points.append(point | {"validation": score, "parts": means})
        if score is not None and (self.best is None or score * self._sign > self.best * self._sign):
            self.best, self.best_epoch = score, epoch
            if self._training.choose == "validation" and trainer.is_global_zero:
                self._keep_best(module)
        if self._folder is None:
            return
        if time.monotonic() - self._saved >= self._training.checkpoint_seconds:
            trainer.save_checkpoint(self._folder / CHECKPOINT)
            self._saved = time.monotonic()

    def _keep_best(self, module: Distiller) -> None:
        if self._folder is not None:
            save_weights(module.student, self._folder / BEST)
        else:
            state = module.student.state_dict()
            self._best_weights = {k: v.detach().clone() for k, v in state.items()}

    def choose(self, student: nn.Module) -> int:
        """Put the chosen weights into the student; the number of their epoch."""
        if self._training.choose == "validation" and self.best_epoch:
            weights = (
                self._best_weights if self._folder is None else read_weights(self._folder / BEST)
            )
            load_into(student, weights, source=BEST)
            return self.best_epoch
        return int(self.points[-1]["epoch"]) if self.points else 0


def history_csv(points: Iterable[Mapping[str, Any]]) -> str:
    """Epochs as CSV: epoch, step, training loss, validation score, then each term's mean."""
    rows = [{k: v for k, v in p.items() if k != "parts"} | dict(p["parts"]) for p in points]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["epoch"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
