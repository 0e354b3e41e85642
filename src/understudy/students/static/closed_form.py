"""Token vectors in closed form: a regression of a teacher's embeddings on the tokens of texts.

A static encoder says a text's vector is a weighted mean of vectors of its tokens. Given the
weights, that is linear in the vectors, so the best ones are those of a ridge regression. It draws
every vector towards what the teacher says of the token alone: a token that no text has keeps that,
and one that many texts have moves to what it adds to them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from understudy.students.static.bags import Bags


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClosedForm:
    """What the regression found.

    Attributes:
        vectors: float32 `[vocabulary, width]`, of which a text's vector is the weighted mean.
        explained: the share of the teacher's embeddings, in squared length, that they tell.
        explained_before: the same of the prior, after it was scaled.
        steps: of conjugate gradients that were taken.
    """

    vectors: Float32[np.ndarray, " vocabulary width"]
    explained: float
    explained_before: float
    steps: int


def sif_weights(
    counts: Int64[np.ndarray, " vocabulary"], *, a: float = 1e-3
) -> Float32[np.ndarray, " vocabulary"]:
    """What every token weighs: `a / (a + p)`, with `p` its share of all tokens; 0 to 1.

    Half a token is added to every count, so that one that was never met is rare, not impossible.

    Args:
        counts: how often every token was met.
        a: the share at which a token weighs a half.

    Raises:
        ValueError: `a` is not above 0.

    Paper:
        Arora, Liang and Ma 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings",
        section 3, whose range for `a` is 1e-4 to 1e-3.

    Example:
        >>> sif_weights(np.array([0, 499]), a=1.0)
        array([0.999001 , 0.5002501], dtype=float32)
    """
    if not a > 0:
        raise ValueError(f"`a > 0` must hold, but got {a=}: usual is 1e-3")
    shares = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return np.asarray(a / (a + shares), np.float32)


def principal_axes(
    vectors: Float32[np.ndarray, " rows depth"], *, width: int
) -> Float32[np.ndarray, " depth width"]:
    """The directions that hold most of the vectors' squared length, as columns, longest first.

    The mean is not taken out: a cosine is an angle at the origin, and projecting on these axes
    keeps all angles as well as `width` numbers can. With as many as there are it only turns.
    Signs are such that the largest number of an axis is positive.

    Args:
        vectors: what is to be kept, such as a teacher's embeddings of texts.
        width: how many axes.

    Raises:
        ValueError: there are not so many.
    """
    if not 1 <= width <= vectors.shape[1]:
        raise ValueError(f"`1 <= width <= {vectors.shape[1]}` must hold, but got {width=}")
    doubled = vectors.astype(np.float64)
    _, axes = np.linalg.eigh(doubled.T @ doubled)
    axes = axes[:, ::-1][:, :width]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return np.asarray(axes * np.sign(largest), np.float32)


def fit_token_vectors(
    bags: Bags,
    targets: Float32[np.ndarray, " texts width"],
    prior: Float32[np.ndarray, " vocabulary width"],
    *,
    strength: float = 0.1,
    steps: int = 20,
    tolerance: float = 1e-3,
) -> ClosedForm:
    """The token vectors whose weighted means come closest to a teacher's embeddings.

    It minimises the squared distance to the embeddings, plus `strength` times that to the prior,
    which is first multiplied by the one number that fits best. The solver is conjugate gradients
    on the normal equations, one per column and all columns at once, divided by the diagonal.

    Args:
        bags: the tokens of the texts.
        targets: the teacher's embeddings of the same texts.
        prior: a vector per token, such as the teacher's of the token alone.
        strength: of the pull; a token pulled by it counts as much as the prior once the squares
            of its shares in texts sum to this.
        steps: the most steps of the solver.
        tolerance: it stops earlier once what is left of the equations is this share of what it
            began with, in every column.

    Raises:
        ValueError: shapes do not fit, a number is not finite, or `strength`, `steps` or
            `tolerance` is not above 0.
    """
    _check(bags, targets, prior)
    for name, value in (("strength", strength), ("steps", steps), ("tolerance", tolerance)):
        if not value > 0:
            raise ValueError(f"`{name} > 0` must hold, but got {name}={value}")
    goal = torch.from_numpy(np.ascontiguousarray(targets))
    start = torch.from_numpy(np.ascontiguousarray(prior))
    told = bags.of_tokens(start)
    # The mean of unit vectors is shorter than one, the more so the more of them there are.
    size = told.square().sum()
    factor = (told * goal).sum() / size if size > 0 else torch.zeros(())
    start, rest = start * factor, goal - told * factor
    moved, taken = _solve(bags, rest, strength=strength, steps=steps, tolerance=tolerance)
    left = rest - bags.of_tokens(moved)
    return ClosedForm(
        vectors=(start + moved).numpy(),
        explained=_explained(left, goal),
        explained_before=_explained(rest, goal),
        steps=taken,
    )


def _solve(
    bags: Bags, rest: Tensor, *, strength: float, steps: int, tolerance: float
) -> tuple[Tensor, int]:
    """How far every vector moves from the prior, and the steps that it took to find it."""
    diagonal = (bags.squares() + strength)[:, None]
    open_ = bags.of_texts(rest)
    moved = torch.zeros_like(open_)
    first = open_.square().sum(dim=0)
    scaled = open_ / diagonal
    way, size = scaled, (open_ * scaled).sum(dim=0)
    for step in range(steps):
        if bool((open_.square().sum(dim=0) <= tolerance**2 * first).all()):
            return moved, step
        turned = bags.of_texts(bags.of_tokens(way)) + strength * way
        along = _divided(size, (way * turned).sum(dim=0))
        moved = moved + along * way
        open_ = open_ - along * turned
        scaled = open_ / diagonal
        before, size = size, (open_ * scaled).sum(dim=0)
        way = scaled + _divided(size, before) * way
    return moved, steps


def _divided(above: Tensor, below: Tensor) -> Tensor:
    """0 where a column is solved already and both are 0."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)


def _explained(left: Tensor, goal: Tensor) -> float:
    whole = float(goal.double().square().sum())
    return 1 - float(left.double().square().sum()) / whole if whole > 0 else 0.0


def _check(
    bags: Bags,
    targets: Float32[np.ndarray, " texts width"],
    prior: Float32[np.ndarray, " vocabulary _"],
) -> None:
    shapes = (targets.shape, prior.shape)
    width = targets.shape[1]
    if shapes != ((bags.texts, width), (bags.vocabulary, width)):
        raise ValueError(
            f"targets must be [{bags.texts}, width] and the prior [{bags.vocabulary}, width], but "
            f"got {targets.shape} and {prior.shape}: project both on the same axes"
        )
    for name, values in (("targets", targets), ("prior", prior)):
        if not np.isfinite(values).all():
            raise ValueError(f"`{name}` must be finite, but some are not: leave those rows out")
