"""The adapter `embed`: both networks' features in one small space, where both sides learn."""

from torch import Tensor, nn
from torch.nn import functional as F

from understudy.contracts import Batch
from understudy.features.form import Adapted, Shape, check_least, check_pairs, pooled, width_of


class Embed(nn.Module):
    """One linear layer per side and layer, `[batch, width]`; the teacher's side learns too.

    Maps are averaged over space and tokens over tokens first. The gradient reaches the teacher's
    embedding, and stops before the teacher.

    Args:
        student: shapes of the student's layers, one row each.
        teacher: shapes of the teacher's, one per layer of the student.
        width: of the common space.
        normalise: whether embeddings are brought to length 1. Off is what the usual code of
            correlation congruence does (`LinearEmbed`); on is the `Embed` of contrastive losses.

    Raises:
        ModelError: the width is below 1, or the layers make no pairs.

    Paper:
        Peng et al. 2019, "Correlation Congruence for Knowledge Distillation", section 3. The
        width of 128 is that of the usual code.
    """

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        width: int = 128,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        check_least("width", width)
        self.normalise = normalise
        self.own = nn.ModuleList(nn.Linear(width_of(shape), width) for shape in student)
        self.goal = nn.ModuleList(nn.Linear(width_of(shape), width) for shape in teacher)

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Both sides embedded."""
        return Adapted(
            student=[
                self._scaled(embed(pooled(own, batch.real)))
                for embed, own in zip(self.own, student, strict=True)
            ],
            teacher=[
                self._scaled(embed(pooled(goal.detach(), batch.real)))
                for embed, goal in zip(self.goal, teacher, strict=True)
            ],
        )

    def _scaled(self, embedded: Tensor) -> Tensor:
        return F.normalize(embedded, dim=1) if self.normalise else embedded
