"""Linear layers in eight-bit floats, for serving in torch on a GPU that multiplies them itself.

ONNX Runtime has no kernels for these on a CPU, so there is no file of this form.
"""

from copy import deepcopy

import torch
from torch import nn

from understudy.errors import ExportError, MissingExtraError
from understudy.export.load_notes import without_load_notes

# Ada and Hopper were the first to multiply e4m3 numbers.
CAPABILITY = (8, 9)
_MULTIPLE = 16  # the kernels take matrices whose sides are multiples of this


def float8_available(device: torch.device | str = "cuda") -> bool:
    """Whether this device multiplies eight-bit floats."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def to_float8(module: nn.Module, *, device: torch.device | str = "cuda") -> nn.Module:
    """A copy on the device whose linear layers hold and multiply eight-bit floats.

    Weights have one scale per output, inputs one per row, found at each call. Layers whose sides
    are no multiples of 16 stay as they are, and so do convolutions. The copy only answers; it
    cannot be trained.

    Args:
        module: what to serve; it is not changed.
        device: a CUDA device of capability 8.9 or later.

    Raises:
        ExportError: the device does not multiply eight-bit floats, or no layer fits.
        MissingExtraError: torchao is not installed.
    """
    if not float8_available(device):
        raise ExportError(
            "eight-bit floats need a CUDA device of capability 8.9 or later (Ada, Hopper), but "
            f"{_named(device)}: use `int8` or `weight_int8`, which run on every processor"
        )
    fitting = [one for one in module.modules() if _fits(one)]
    if not fitting:
        raise ExportError(
            f"eight-bit floats need linear layers whose sides are multiples of {_MULTIPLE}, but "
            f"{type(module).__name__} has none: use `int8`"
        )
    try:
        with without_load_notes():
            from torchao.quantization import (
                Float8DynamicActivationFloat8WeightConfig,
                PerRow,
                quantize_,
            )
    except ImportError as error:
        raise MissingExtraError("torchao", "quantize") from error
    copy = deepcopy(module).to(device).eval().requires_grad_(False)
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    # The kernels with a scale per row answer in bfloat16 only.
    quantize_(copy.to(torch.bfloat16), config, filter_fn=lambda one, _: _fits(one))
    return copy


def _fits(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Linear)
        and module.in_features % _MULTIPLE == 0
        and module.out_features % _MULTIPLE == 0
    )


def _named(device: torch.device | str) -> str:
    device = torch.device(device)
    if device.type != "cuda":
        return f"`{device}` is none"
    if not torch.cuda.is_available():
        return "this machine has no CUDA device"
    major, minor = torch.cuda.get_device_capability(device)
    return f"`{device}` has {major}.{minor}"
