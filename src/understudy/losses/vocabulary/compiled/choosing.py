"""Whether a loss is computed by Triton's kernels: what was asked for, and what there is."""

import os
import warnings
from functools import cache
from importlib import import_module

import torch

from understudy.errors import MissingExtraError


def takes_kernels(kernels: str, device: torch.device) -> bool:
    """Whether tensors of this device go through the kernels.

    Args:
        kernels: `auto` for CUDA tensors where Triton is installed and runs, `plain` for none,
            `triton` for all.
        device: where the tensors are.

    Raises:
        MissingExtraError: `triton` was asked for, and is not installed.
        ValueError: `triton` was asked for on a device that it cannot run on.
    """
    if kernels == "plain":
        return False
    if kernels == "auto":
        return device.type == "cuda" and _installed() and _starts(device)
    if not _installed():
        raise MissingExtraError("triton", "triton")
    if device.type != "cuda" and not interpreted():
        raise ValueError(
            "`kernels: triton` must have CUDA tensors, but got tensors on "
            f"{device.type}: use `auto`, or set TRITON_INTERPRET=1 before the first import of "
            "Triton for its slow interpreter"
        )
    return True


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels; Triton reads that when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed() -> bool:
    try:
        import_module("triton")
    except ImportError:
        return False
    return True


@cache
def _starts(device: torch.device) -> bool:
    """Whether a first kernel runs: Triton also needs a C compiler, and a GPU that it knows."""
    try:
        import_module("understudy.losses.vocabulary.compiled.launching").try_out(device)
    except Exception as error:  # whatever Triton, its compiler or the driver raise
        warnings.warn(
            f"Triton's kernels do not start on {device} ({error}): vocabulary losses are computed "
            "by PyTorch's own operations, which is slower",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return True
