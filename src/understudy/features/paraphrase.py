"""The adapter `paraphrase`: the autoencoder that `factors` stands on, in a phase of its own."""

from torch import Tensor, nn

from understudy.contracts import Batch
from understudy.features.factors import Factors
from understudy.features.form import Adapted, Shape


class Paraphrase(nn.Module):
    """The teacher's maps, through the autoencoder and back, beside the maps themselves.

    Nothing of the student is read: a phase whose only term is `paraphraser` prepares the factors
    that `factor_transfer` compares in the next one, which takes over what was learned here.

    Args:
        student: shapes of the student's maps, as the next phase names them.
        teacher: shapes of the teacher's.
        rate: the factors' channels, as a share of the teacher's; the same in both phases.

    Raises:
        ModelError: a layer gives no maps, or the rate leaves no channel.

    Paper:
        Kim, Park and Kwak 2018, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", section 3.1.
    """

    def __init__(
        self, student: list[Shape], teacher: list[Shape], *, rate: float | int = 0.5
    ) -> None:
        super().__init__()
        self.paraphrasers = Factors(student, teacher, rate=rate).paraphrasers

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """The maps given back, in the student's place, and the maps."""
        del student, batch
        given = [part(goal) for part, goal in zip(self.paraphrasers, teacher, strict=True)]
        return Adapted(student=given, teacher=list(teacher))
