"""The adapter `heads`: queries, keys and values of a transformer, split into attention heads."""

import math
from typing import Literal

from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import Adapted, Shape, check_pairs

Give = Literal["scores", "qkv"]


class Heads(nn.Module):
    """Attention scores, or queries, keys and values, per head; nothing is learned.

    A layer's queries, keys and values are either one fused tensor `[batch, tokens, 3 * width]`, all
    queries first and each of the three split into heads (the layout of `VisionTransformer`, timm
    and GPT-2), or three tensors `[batch, tokens, width]`, named in the order query, key, value.

    - `give: scores` gives one `[batch, heads, tokens, tokens]` per layer: q k^T / sqrt(dim), before
      the softmax.
    - `give: qkv` gives three `[batch, heads, tokens, dim]`, of one layer; `dim` may differ between
      student and teacher.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        student_heads: attention heads of the student.
        teacher_heads: attention heads of the teacher.
        fused: whether a layer's three parts are one tensor.
        relation_heads: split both sides into so many heads instead of their own, as MiniLMv2 does,
            so that any two networks can be compared.
        give: what the loss takes.

    Raises:
        ModelError: heads do not divide a width or differ between the sides, the numbers of tokens
            differ, or the layers are not as `fused` says.

    Paper:
        Scores: Jiao et al. 2020, "TinyBERT", section 3.1. Relation heads: Wang et al. 2021,
        "MiniLMv2: Multi-Head Self-Attention Relation Distillation", section 3.1.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        student_heads: int | None = None,
        teacher_heads: int | None = None,
        fused: bool = True,
        relation_heads: int | None = None,
        give: Give = "scores",
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        if give not in ("scores", "qkv"):
            raise ModelError(f'`give` must be "scores" or "qkv", but got {give!r}')
        self.fused = fused
        self.give = give
        self.student_heads = _heads("student", relation_heads or student_heads)
        self.teacher_heads = _heads("teacher", relation_heads or teacher_heads)
        if self.student_heads != self.teacher_heads:
            raise ModelError(
                "both sides must have as many attention heads, but got "
                f"student_heads={self.student_heads} and teacher_heads={self.teacher_heads}: give "
                "the student as many, or set `relation_heads` to split both sides anew"
            )
        _check_layers(student, teacher, fused=fused, give=give)
        for side, shapes in (("student", student), ("teacher", teacher)):
            for shape in shapes:
                _check_width(side, shape, self.student_heads, fused=fused)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Scores, one tensor per layer, or `[query, key, value]`, of both sides."""
        del batch
        return Adapted(
            student=self._given(student, self.student_heads),
            teacher=self._given([goal.detach() for goal in teacher], self.teacher_heads),
        )

    def _given(self, captured: list[Tensor], heads: int) -> list[Tensor]:
        if self.fused:
            parts = [part for layer in captured for part in layer.chunk(3, dim=2)]
        else:
            parts = captured
        split = [_split(part, heads) for part in parts]
        if self.give == "qkv":
            return split
        return [_scores(split[i], split[i + 1]) for i in range(0, len(split), 3)]


def _split(part: Tensor, heads: int) -> Tensor:
    batch, tokens, width = part.shape
    return part.reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def _scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])


def _heads(side: str, heads: int | None) -> int:
    if heads is None or heads < 1:
        raise ModelError(
            f"`{side}_heads >= 1` must hold, but got {heads}: give the number of attention heads "
            f"of the {side}, or `relation_heads` for both"
        )
    return heads


def _check_layers(student: list[Shape], teacher: list[Shape], *, fused: bool, give: Give) -> None:
    per_layer = 1 if fused else 3
    if len(student) % per_layer:
        raise ModelError(
            "with `fused: false` each layer is named three times, query, key and value, but got "
            f"{len(student)} tensors: name all three, or set `fused: true`"
        )
    if give == "qkv" and len(student) != per_layer:
        raise ModelError(
            f"`give: qkv` takes one layer, {per_layer} tensors per side, but got {len(student)}: "
            "name one layer, usually the last"
        )
    for own, goal in zip(student, teacher, strict=True):
        if len(own) != 2 or len(goal) != 2 or own[0] != goal[0]:
            raise ModelError(
                "queries, keys and values must be [tokens, width] with as many tokens on both "
                f"sides, but got a student of {list(own)} and a teacher of {list(goal)}: name the "
                "layers that make them, and give both networks the same input"
            )


def _check_width(side: str, shape: Shape, heads: int, *, fused: bool) -> None:
    parts = 3 if fused else 1
    if shape[1] % (parts * heads):
        raise ModelError(
            f"{heads} heads must divide the {side}'s width, but its layer is {list(shape)}"
            f"{', three widths in one' if fused else ''}: correct the number of heads"
            f"{'' if fused else ', or set `fused: true`'}"
        )
