"""What a processor can compute in, as far as that is known without timing it."""

import torch


def without_bfloat16(device: torch.device) -> str | None:
    """Why nothing is gained by bfloat16 on a device; None where it may be worth timing.

    Processors of the x86 family without AVX-512 go by way of float32, element by element: ten
    times slower than float32 itself, and slower still to find out by timing.
    """
    if device.type != "cpu":
        return None
    try:
        able = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # built without oneDNN: only timing can tell
        return None
    return None if able else "this processor has no instructions for bfloat16"
