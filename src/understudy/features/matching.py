"""The adapter `match`: student features in the teacher's exact shape, whatever both are."""

from typing import Literal

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.attending import CrossAttention
from understudy.features.form import Adapted, Shape, check_pairs, kind_of, pooled, width_of
from understudy.features.resizing import (
    Grid,
    Resize,
    need_grid,
    resize,
    to_maps,
    to_tokens,
)

Projector = Literal["auto", "conv", "linear", "attention"]
_KNOWN = ("auto", "conv", "linear", "attention")


class Match(nn.Module):
    """Student features in the teacher's exact shape, one learned projection per pair of layers.

    What is done depends on the two shapes; a shape is that of one row.

    What is done depends on the two shapes of a pair:

    - equal shapes: nothing, unless `always` is set or a projector is named;
    - maps to maps: channels by a 1x1 convolution. A size that halves or doubles changes by a
      strided 3x3 or a transposed 4x4 convolution, any other by averaging or interpolation;
    - tokens to tokens: width by a linear layer, another number of tokens by resizing their grid;
    - maps to tokens: one token per pixel, then as tokens; a class token is the mean of the map;
    - tokens to maps: the grid of tokens without its class token, then as maps;
    - maps or tokens to vectors: the mean over space or tokens, then a linear layer;
    - anything to anything with "attention": one learned query per place of the teacher's features
      looks at all places of the student's.

    A grid of tokens is square (a map on the other side tells another form). Where the number of
    tokens is a square and one, the first is the class token, and is not resized. Widths that are
    equal need no projection of their own. There is no batch normalisation and no ReLU: the target
    may be negative, and a batch may be one row.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        projector: "auto" learns as little as brings the shapes together. "conv" is for maps, and
            projects equal shapes too. "linear" projects each place by itself and resizes without
            learning. "attention" takes any pair.
        always: whether "auto" projects equal shapes too.

    Raises:
        ModelError: the projector has another name, or cannot bring a pair together.

    Paper:
        Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", section 2.2, has the regressor.
        Their convolution has no padding and shrinks the map by its kernel; strides of 2 are the
        later toolkits' form of it. The attention is Liu et al. 2022, "Cross-Architecture Knowledge
        Distillation", section 3.2, in its simplest form.

    Example:
        >>> import torch
        >>> match = Match([(8, 16, 16)], [(32, 8, 8)])
        >>> features, target = torch.zeros(5, 8, 16, 16), torch.zeros(5, 32, 8, 8)
        >>> match([features], [target], Batch(inputs=features)).student[0].shape
        torch.Size([5, 32, 8, 8])
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        projector: Projector = "auto",
        always: bool = False,
    ) -> None:
        super().__init__()
        if projector not in _KNOWN:
            raise ModelError(
                f"`projector` must be one of {', '.join(_KNOWN)}, but got {projector!r}"
            )
        check_pairs(student, teacher)
        self.bridges = nn.ModuleList(
            _bridge(own, goal, projector=projector, always=always)
            for own, goal in zip(student, teacher, strict=True)
        )

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The student's features in the teacher's shapes; the teacher's as they are."""
        goals = [goal.detach() for goal in teacher]
        sides = zip(self.bridges, student, goals, strict=True)
        owns = [_crossed(bridge, own, goal, batch.real) for bridge, own, goal in sides]
        return Adapted(student=owns, teacher=goals)


class Pooled(nn.Module):
    """The mean over space or tokens, `[batch, width]`."""

    def forward(self, features: Tensor) -> Tensor:
        """One vector per row."""
        return pooled(features)


