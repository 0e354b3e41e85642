"""A projector for features that have no places in common: learned queries look at the student's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.features.form import Shape, kind_of, width_of
from understudy.features.resizing import to_tokens


class CrossAttention(nn.Module):
    """Features of any shape into any other, by one layer of attention.

    Each place of the outcome has a query of its own and looks at all places of the features, which
    have learned positions too. A small network on each place follows, so that even a single vector
    gives places that differ.

    Args:
        student: shape of one row that comes in.
        teacher: shape of one row that goes out.
    """

    def __init__(self, student: Shape, teacher: Shape) -> None:
        super().__init__()
        self.teacher = tuple(teacher)
        before, after = width_of(student), width_of(teacher)
        self.positions = nn.Parameter(torch.empty(_places(student), before))
        self.queries = nn.Parameter(torch.empty(_places(teacher), after))
        self.key = nn.Linear(before, after)
        self.value = nn.Linear(before, after)
        self.norm = nn.LayerNorm(after)
        self.up = nn.Linear(after, 2 * after)
        self.down = nn.Linear(2 * after, after)
        nn.init.normal_(self.positions, std=0.02)
        # Queries of unit size: with small ones every place would look at the same mean at first.
        nn.init.normal_(self.queries)

    def forward(self, features: Tensor, real: Tensor | None = None) -> Tensor:
        """`[batch, ...]` in the shape that goes out.

        Args:
            features: of some rows.
            real: bool `[batch, tokens]`, of texts: the tokens that are looked at; all of them in a
                row without any.
        """
        places = _as_tokens(features)
        looked = None
        if real is not None:
            places = torch.where(real.unsqueeze(2), places, 0.0)
            looked = (real | ~real.any(dim=1, keepdim=True)).unsqueeze(1)
        seen = places + self.positions
        queries = self.queries.expand(len(seen), -1, -1)
        found = F.scaled_dot_product_attention(
            queries, self.key(seen), self.value(seen), attn_mask=looked
        )
        made: Tensor = found + self.down(F.gelu(self.up(self.norm(queries + found))))
        if kind_of(self.teacher) == "map":
            return made.transpose(1, 2).reshape(-1, *self.teacher)
        return made.squeeze(1) if kind_of(self.teacher) == "vector" else made


def _places(shape: Shape) -> int:
    if kind_of(shape) == "map":
        return math.prod(shape[1:])
    return shape[0] if kind_of(shape) == "tokens" else 1


def _as_tokens(features: Tensor) -> Tensor:
    if features.ndim == 4:
        return to_tokens(features)
    return features if features.ndim == 3 else features.unsqueeze(1)
