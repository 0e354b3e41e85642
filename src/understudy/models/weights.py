"""Weights from files into modules and back. Nothing is unpickled beyond plain tensors."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.folders import write_atomic
from understudy.models.deployable import Rescale

RESCALE = "understudy.rescale"
# What data-parallel, compiled and wrapped modules put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a foreign `.pt`/`.pth`/`.th`/`.bin` checkpoint.

    A foreign checkpoint is read with `weights_only=True`, and a state dict inside a usual wrapper
    (`state_dict`, `model`, ...) is found.

    Raises:
        ModelError: the file is missing, damaged, or needs code to be run in order to be read.
    """
    if not path.is_file():
        raise ModelError(f"the weights {path} do not exist: correct the path in the recipe")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's version: it is read or it is not
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in every way there is
        raise ModelError(_unreadable(path, error)) from error
    return _state_dict(content, path)


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if "TorchScript" in text or (isinstance(error, UnpicklingError) and "global" in text.lower()):
        return (
            f"{path} holds more than tensors, and reading it would run code from the file: load "
            "it where you trust it and save `model.state_dict()` with safetensors"
        )
    cause = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, UnpicklingError | KeyError):
        cause = "it is no PyTorch checkpoint, or a damaged one"
    return f"{path} cannot be read as weights ({cause}): copy it again"


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelError(
            f"{path} must hold a state dict (names to tensors), but holds "
            f"{type(content).__name__}: save `model.state_dict()`"
        )
    return tensors


def load_into(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into a module whose names and shapes they must match.

    The prefix `module.` of data-parallel training goes where it stands between the two. A tensor
    that the module has under several names (a tied head) may have any of them in the file.

    Raises:
        ModelError: a readable list of what is missing, unexpected and of another shape.
    """
    own = module.state_dict()
    for prefix in _PREFIXES:
        if not set(own) & set(weights) and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    weights = _with_twins(module, weights, source)
    missing = sorted(set(own) - set(weights))
    unexpected = sorted(set(weights) - set(own))
    shapes = [
        f"{name} (file {list(weights[name].shape)}, model {list(own[name].shape)})"
        for name in sorted(set(own) & set(weights))
        if own[name].shape != weights[name].shape
    ]
    if missing or unexpected or shapes:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        lines = [f"  {word}: {_some(names)}" for word, names in parts if names]
        raise ModelError(
            f"the weights in {source} do not fit the model "
            f"({len(set(own) & set(weights)) - len(shapes)} of {len(own)} tensors do):\n"
            + "\n".join(lines)
            + "\n  build the model with the arguments it was trained with"
        )
    module.load_state_dict(dict(weights))


def _twins(module: nn.Module) -> list[list[str]]:
    """The names of every tensor that a module has under several."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [several for several in names.values() if len(several) > 1]


def _with_twins(
    module: nn.Module, weights: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    """The same weights, under all the names of each."""
    found = dict(weights)
    for names in _twins(module):
        there = [name for name in names if name in weights]
        if not there:
            continue
        first, *others = there
        for name in others:
            if not torch.equal(weights[name], weights[first]):
                raise ModelError(
                    f"{first} and {name} are one tensor in the model, but {source} holds two "
                    "different ones: build the model with weights that are not tied"
                )
        found |= dict.fromkeys(names, weights[first])
    return found


def _some(names: list[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def save_weights(module: nn.Module, path: Path, *, rescale: nn.Module | None = None) -> None:
    """A module's state dict as safetensors, atomically; tied tensors stand in it once.

    `rescale` is what stands behind a network of a regression; its numbers go into the metadata,
    so that whoever loads the network knows in which units it answers.
    """
    again = {name for names in _twins(module) for name in names[1:]}
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
        if name not in again
    }
    metadata = None
    if isinstance(rescale, Rescale):
        metadata = {RESCALE: json.dumps(rescale.constants())}
    write_atomic(path, save(tensors, metadata))


def read_rescale(path: Path) -> Rescale | None:
    """The units that a file of ours says its network answers in; None where it says nothing."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(RESCALE)
    return None if text is None else Rescale(**json.loads(text))


def weights_fingerprint(module: nn.Module) -> str:
    """16 hex digits over the names, shapes and values of everything in the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