class AsTokens(nn.Module):
    """A map as tokens of a grid, with the mean of the map where there is a class token."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, maps: Tensor) -> Tensor:
        """`[batch, tokens, channels]`."""
        places = to_tokens(resize(maps, (self.grid.height, self.grid.width)))
        return _with_class_token(places, to_tokens(maps), self.grid)


class AsMaps(nn.Module):
    """Tokens laid out in their grid, without the class token."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        """`[batch, width, height, width of the grid]`."""
        return to_maps(tokens, self.grid)


class Regrid(nn.Module):
    """Another number of tokens: their grid is resized, their class token kept or made."""

    def __init__(self, before: Grid, after: Grid) -> None:
        super().__init__()
        self.before = before
        self.after = after

    def forward(self, tokens: Tensor) -> Tensor:
        """`[batch, new tokens, width]`."""
        maps = resize(to_maps(tokens, self.before), (self.after.height, self.after.width))
        own = tokens[:, :1] if self.before.class_token else tokens
        return _with_class_token(to_tokens(maps), own, self.after)


def _with_class_token(places: Tensor, own: Tensor, grid: Grid) -> Tensor:
    if not grid.class_token:
        return places
    return torch.cat([own.mean(dim=1, keepdim=True), places], dim=1)


def _crossed(bridge: nn.Module, own: Tensor, goal: Tensor, real: Tensor | None) -> Tensor:
    """The student's features over a bridge; padding is not looked at on the way."""
    if real is None or own.ndim != 3 or own.shape[1] != real.shape[1]:
        found: Tensor = bridge(own)
    elif isinstance(bridge, CrossAttention):
        found = bridge(own, real)
    else:
        # What comes in as one vector is left as it is by the bridge's own mean.
        found = bridge(pooled(own, real) if goal.ndim == 2 else own)
    return found


def _bridge(student: Shape, teacher: Shape, *, projector: Projector, always: bool) -> nn.Module:
    if student == teacher and projector == "auto" and not always:
        return nn.Identity()
    if projector == "attention":
        return CrossAttention(student, teacher)
    kinds = kind_of(student), kind_of(teacher)
    if projector == "conv" and kinds != ("map", "map"):
        raise ModelError(_refusal(student, teacher, "`projector: conv` takes maps only"))
    learn = always or projector != "auto" or width_of(student) != width_of(teacher)
    if kinds[1] == "map":
        steps = _onto_maps(student, teacher, learn=learn, strided=projector != "linear")
    else:
        steps = _onto_rows(student, teacher, learn=learn)
    return nn.Sequential(*steps)


def _onto_maps(student: Shape, teacher: Shape, *, learn: bool, strided: bool) -> list[nn.Module]:
    if kind_of(student) == "vector":
        raise ModelError(_refusal(student, teacher, "a vector has no places to lay out"))
    steps: list[nn.Module] = []
    own, size = student, (teacher[1], teacher[2])
    if kind_of(student) == "tokens":
        grid = need_grid(student[0], student, teacher)
        steps.append(AsMaps(grid))
        own = (student[1], grid.height, grid.width)
    before = own[1], own[2]
    if strided and before != size and size == _halved(before):
        return [*steps, nn.Conv2d(own[0], teacher[0], kernel_size=3, stride=2, padding=1)]
    if strided and size == (2 * before[0], 2 * before[1]):
        return [*steps, nn.ConvTranspose2d(own[0], teacher[0], kernel_size=4, stride=2, padding=1)]
    if before != size:
        steps.append(Resize(size))
    return [*steps, nn.Conv2d(own[0], teacher[0], kernel_size=1)] if learn else steps


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _onto_rows(student: Shape, teacher: Shape, *, learn: bool) -> list[nn.Module]:
    kinds = kind_of(student), kind_of(teacher)
    steps: list[nn.Module] = []
    if kinds == ("vector", "tokens"):
        raise ModelError(_refusal(student, teacher, "a vector has no places to lay out"))
    if kinds[0] != "vector" and kinds[1] == "vector":
        steps.append(Pooled())
    elif kinds == ("map", "tokens"):
        steps.append(AsTokens(need_grid(teacher[0], student, teacher)))
    elif kinds == ("tokens", "tokens") and student[0] != teacher[0]:
        grids = [need_grid(shape[0], student, teacher) for shape in (student, teacher)]
        steps.append(Regrid(*grids))
    return [*steps, nn.Linear(width_of(student), width_of(teacher))] if learn else steps


def _refusal(student: Shape, teacher: Shape, law: str) -> str:
    return (
        f"{law}, but the student's features are {list(student)} and the teacher's "
        f"{list(teacher)}: set `adapter: {{kind: match, projector: attention}}`, or name layers "
        "that are more alike"
    )
