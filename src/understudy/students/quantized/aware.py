"""A student that learns while it computes as its int8 file will.

The float teacher teaches the rounded student: what rounding costs is a part of every loss, so
the weights move to where it costs least. Afterwards the float network and the ranges that it
learned go to the exporter, which writes the int8 file with these ranges.

Paper:
    Mishra and Marr 2018, "Apprentice: Using Knowledge Distillation Techniques To Improve
    Low-Precision Network Accuracy", section 4 (its scheme C starts from trained weights, as here).
"""

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from understudy.errors import ModelError
from understudy.export.onnx import cause
from understudy.export.ranges import LearnedRange, weight_mark
from understudy.students.quantized.folded import (
    Watched,
    as_found,
    fold_norms,
    foldable,
    rounds_output,
    watch,
)
from understudy.students.quantized.rounded import (
    Rounded,
    RoundedNorm,
    RunningRange,
    plain_form,
    rounded_form,
)

FULL, REDUCED = 127, 64


@dataclass(kw_only=True, slots=True)
class _Seen:
    """The smallest and largest numbers at one place, over all rows."""

    low: float = 0.0
    high: float = 0.0

    def add(self, values: Tensor) -> None:
        low, high = values.aminmax()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    layer: nn.Module
    form: type[Rounded]
    path: str
    inputs: _Seen = field(default_factory=_Seen)
    outputs: _Seen = field(default_factory=_Seen)


def prepare_aware(
    network: nn.Module,
    rows: Tensor,
    *,
    reduce_range: bool = True,
    keep_zeros: bool = False,
    share: float = 0.01,
    batch_size: int = 64,
) -> nn.Module:
    """A copy of a trained network that computes with eight-bit weights and activations.

    Linear layers, convolutions in one and two dimensions and embeddings round their weights per
    channel (a table: in one) and their inputs to the range that they had on `rows`; the range then
    follows the training batches. A weight is rounded as it is after its batch normalisation is
    folded into it, while the normalisation itself goes on with batch statistics, without which
    training at usual rates diverges. Paths of modules and names of parameters stay. Applied to
    another network of the same architecture this gives the same structure, into which a state
    dictionary can be loaded; all ranges are buffers in it.

    The weights inside `nn.MultiheadAttention` are not rounded while it learns, as it does not call
    its layers; its file is calibrated as usual.

    Args:
        network: what to train further; it is not changed.
        rows: rows that it takes, a few hundred, from the training split.
        reduce_range: seven bits for weights, as in `quantize_int8`; give both the same.
        keep_zeros: weights that are zero now, as pruning left them, stay zero.
        share: how far a range moves towards each batch's, 0 to 1.
        batch_size: rows per pass.

    Raises:
        ModelError: the network does not take the rows or answers numbers that are not finite, was
            prepared before, or has no layer that can be rounded.
        ValueError: `share` or `batch_size` is out of range.
    """
    if not 0.0 <= share <= 1.0 or batch_size < 1:
        raise ValueError(
            f"`0 <= share <= 1` and `batch_size >= 1` must hold, but got {share=}, {batch_size=}"
        )
    name = type(network).__name__
    if any(isinstance(module, Rounded) for module in network.modules()):
        raise ModelError(f"{name} is prepared for eight bits already: `finish_aware` it first")
    if len(rows) == 0:
        raise ModelError(f"the ranges of {name} need rows, but got 0; pass a few hundred")
    copy, folded = deepcopy(network), deepcopy(network)
    with as_found(folded):
        try:
            pairs = foldable(folded, watch(folded, rows[:2]))
            fold_norms(folded, pairs)
            seen = watch(folded, rows[:2])
            places = _places(folded, seen)
            _measure(folded, places, rows, batch_size=batch_size)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ModelError(
                f"{name} does not take these {rows.dtype} rows {list(rows.shape)}: "
                f"{cause(error)}. Pass rows as its `forward` takes them"
            ) from error
    if not places:
        raise ModelError(
            f"{name} has no linear layer, convolution or embedding of torch's own that it uses, "
            "so that eight bits change nothing: leave this step out"
        )
    for place in places:
        _check_finite(place)
        layer = copy.get_submodule(place.path)
        given = place.outputs if rounds_output(place.layer, seen) else None
        norm = copy.get_submodule(pairs[place.path]) if place.path in pairs else None
        _round(layer, place, share=share, largest=REDUCED if reduce_range else FULL)
        _behind(layer, norm, None if given is None else _range(given, layer, share=share))
        _keep_zeros(layer, keep=keep_zeros)
    for module in copy.modules():
        _fuse(module, may=False)
    return copy


