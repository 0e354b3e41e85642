"""Losses on embeddings: how far a student's vectors, or their likenesses, are from its teacher's.

Every function takes `[batch, width]` and gives one value per row, in at least float32.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.losses.constants import NoConstants, check_one_of
from understudy.losses.rows import cosines, related, unit
from understudy.losses.shapes import paired


def cosine_distance(
    student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
) -> Float[Tensor, " batch"]:
    """One minus the cosine of the two vectors of a row, 0 to 2.

    It is written as half the squared distance of the two vectors brought to length 1, which is
    the same number, but exactly 0 at equality, and keeps its digits near it. So for embeddings of
    length 1 it is `soft_value` times half the width, and the two are not worth adding up; for
    others it leaves the lengths free. A zero vector has no direction: it is 1/2 from any other,
    and has no gradient.

    Args:
        student: vectors in the teacher's width; the gradient reaches only these.
        teacher: vectors of the same examples.

    Returns:
        One value per row.

    Raises:
        ValueError: the shapes differ.

    Paper:
        None: the distance that such vectors are compared with in use. Sanh et al. 2019,
        "DistilBERT, a distilled version of BERT", section 3, has it on hidden states. Usual
        weight 1; it needs the teacher's `embedding`. `pkt` or `similarity_preserving` beside it
        compare whole batches.

    Example:
        >>> import torch
        >>> cosine_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([1.])
    """
    own, goal = paired(student, teacher, name="teacher")
    return (unit(own) - unit(goal)).square().sum(dim=-1) / 2


def score_distribution(
    student: Float[Tensor, " batch width"],
    teacher: Float[Tensor, " batch depth"],
    *,
    temperature: float = 0.05,
) -> Float[Tensor, " batch"]:
    """Divergence, in nats, of which other row of the batch resembles this one.

    The cosines of a row with all others, divided by the temperature, are read as logits on both
    sides; the loss is the Kullback-Leibler divergence from the teacher's distribution to the
    student's. A row is not compared with itself: that cosine is 1 on both sides, and would take
    most of the mass. No width has to agree, and a rotation of all vectors is not seen.

    There is no factor of temperature squared. Cosines are at most 1, so the temperature is what
    sets their unit, and is not a softening that a factor would have to undo.

    Args:
        student: one row per example; the gradient reaches only these.
        teacher: the same examples in the same order, of any width.
        temperature: what cosines are divided by; the smaller, the more only the nearest rows count.

    Returns:
        One value per row. 0 for a batch of two rows or one, which have no choice.

    Raises:
        ValueError: the two do not have the same rows, or `temperature` is not above 0.

    Paper:
        Fang et al. 2021, "SEED: Self-supervised Distillation for Visual Representation", section
        3.2, with a queue in the place of the batch, the row itself among the choices, and
        temperatures of 0.2 and 0.01. Usual weight 1 beside `cosine_distance`, or alone.
        `pkt` reads cosines as probabilities without an exponential.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> score_distribution(torch.eye(3), rows, temperature=1.0)
        tensor([0.1109, 0.1109, 0.0000])
    """
    _check_temperature(temperature)
    own, goal = related(student, teacher)
    if len(own) < 2:
        return own.sum(dim=1) * 0
    like, wanted = (_log_shares(unit(rows), temperature) for rows in (own, goal))
    return nn.functional.kl_div(like, wanted, log_target=True, reduction="none").sum(dim=1)


def margin_mse(
    student: Float[Tensor, " batch candidates"], teacher: Float[Tensor, " batch candidates"]
) -> Float[Tensor, " batch"]:
    """Squared difference of margins: by how much the first candidate is preferred to each other.

    Only differences are compared, so that a student whose scores are all higher, or on another
    zero, is right. The unit is the scores': cosines, products or a re-ranker's logits.

    Args:
        student: scores of the candidates of each query, the right one first; the gradient
            reaches only these.
        teacher: scores of the same candidates in the same order.

    Returns:
        One value per row, the mean over all candidates but the first.

    Raises:
        ValueError: the shapes differ, or there are fewer than two candidates.

    Paper:
        Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture
        Knowledge Distillation", section 3, with one other candidate. Usual weight 1 alone; it
        needs the teacher's scores.

    Example:
        >>> margin_mse(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[9.0, 8.0, 8.0]]))
        tensor([0.5000])
    """
    own, goal = paired(student, teacher, name="teacher", columns=2)
    gaps = (own[:, :1] - own[:, 1:]) - (goal[:, :1] - goal[:, 1:])
    return gaps.square().mean(dim=1)


def matryoshka(
    loss: nn.Module,
    student: Float[Tensor, " batch width"],
    teacher: Float[Tensor, " batch depth"],
    *,
    widths: Sequence[int],
    against: Literal["prefix", "whole"] = "prefix",
) -> Float[Tensor, " batch"]:
    """The mean of a loss over prefixes of the student's vectors, each a vector by itself.

    A student that learns so can be cut to any of these widths when it is used. The teacher's
    prefixes mean something where its numbers are ordered by what they hold, as behind a
    projection on principal axes; a loss that takes any width can be given the whole instead.

    Args:
        loss: called with both sides, one value per row.
        student: the gradient reaches only these.
        teacher: of the same width where its prefixes are compared.
        widths: of the prefixes; list the whole width too, or the rest learns nothing.
        against: what a prefix is compared with: the teacher's `prefix` of its length, or the
            `whole` of it.

    Returns:
        One value per row.

    Raises:
        ValueError: no widths, one beyond a vector's own, or another word for `against`.

    Paper:
        Kusupati et al. 2022, "Matryoshka Representation Learning", section 3, equation 1, with
        the mean in place of a sum, so that the wrapped loss keeps its usual weight.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> matryoshka(CosineDistance(), student, teacher, widths=(1, 2))
        tensor([0.1464])
    """
    check_one_of("against", against, ("prefix", "whole"))
    limit = min(student.shape[1], teacher.shape[1] if against == "prefix" else student.shape[1])
    if not widths or min(widths) < 1 or max(widths) > limit:
        raise ValueError(
            f"`1 <= width <= {limit}` must hold for each of `widths`, but got "
            f"{list(widths)}: vectors are {student.shape[1]} wide, the teacher's {teacher.shape[1]}"
        )
    values = [
        loss(student[:, :width], teacher[:, :width] if against == "prefix" else teacher)
        for width in widths
    ]
    return torch.stack(values).mean(dim=0)


class CosineDistance(NoConstants):
    """`cosine_distance`; it has no constants."""

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch width"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return cosine_distance(student, teacher)


class ScoreDistribution(nn.Module):
    """`score_distribution` with its temperature."""

    def __init__(self, *, temperature: float = 0.05) -> None:
        """Keep the temperature.

        Raises:
            ValueError: it is not above 0.
        """
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return score_distribution(student, teacher, temperature=self.temperature)


class MarginMSE(NoConstants):
    """`margin_mse`; it has no constants."""

    def forward(
        self,
        student: Float[Tensor, " batch candidates"],
        teacher: Float[Tensor, " batch candidates"],
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        return margin_mse(student, teacher)


class Matryoshka(nn.Module):
    """`matryoshka` around a loss, with its widths."""

    def __init__(
        self,
        *,
        loss: nn.Module | None = None,
        widths: Sequence[int] = (),
        against: Literal["prefix", "whole"] = "prefix",
    ) -> None:
        """Wrap a loss.

        Args:
            loss: called with both sides; `CosineDistance` where None.
            widths: of the prefixes; none are the whole width, its half and its quarter.
            against: what a prefix is compared with.

        Raises:
            ValueError: a width below 1, or another word for `against`.
        """
        super().__init__()
        check_one_of("against", against, ("prefix", "whole"))
        if widths and min(widths) < 1:
            raise ValueError(
                f"`width >= 1` must hold for each of `widths`, but got {list(widths)}: usual is "
                "the whole width, and halves of it"
            )
        self.loss = CosineDistance() if loss is None else loss
        self.widths, self.against = tuple(widths), against

    def forward(
        self, student: Float[Tensor, " batch width"], teacher: Float[Tensor, " batch depth"]
    ) -> Float[Tensor, " batch"]:
        """One value per row."""
        whole = student.shape[1]
        widths = self.widths or tuple(dict.fromkeys(max(1, whole // part) for part in (1, 2, 4)))
        return matryoshka(self.loss, student, teacher, widths=widths, against=self.against)


def _log_shares(
    directions: Float[Tensor, " batch width"], temperature: float
) -> Float[Tensor, " batch others"]:
    """The logarithm of how much each other row resembles a row, without the diagonal."""
    return (cosines(directions) / temperature).log_softmax(dim=1)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ValueError(
            f"`temperature > 0` must hold, but got {temperature=}: usual is 0.02 to 0.1"
        )
