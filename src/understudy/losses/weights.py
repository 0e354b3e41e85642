"""Constraints on the student's weights: towards its start, inside a ball, at right angles.

They read no batch: each is one number for all weights that train.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import check_not_negative, check_one_of

Weights = Mapping[str, Tensor]
Per = Literal["network", "weight"]
Around = Literal["start", "zero"]
Hold = Literal["penalty", "projection"]
PER, AROUND, HOLD = ("network", "weight"), ("start", "zero"), ("penalty", "projection")


def l2_sp(
    weights: Weights, start: Weights, *, alpha: float, beta: float, new: Sequence[str]
) -> Float[Tensor, ""]:
    """Half the squared distance of inherited weights from where they started, L2 for new ones.

        alpha / 2 * sum over inherited |w - w0|²  +  beta / 2 * sum over new |w|²

    Args:
        weights: those that train, by name.
        start: what they were at the beginning, by the same names.
        alpha: how much inherited weights count.
        beta: how much new weights count.
        new: patterns of names (`head.*`) of weights that were not inherited.

    Returns:
        One value, 0 at the start where `beta` is 0.

    Raises:
        ValueError: a constant is negative or not finite, a pattern that names no weight, or
            weights without their starts.

    Paper:
        Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks", section 3 (L2-SP). Usual weight 0.01, from 0.001 to 0.1, with
        beta 0.01 of its own.

    Example:
        >>> weights = {"body": torch.tensor([1.0, 2.0]), "head": torch.tensor([3.0])}
        >>> start = {"body": torch.tensor([1.0, 0.0]), "head": torch.tensor([9.0])}
        >>> l2_sp(weights, start, alpha=1.0, beta=0.0, new=["head"])
        tensor(2.)
    """
    check_not_negative("alpha", alpha, usual="1")
    check_not_negative("beta", beta, usual="0 to 1")
    fresh = _named(weights, new, "new")
    inherited = [name for name in weights if name not in fresh]
    moved = _squares(_far(weights[name], start, name) for name in inherited)
    return alpha / 2 * moved + beta / 2 * _squares(_wide(weights[name]) for name in fresh)


class L2SP(nn.Module):
    """`l2_sp` with fixed constants."""

    def __init__(self, *, alpha: float = 1.0, beta: float = 0.0, new: Sequence[str] = ()) -> None:
        super().__init__()
        l2_sp({}, {}, alpha=alpha, beta=beta, new=())
        self.alpha, self.beta, self.new = alpha, beta, tuple(new)

    def forward(self, weights: Weights, start: Weights) -> Float[Tensor, ""]:
        """One value."""
        return l2_sp(weights, start, alpha=self.alpha, beta=self.beta, new=self.new)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"alpha={self.alpha}, beta={self.beta}, new={self.new}"


def norm_ball(
    weights: Weights,
    start: Weights,
    *,
    radius: float,
    around: Around,
    per: Per,
    skip: Sequence[str],
) -> Float[Tensor, ""]:
    """How far the weights are outside a ball, squared: `max(0, |w - centre| - radius)²`.

    Inside the ball they are free. `per="weight"` gives each weight tensor a ball of its own, and
    their values are added up; `per="network"` puts all into one.

    Args:
        weights: those that train, by name.
        start: what they were at the beginning, by the same names.
        radius: of the ball, in units of the weights' Euclidean norm.
        around: the ball's centre: the start weights, or zero.
        per: what is in one ball.
        skip: patterns of names of weights that are left free.

    Returns:
        One value, exactly 0 inside.

    Raises:
        ValueError: the radius is not positive and finite, there is no such word, a pattern that
            names no weight, or weights without their starts.

    Paper:
        Gouk, Hospedales and Pontil 2021, "Distance-Based Regularisation of Deep Networks for
        Fine-Tuning", section 4, a ball per weight around the start, by projection. The penalty is
        the soft form of it. Usual weight 1, with a radius that the unbound training exceeds.

    Example:
        >>> weights, start = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}
        >>> norm_ball(weights, start, radius=2.0, around="start", per="network", skip=())
        tensor(9.)
    """
    _check_ball(radius, around, per)
    sums = [_squares(far) for far in _balls(weights, start, around, per, skip).values()]
    if not sums:
        return _squares([])
    # Not the root of a clamped difference: a root has no gradient at 0.
    outside = torch.stack(sums).clamp_min(radius**2).sqrt() - radius
    return outside.square().sum()


class NormBall(nn.Module):
    """`norm_ball` with fixed constants, as a penalty or as a projection after every step."""

    def __init__(
        self,
        *,
        radius: float = 1.0,
        around: Around = "start",
        per: Per = "weight",
        skip: Sequence[str] = (),
        hold: Hold = "penalty",
    ) -> None:
        super().__init__()
        _check_ball(radius, around, per)
        check_one_of("hold", hold, HOLD)
        self.radius, self.skip = radius, tuple(skip)
        self.around: Around = around
        self.per: Per = per
        self.hold: Hold = hold

    def forward(self, weights: Weights, start: Weights) -> Float[Tensor, ""]:
        """One value; what a projection holds is always about 0."""
        return norm_ball(
            weights, start, radius=self.radius, around=self.around, per=self.per, skip=self.skip
        )

    @torch.no_grad()
    def project(self, weights: Weights, start: Weights) -> None:
        """Bring the weights back onto the ball, in place; nothing where it is a penalty."""
        if self.hold == "penalty":
            return
        for name, far in _balls(weights, start, self.around, self.per, self.skip).items():
            norm = _squares(far).sqrt()
            factor = self.radius / norm.clamp_min(self.radius)
            names = [name] if self.per == "weight" else _kept(weights, self.skip)
            for one, difference in zip(names, far, strict=True):
                centre = start[one] if self.around == "start" else torch.zeros_like(start[one])
                # Weights inside keep their bits.
                moved = centre + (factor * difference).to(centre.dtype)
                weights[one].copy_(torch.where(norm > self.radius, moved, weights[one]))

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return (
            f"radius={self.radius}, around={self.around}, per={self.per}, skip={self.skip}, "
            f"hold={self.hold}"
        )


def _check_ball(radius: float, around: str, per: str) -> None:
    check_not_negative("radius", radius, usual="1")
    if radius == 0:
        raise ValueError("`radius > 0` must hold, but got radius=0: freeze the weights instead")
    check_one_of("around", around, AROUND)
    check_one_of("per", per, PER)


def _balls(
    weights: Weights, start: Weights, around: str, per: str, skip: Sequence[str]
) -> dict[str, list[Tensor]]:
    """Per ball how far what is in it lies from the centre."""
    names = _kept(weights, skip)
    if around == "start":
        far = {name: _far(weights[name], start, name) for name in names}
    else:
        far = {name: _wide(weights[name]) for name in names}
    if per == "weight":
        return {name: [one] for name, one in far.items()}
    return {"network": list(far.values())} if far else {}


def _kept(weights: Weights, skip: Sequence[str]) -> list[str]:
    left_out = _named(weights, skip, "skip")
    return [name for name in weights if name not in left_out]


def _named(weights: Weights, patterns: Sequence[str], argument: str) -> frozenset[str]:
    """The names that any of the patterns fits.

    Raises:
        ValueError: a pattern fits none.
    """
    found: set[str] = set()
    for pattern in patterns:
        fits = {name for name in weights if fnmatchcase(name, pattern)}
        if weights and not fits:
            near = ", ".join(list(weights)[:6])
            raise ValueError(
                f"every pattern of `{argument}` must name a weight, but `{pattern}` names none: "
                f"the weights are {near}{', ...' if len(weights) > 6 else ''}"
            )
        found |= fits
    return frozenset(found)


def _far(weight: Tensor, start: Weights, name: str) -> Tensor:
    if name not in start or start[name].shape != weight.shape:
        found = tuple(start[name].shape) if name in start else "nothing"
        raise ValueError(
            f"every weight must have its start, but `{name}` of shape {tuple(weight.shape)} has "
            f"{found}: give the weights as they were before training"
        )
    return _wide(weight) - _wide(start[name])


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _squares(tensors: Iterable[Tensor]) -> Tensor:
    found = [tensor.square().sum() for tensor in tensors]
    return torch.stack(found).sum() if found else torch.zeros(())
