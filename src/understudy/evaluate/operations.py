"""How many operations a network takes, as a whole and module by module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

from understudy.evaluate.frozen import frozen


class Operations:
    """Floating-point operations that were counted; a multiply-add counts as two.

    Matrix products, convolutions and attention are counted, as papers do; normalisation,
    activations and additions are not. A recurrent layer, which PyTorch runs as one closed
    operation, counts by its formula: every weight is multiplied and added once per position.

    Attributes:
        by_path: of every module that ran, with what lies inside it; the root's path is empty.
    """

    def __init__(self) -> None:
        self.by_path: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Of the whole network."""
        return self.by_path.get("", 0)


@contextmanager
def counting(network: nn.Module) -> Iterator[Operations]:
    """Count what the network does inside; the counts are there behind it.

    Evaluation mode and gradients are the caller's affair.
    """
    found = Operations()
    recurrent = {p: part for p, part in network.named_modules() if isinstance(part, nn.RNNBase)}
    formulas = dict.fromkeys(recurrent, 0)

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            given = args[0] if args else kwargs.get("input")
            formulas[path] += recurrent_operations(module, given) or 0

        return hook

    counter = FlopCounterMode(display=False)
    fast = torch.backends.mha.get_fastpath_enabled()
    # Fused attention and fused encoder layers would be counted as nothing at all.
    torch.backends.mha.set_fastpath_enabled(False)
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        for path, part in recurrent.items():
            hook = part.register_forward_hook(note(path), with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(frozen(network))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(counter)
        yield found
    root = type(network).__name__
    found.by_path = {
        key.removeprefix(root).removeprefix("."): sum(int(n) for n in kinds.values())
        for key, kinds in counter.get_flop_counts().items()
        if key != "Global"
    }
    found.by_path[""] = int(counter.get_total_flops())
    for path, formula in formulas.items():
        # In some forms PyTorch runs such a layer as products, which would count twice.
        more = formula - (found.by_path.get(path, 0) if path else found.total)
        for above in _upwards(path):
            found.by_path[above] = found.by_path.get(above, 0) + more


def recurrent_operations(module: nn.Module, given: Any) -> int | None:
    """Of one recurrent layer for all rows that it is given; None where it is no such layer."""
    if isinstance(given, PackedSequence):
        given = given.data
    if not isinstance(module, nn.RNNBase) or not isinstance(given, Tensor):
        return None
    weights = sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
    return 2 * weights * (given.numel() // module.input_size)


def _upwards(path: str) -> list[str]:
    """A path and all that it lies in, up to the root."""
    parts = path.split(".") if path else []
    return [".".join(parts[:size]) for size in range(len(parts), -1, -1)]