def finish_aware(network: nn.Module) -> tuple[nn.Module, tuple[LearnedRange, ...]]:
    """The float network to export, and the ranges that its int8 file shall use.

    Args:
        network: what `prepare_aware` gave, after training; or a module around it. Not changed.

    Returns:
        A copy with plain layers under the same paths, where batch normalisation is folded and has
        left an `nn.Identity`; and one range per layer for `quantize_int8`.

    Raises:
        ModelError: it was not prepared.
    """
    copy = deepcopy(network)
    layers = [module for module in copy.modules() if isinstance(module, Rounded)]
    if not layers:
        raise ModelError(
            f"{type(network).__name__} was not prepared for eight bits: `prepare_aware` it first"
        )
    ranges: list[LearnedRange] = []
    paths = {id(module): path for path, module in copy.named_modules()}
    for layer in layers:
        given, taken = layer.outputs_range, layer.inputs_range
        norms = layer.behind
        if layer.kept is not None:
            with torch.no_grad():
                layer.weight.mul_(layer.kept)
        if norms:
            given = norms[0].outputs_range
            fold_norms(copy, {paths[id(layer)]: paths[id(norms[0])]})
        if taken is not None:
            ranges.append(
                LearnedRange(
                    weight=weight_mark(_numbers(layer.weight)),
                    inputs=taken.bounds(),
                    outputs=None if given is None else given.bounds(),
                )
            )
        del layer.inputs_range, layer.outputs_range, layer.kept, layer.largest, layer.behind
        layer.__class__ = plain_form(layer)  # type: ignore[assignment]
    for module in copy.modules():
        _fuse(module, may=True)
    return copy, tuple(ranges)


# What PyTorch's own transformers look at before they compute a layer in one fused step, which reads
# its weights and calls no layer, so that nothing would be rounded at rest.
_FUSED = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}


def _fuse(module: nn.Module, *, may: bool) -> None:
    """Forbid the fused step, or allow it again as it was."""
    for kind, (name, never) in _FUSED.items():
        if not isinstance(module, kind) or not hasattr(module, name):
            continue
        if not may:
            module.fused_before = getattr(module, name)
            setattr(module, name, never)
        elif hasattr(module, "fused_before"):
            setattr(module, name, module.fused_before)
            del module.fused_before


def _numbers(weight: Tensor) -> np.typing.NDArray[np.float32]:
    return weight.detach().cpu().float().contiguous().numpy()


def _places(network: nn.Module, seen: Watched) -> list[_Place]:
    found = []
    for path, layer in network.named_modules():
        form = rounded_form(layer)
        constant = isinstance(layer, nn.Embedding) and id(layer) in seen.fixed
        if form is not None and seen.calls.get(id(layer)) and not constant:
            found.append(_Place(layer=layer, form=form, path=path))
    return found


def _measure(network: nn.Module, places: list[_Place], rows: Tensor, *, batch_size: int) -> None:
    hooks = []
    for place in places:

        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor, at: _Place = place) -> None:
            if inputs[0].is_floating_point():
                at.inputs.add(inputs[0])
                at.outputs.add(output)

        hooks.append(place.layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            for at in range(0, len(rows), batch_size):
                network(rows[at : at + batch_size])
    finally:
        for one in hooks:
            one.remove()


def _keep_zeros(layer: nn.Module, *, keep: bool) -> None:
    assert isinstance(layer, Rounded)
    layer.register_buffer("kept", layer.weight.detach() != 0 if keep else None)


def _check_finite(place: _Place) -> None:
    ends = (place.inputs.low, place.inputs.high, place.outputs.low, place.outputs.high)
    if not np.isfinite(ends).all():
        raise ModelError(
            f"ranges must be finite, but `{place.path}` takes or gives numbers from {min(ends)} "
            f"to {max(ends)} on these rows; look for rows or weights that are no numbers"
        )


def _round(layer: nn.Module, place: _Place, *, share: float, largest: int) -> None:
    layer.__class__ = place.form
    assert isinstance(layer, Rounded)
    table = isinstance(layer, nn.Embedding)
    layer.largest = FULL if table else largest
    layer.inputs_range = None if table else _range(place.inputs, layer, share=share)


def _behind(layer: nn.Module, norm: nn.Module | None, given: RunningRange | None) -> None:
    """What is rounded after a layer is rounded after its normalisation, where it has one."""
    assert isinstance(layer, Rounded)
    layer.outputs_range = given if norm is None else None
    layer.behind = ()
    if norm is not None:
        norm.__class__ = RoundedNorm
        assert isinstance(norm, RoundedNorm)
        norm.outputs_range = given
        # Within a tuple it is no second path to the same parameters.
        layer.behind = (norm,)


def _range(seen: _Seen, layer: nn.Module, *, share: float) -> RunningRange:
    assert isinstance(layer, Rounded)
    made = RunningRange(low=seen.low, high=seen.high, share=share)
    return made.train(layer.training).to(layer.weight.device)
