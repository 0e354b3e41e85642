"""Blocks on disk, so that only the one that is worked at is in memory."""

import ctypes
from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from understudy.blockwise.form import Piece
from understudy.blockwise.sources import Source
from understudy.blockwise.workers import Material
from understudy.errors import ModelError
from understudy.folders import make_folder, write_atomic
from understudy.models.weights import read_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelved:
    """A module whose weights lie in a file; what is held of it has shapes and no numbers.

    Attributes:
        skeleton: the module on the device `meta`.
        path: of its weights and buffers.
    """

    skeleton: nn.Module
    path: Path

    def module(self) -> nn.Module:
        """The module, as it was when it was put away.

        Raises:
            ModelError: the file is missing or damaged, or is another module's.
        """
        made = deepcopy(self.skeleton).to_empty(device="cpu")
        weights, own = read_weights(self.path), _tensors(made)
        wrong = [name for name in own if name not in weights or len(own) != len(weights)]
        if wrong:
            raise ModelError(
                f"{self.path} is not of this block (`{wrong[0]}`): divide the network anew"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])
        return made


def shelve(module: nn.Module, path: Path) -> Shelved:
    """Put a module away; buffers that its state dict leaves out are written too.

    Raises:
        ValueError: the file is not called `.safetensors`.
        RunError: it cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end with .safetensors, but got {path.name}: add it")
    tensors = {name: value.detach().cpu() for name, value in _tensors(module).items()}
    make_folder(path.parent)
    write_atomic(path, save({name: value.contiguous().clone() for name, value in tensors.items()}))
    skeleton = deepcopy(module).to("meta")
    _trim()
    return Shelved(skeleton=skeleton, path=path.resolve())


def _trim() -> None:
    # glibc keeps what was freed below something small that is still in use, as every skeleton is:
    # without this, a process that shelves a network has all of its weights in the end.
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """The material of one block from files: what a `Pair` takes for `open`.

    Attributes:
        piece: the block.
        source: its calls; of `record`, so that only a path travels.
        rows: positions to learn from.
        validation: held-out ones.
        calibration: those that candidates are planned with; two or more.
        neighbour: for `shared` candidates.
        student: the calls of the same rows in a student, for noise.
    """

    piece: Shelved
    source: Source
    rows: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    neighbour: Shelved | None = None
    student: Source | None = None

    def __call__(self) -> Material:
        """Load the block, and the rows that candidates are planned with.

        Raises:
            ModelError: a file is missing or damaged.
            RunError: there is no recording.
        """
        piece = self.piece.module()
        assert isinstance(piece, Piece)
        # Copies close their files with the material; this may be kept as long as the run.
        source = copy(self.source)
        return Material(
            piece=piece.eval(),
            call=source(self.calibration),
            source=source,
            rows=self.rows,
            validation=self.validation,
            neighbour=None if self.neighbour is None else self.neighbour.module().eval(),
            student=copy(self.student),
        )
