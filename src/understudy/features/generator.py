"""The adapter `generate`: the teacher's features, made from a masked student's."""

from typing import Literal

import torch
from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.errors import ModelError
from understudy.features.form import Adapted, Shape, check_kinds, check_pairs, check_share
from understudy.features.resizing import Resize

Masking = Literal["channel", "spatial"]
_REMEDY = "name layers of one kind, as many tokens on both sides"


class Generate(nn.Module):
    """Student features, masked at random, and two convolutions that fill the gaps.

    The student's channels are brought to the teacher's by a 1x1 convolution where they differ, and
    its map to the teacher's size. Then a share of it is set to 0 (what is left is not scaled up, as
    dropout would) and a 3x3 convolution, ReLU and another 3x3 convolution give the teacher's shape.
    Tokens have convolutions of width 3 along the tokens, vectors linear layers.

    Masks are drawn anew for each row and call, while training and after it, from the global random
    generator of the device.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        masking: "channel" hides whole channels, "spatial" all channels of a pixel or token.
        ratio: the share that is hidden. The authors use 0.15 of the channels for classification,
            and 0.65 of the pixels for detection (0.75 for segmentation).

    Raises:
        ModelError: a pair is of two kinds, or of different numbers of tokens; the ratio is not
            between 0 and 1; places of a vector shall be hidden.

    Paper:
        Yang et al. 2022, "Masked Generative Distillation", section 3.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        masking: Masking = "channel",
        ratio: float | int = 0.15,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        check_share("ratio", ratio)
        if masking not in ("channel", "spatial"):
            raise ModelError(f'`masking` must be "channel" or "spatial", but got {masking!r}')
        self.masking = masking
        self.ratio = ratio
        pairs = list(zip(student, teacher, strict=True))
        for own, goal in pairs:
            _check(own, goal, masking)
        self.aligns = nn.ModuleList(_align(own, goal) for own, goal in pairs)
        self.generators = nn.ModuleList(_generator(goal) for goal in teacher)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Regenerated features in the teacher's shapes."""
        del batch
        made = [
            self._made(align, generator, own)
            for align, generator, own in zip(self.aligns, self.generators, student, strict=True)
        ]
        return Adapted(student=made, teacher=[goal.detach() for goal in teacher])

    def _made(self, align: nn.Module, generator: nn.Module, own: Tensor) -> Tensor:
        features: Tensor = align(own)
        if features.ndim == 3:
            # As the convolutions along tokens want them: channels before places.
            features = features.transpose(1, 2)
        hidden: Tensor = generator(features * self._mask(features))
        return hidden.transpose(1, 2) if hidden.ndim == 3 else hidden

    def _mask(self, features: Tensor) -> Tensor:
        shape = list(features.shape)
        if self.masking == "channel":
            shape[2:] = [1] * (len(shape) - 2)
        else:
            shape[1] = 1
        # Drawn in float32 whatever the features are: half precision cannot tell 0.15 well.
        kept = torch.rand(shape, device=features.device, dtype=torch.float32) >= self.ratio
        return kept.to(features.dtype)


def _check(student: Shape, teacher: Shape, masking: Masking) -> None:
    kind = check_kinds(
        "generate", student, teacher, takes=("map", "tokens", "vector"), remedy=_REMEDY
    )
    if kind == "tokens" and student[0] != teacher[0]:
        raise ModelError(
            f"both sides must have as many tokens, but got a student of {list(student)} and a "
            f"teacher of {list(teacher)}: {_REMEDY}"
        )
    if kind == "vector" and masking == "spatial":
        raise ModelError(
            f"`masking: spatial` hides places, but the student's features are {list(student)} and "
            f"the teacher's {list(teacher)}, which have none: set `masking: channel`"
        )


def _align(student: Shape, teacher: Shape) -> nn.Module:
    if len(student) != 3:
        same = student == teacher
        return nn.Identity() if same else nn.Linear(student[-1], teacher[-1])
    steps: list[nn.Module] = []
    if student[0] != teacher[0]:
        steps.append(nn.Conv2d(student[0], teacher[0], kernel_size=1))
    if student[1:] != teacher[1:]:
        steps.append(Resize((teacher[1], teacher[2])))
    return nn.Sequential(*steps)


def _generator(teacher: Shape) -> nn.Sequential:
    if len(teacher) == 1:
        width = teacher[0]
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    kind = nn.Conv2d if len(teacher) == 3 else nn.Conv1d
    width = teacher[0] if len(teacher) == 3 else teacher[1]
    return nn.Sequential(
        kind(width, width, kernel_size=3, padding=1),
        nn.ReLU(),
        kind(width, width, kernel_size=3, padding=1),
    )
