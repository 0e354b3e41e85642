"""Layers that compute as their eight-bit forms will, and learn through the rounding.

The gradient passes the rounding as if it were not there and stops where a number was clipped
(the straight-through estimator). What is learned are the layer's own float parameters under their
own names; the ranges of its activations are buffers, so a checkpoint holds all of it.

Paper:
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 255
_TINY = torch.finfo(torch.float32).tiny


class RunningRange(nn.Module):
    """Rounds activations to 256 steps between `low` and `high`, zero among them.

    In training mode the two follow the smallest and the largest number of each batch as an
    exponential moving average; in evaluation mode they stand still.

    Args:
        low: where the range begins.
        high: where it ends.
        share: how far it moves towards each batch, 0 to 1.
    """

    low: Tensor
    high: Tensor

    def __init__(self, *, low: float, high: float, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """The values after rounding, in their own type."""
        if self.training:
            self._follow(values.detach())
        low, high = self.low.clamp(max=0.0), self.high.clamp(min=0.0)
        step = ((high - low) / STEPS).clamp(min=_TINY)
        zero = (-low / step).round().clamp(0, STEPS).to(torch.int32)
        held = torch.fake_quantize_per_tensor_affine(values.float(), step, zero, 0, STEPS)
        return held.to(values.dtype)

    def _follow(self, values: Tensor) -> None:
        low, high = values.aminmax()
        self.low.lerp_(low.float(), self.share)
        self.high.lerp_(high.float(), self.share)

    def bounds(self) -> tuple[float, float]:
        """The range as two numbers, zero in it."""
        return min(0.0, float(self.low)), max(0.0, float(self.high))


def rounded_channels(weight: Tensor, *, axis: int, largest: int) -> Tensor:
    """A weight in whole steps of its own per channel, from -largest to +largest."""
    others = [at for at in range(weight.ndim) if at != axis]
    scale = weight.detach().float().abs().amax(dim=others) / largest
    scale = torch.where(scale < _TINY, torch.ones_like(scale), scale)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    held = torch.fake_quantize_per_channel_affine(
        weight.float(), scale, zero, axis, -largest, largest
    )
    return held.to(weight.dtype)


class Rounded(nn.Module):
    """What all rounded layers have beside their own: it is put on to a layer that is there.

    Attributes:
        inputs_range: the range of what it takes; None for a table.
        outputs_range: the range of what it gives, where that is rounded too.
        largest: the largest whole number that a weight is stored as, 127 or 64.
        behind: the batch normalisation that it will be deployed in one with, or nothing.
        kept: which weights may differ from zero; None lets all.
    """

    weight: Tensor
    inputs_range: RunningRange | None
    outputs_range: RunningRange | None
    kept: Tensor | None
    largest: int
    behind: "tuple[RoundedNorm, ...]"
    axis = 0

    def rounded_weight(self) -> Tensor:
        """The weight as it will be deployed, but for the scale of a normalisation behind it."""
        weight = self.weight if self.kept is None else self.weight * self.kept
        if not self.behind:
            return rounded_channels(weight, axis=self.axis, largest=self.largest)
        # It is deployed in one with its normalisation and rounded so, while that still learns.
        scale = self.behind[0].scale().reshape(-1, *[1] * (weight.ndim - 1)).to(weight.dtype)
        return rounded_channels(weight * scale, axis=0, largest=self.largest) / scale

    def taken(self, inputs: Tensor) -> Tensor:
        """The inputs after rounding."""
        return inputs if self.inputs_range is None else self.inputs_range(inputs)

    def given(self, outputs: Tensor) -> Tensor:
        """The outputs after rounding, where they are rounded."""
        return outputs if self.outputs_range is None else self.outputs_range(outputs)


class RoundedNorm(nn.BatchNorm2d):
    """A batch normalisation that will be folded into the layer before it.

    Attributes:
        outputs_range: the range of what it gives, where that is rounded.
    """

    outputs_range: RunningRange | None

    def scale(self) -> Tensor:
        """What it multiplies each channel with in evaluation mode, without gradient."""
        assert self.running_var is not None
        scale = (self.running_var + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight.detach()
        return torch.where(scale.abs() < _TINY, torch.ones_like(scale), scale)

    def _check_input_dim(self, input: Tensor) -> None:
        # It stands for normalisations of other dimensions too; they checked it when watched.
        del input

    def forward(self, input: Tensor) -> Tensor:
        """Normalised maps."""
        outputs = super().forward(input)
        return outputs if self.outputs_range is None else self.outputs_range(outputs)


class RoundedLinear(Rounded, nn.Linear):
    """`nn.Linear` in eight bits."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer."""
        return self.given(F.linear(self.taken(input), self.rounded_weight(), self.bias))


class RoundedConv1d(Rounded, nn.Conv1d):
    """`nn.Conv1d` in eight bits."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer."""
        taken = self.taken(input)
        return self.given(self._conv_forward(taken, self.rounded_weight(), self.bias))


class RoundedConv2d(Rounded, nn.Conv2d):
    """`nn.Conv2d` in eight bits."""

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer."""
        taken = self.taken(input)
        return self.given(self._conv_forward(taken, self.rounded_weight(), self.bias))


class RoundedEmbedding(Rounded, nn.Embedding):
    """`nn.Embedding` in eight bits, with one scale, as a table is looked up in the graph."""

    def rounded_weight(self) -> Tensor:
        """The table as it will be deployed."""
        weight = self.weight if self.kept is None else self.weight * self.kept
        flat = rounded_channels(weight.reshape(1, -1), axis=0, largest=self.largest)
        return flat.reshape(weight.shape)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the table."""
        return F.embedding(
            input,
            self.rounded_weight(),
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )


class RoundedTransposed(Rounded):
    """A linear layer whose weight is `[in, out]`, as GPT-2's `Conv1D`, in eight bits."""

    bias: Any
    axis = 1

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer."""
        return self.given(self.taken(x) @ self.rounded_weight() + self.bias)


_FORMS: dict[type[nn.Module], type[Rounded]] = {
    nn.Linear: RoundedLinear,
    nn.Conv1d: RoundedConv1d,
    nn.Conv2d: RoundedConv2d,
    nn.Embedding: RoundedEmbedding,
}


def rounded_form(layer: nn.Module) -> type[Rounded] | None:
    """The class that computes as this layer in eight bits; None where there is none."""
    kind = type(layer)
    if kind not in _FORMS and kind.__name__ == "Conv1D" and hasattr(layer, "nf"):
        _FORMS[kind] = type("RoundedConv1D", (RoundedTransposed, kind), {})
    return _FORMS.get(kind)


def plain_form(layer: Rounded) -> type[nn.Module]:
    """The class that a rounded layer had before."""
    kind = type(layer)
    return next(plain for plain, rounded in _FORMS.items() if rounded is kind)
