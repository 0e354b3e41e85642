"""A loss on what a layer's channels look for, whichever channel looks for it.

Features are maps `[batch, channels, height, width]` or tokens `[batch, tokens, width]`. The loss
gives one value per row, in at least float32.
"""

from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import check_one_of
from understudy.losses.rows import unit
from understudy.losses.spatial import NOTHING, same_places

Kernel = Literal["polynomial", "linear", "gaussian"]

_KERNELS: Final = ("polynomial", "linear", "gaussian")
_FORMS: Final = ("full", "student")
_NARROWEST: Final = 1e-3


def nst(
    student: Float[Tensor, " batch *features"],
    teacher: Float[Tensor, " batch *other"],
    *,
    kernel: Kernel = "polynomial",
    form: Literal["full", "student"] = "full",
) -> Float[Tensor, " batch"]:
    """Squared maximum mean discrepancy between two layers' channels; no unit.

    Each channel is a vector over places, of length 1, and a layer is the set of its channels. The
    discrepancy compares the two sets: `mean k(t, t') + mean k(s, s') - 2 mean k(s, t)`, each mean
    over all pairs of channels. So neither the number nor the order of channels counts, unlike in
    `hint`. It is 0 where the sets agree.

    The kernels: "polynomial" is `(s · t)²`, "linear" is `s · t` (it compares the mean channels
    alone), "gaussian" is `exp(-|s - t|² / 2v)` with v the mean of |s - t|² over the row's own
    pairs, taken as a constant.

    Inner products of channels are one matrix product, so nothing of the size of channels by
    channels by places is ever held.

    Args:
        student: features; the gradient reaches only these.
        teacher: features with the same places, and any channels.
        kernel: which of the three.
        form: "full", or "student" to leave out `mean k(t, t')`, as the authors' code does: the
            same gradient, but no zero.

    Returns:
        One value per row. A channel that is zero everywhere has no direction and counts as zero.

    Raises:
        ValueError: rows or places differ, there is one place only, or a choice is another.

    Paper:
        Huang and Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity
        Transfer", section 4. Usual weight 50, beside 1 on `hard_label`; it needs
        layers of the teacher.

    Example:
        >>> import torch
        >>> student = torch.tensor([[[[2.0, 0.0]], [[0.0, 3.0]]]])
        >>> nst(student, student.flip(1))
        tensor([0.])
        >>> nst(student, student[:, :1])
        tensor([0.5000])
    """
    _check_choices(kernel, form)
    own, goal = same_places(student, teacher)
    own, goal = unit(own, floor=NOTHING), unit(goal, floor=NOTHING)
    width = _width(own, goal) if kernel == "gaussian" else None
    within = _similarity(own, own, kernel, width) - 2 * _similarity(own, goal, kernel, width)
    if form == "student":
        return within
    return within + _similarity(goal, goal, kernel, width)


class NST(nn.Module):
    """`nst` with a fixed kernel and form."""

    def __init__(
        self, *, kernel: Kernel = "polynomial", form: Literal["full", "student"] = "full"
    ) -> None:
        super().__init__()
        _check_choices(kernel, form)
        self.kernel: Kernel = kernel
        self.form: Literal["full", "student"] = form

    def forward(
        self,
        student: Float[Tensor, " batch *features"],
        teacher: Float[Tensor, " batch *other"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return nst(student, teacher, kernel=self.kernel, form=self.form)

    def extra_repr(self) -> str:
        """Its constants, for printing."""
        return f"kernel={self.kernel!r}, form={self.form!r}"


def _similarity(
    one: Float[Tensor, " batch channels places"],
    other: Float[Tensor, " batch others places"],
    kernel: Kernel,
    width: Float[Tensor, " batch 1 1"] | None,
) -> Float[Tensor, " batch"]:
    if width is not None:
        pairs = (-_distance(one, other) / (2 * width)).exp()
    else:
        products = one @ other.transpose(1, 2)
        pairs = products if kernel == "linear" else products.square()
    return pairs.mean(dim=(1, 2))


def _width(
    own: Float[Tensor, " batch channels places"], goal: Float[Tensor, " batch others places"]
) -> Float[Tensor, " batch 1 1"]:
    distance = _distance(own.detach(), goal).mean(dim=(1, 2), keepdim=True)
    # Where both layers are a single direction, a kernel as narrow as their distance is a spike.
    return distance.clamp(min=_NARROWEST)


def _distance(
    one: Float[Tensor, " batch channels places"], other: Float[Tensor, " batch others places"]
) -> Float[Tensor, " batch channels others"]:
    lengths = one.square().sum(dim=2)[:, :, None] + other.square().sum(dim=2)[:, None, :]
    return (lengths - 2 * one @ other.transpose(1, 2)).clamp(min=0)


def _check_choices(kernel: str, form: str) -> None:
    check_one_of("kernel", kernel, _KERNELS)
    check_one_of("form", form, _FORMS)
