"""Losses on where a layer is active: attention summed over channels, and each channel by itself.

Features are maps `[batch, channels, height, width]` or tokens `[batch, tokens, width]`; pixels and
tokens are called places. Every function gives one value per row, in at least float32. The classes
below them only hold constants.
"""

from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.losses.constants import check_one_of
from understudy.losses.rows import unit
from understudy.losses.sparse import check_temperature
from understudy.losses.spatial import NOTHING, matched, same_places

_FORMS: Final = ("code", "paper")


def attention_transfer(
    student: Float[Tensor, " batch *features"],
    teacher: Float[Tensor, " batch *other"],
    *,
    exponent: float = 2.0,
    form: Literal["code", "paper"] = "code",
) -> Float[Tensor, " batch"]:
    """Squared difference of two attention maps of length 1, mean over places; no unit.

    A layer's attention map is the mean over channels of |feature|^exponent, divided by its length.
    So the number of channels may differ and the size of the features does not count, only where
    they are large.

    Both published forms take these maps. The authors' code has the mean of the squares, and its
    weight is 1000; the paper has half of the distance itself, not squared. It is larger by far (on
    maps of 8x8 by 23 times or more), and its gradient does not fall as the two get closer.

    Args:
        student: features; the gradient reaches only these.
        teacher: features with the same places, and any channels.
        exponent: 1 or more; the larger, the more the map is that of the strongest channel.
        form: "code", or "paper" for half of the distance.

    Returns:
        One value per row; where a side is zero everywhere, its map is zero too.

    Raises:
        ValueError: rows or places differ, there is one place only, or a constant is out of range.

    Paper:
        Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", section 3.1, equation
        2. Usual weight 1000 for each pair of layers, beside 1 on `hard_label`; it needs layers
        of the teacher.

    Example:
        >>> student = torch.tensor([[[[1.0, 0.0]]]])
        >>> teacher = torch.tensor([[[[0.0, 1.0]], [[0.0, 7.0]]]])
        >>> attention_transfer(student, teacher)
        tensor([1.])
        >>> attention_transfer(student, teacher, form="paper")
        tensor([0.7071])
    """
    _check_attention(exponent, form)
    own, goal = same_places(student, teacher)
    squares = (_attention(own, exponent) - _attention(goal, exponent)).square()
    if form == "code":
        return squares.mean(dim=1)
    total = squares.sum(dim=1)
    # A root has no slope at 0, and infinity times 0 is NaN.
    apart = total > 0
    return torch.where(apart, torch.where(apart, total, 1.0).sqrt(), 0.0) / 2


def channel_wise(
    student: Float[Tensor, " batch *features"],
    teacher: Float[Tensor, " batch *features"],
    *,
    temperature: float = 4.0,
) -> Float[Tensor, " batch"]:
    """Divergence of the student's places from the teacher's, mean over channels, in nats times T².

    Each channel becomes a distribution over places (a softmax of its numbers over T), and
    `T² * KL(teacher || student)` compares them, so a channel's size does not count but its peaks
    do. `attention_transfer` sees one map per layer; this one sees every channel, so both sides
    need the same channels.

    Args:
        student: features, projected to the teacher's shape; the gradient reaches only these.
        teacher: features of the same shape.
        temperature: T; above 1 shows more of the places beside the peak.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ, there is one place only (the divergence would always be 0),
            or T is not positive and finite.

    Paper:
        Shu et al. 2021, "Channel-wise Knowledge Distillation for Dense Prediction", section 3.2.
        Usual weight 50 on features and 3 on maps of logits, beside 1 on
        `hard_label`; it needs a layer of the teacher.

    Example:
        >>> student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 4.0]]]])
        >>> channel_wise(student, teacher, temperature=4.0)
        tensor([1.7751])
    """
    check_temperature(temperature)
    own, goal = same_places(*matched(student, teacher))
    log_own = F.log_softmax(own / temperature, dim=2)
    log_goal = F.log_softmax(goal / temperature, dim=2)
    divergence = (log_goal.exp() * (log_goal - log_own)).sum(dim=2)
    return temperature**2 * divergence.mean(dim=1)


class AttentionTransfer(nn.Module):
    """`attention_transfer` with a fixed exponent and form."""

    def __init__(self, *, exponent: float = 2.0, form: Literal["code", "paper"] = "code") -> None:
        super().__init__()
        _check_attention(exponent, form)
        self.exponent = exponent
        self.form: Literal["code", "paper"] = form

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *other"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return attention_transfer(student, teacher, exponent=self.exponent, form=self.form)

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"exponent={self.exponent}, form={self.form!r}"


class ChannelWise(nn.Module):
    """`channel_wise` at a temperature that a schedule may override, step by step."""

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *features"],
        *,
        temperature: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """One value per row, at `temperature` where one is given."""
        chosen = self.temperature if temperature is None else temperature
        return channel_wise(student, teacher, temperature=chosen)

    def extra_repr(self) -> str:
        """The temperature, for printing."""
        return f"temperature={self.temperature}"


def _attention(
    features: Float[Tensor, " batch channels places"], exponent: float
) -> Float[Tensor, " batch places"]:
    # The map has no unit, so the largest number may be brought to 1 first: its power stays finite.
    peak = features.detach().abs().amax(dim=(1, 2), keepdim=True)
    scaled = features / torch.where(peak > NOTHING, peak, 1.0)
    return unit(scaled.abs().pow(exponent).mean(dim=1), floor=NOTHING)


def _check_attention(exponent: float, form: str) -> None:
    check_one_of("form", form, _FORMS)
    if not 1 <= exponent < float("inf"):
        raise ValueError(
            f"`exponent >= 1` must hold, but got {exponent=}: below 1 its slope at zero is "
            "infinite; usual is 2"
        )
