"""Losses on stored labels that list only some outcomes of each distribution.

A vocabulary has 30,000 classes and more, and a label store keeps the few that carry the mass. The
two losses here read such a list as it is: nothing of the teacher's is spread over all classes.
Beside the student's own logits and their gradient there is one buffer of at most `WORKSPACE`
numbers (one position's, where that is more), and what is as large as the lists.

Every function takes logits `[positions, classes]` and a list `[positions, k]` with -1 where a
position lists fewer than k, and gives one value per position. The classes in one position's list
are distinct: the store guarantees it, and it is not checked at every call.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

WORKSPACE: Final = 2**20
"""How many numbers are looked at together: few enough to stay in a processor's cache."""


def outcome_kl(
    student: Float[Tensor, " positions classes"],
    ids: Int64[Tensor, " positions k"],
    log_mass: Float[Tensor, " positions k"],
    rest: Float[Tensor, " positions"],
    *,
    temperature: float,
) -> Float[Tensor, " positions"]:
    """Divergence over k + 1 outcomes, in nats times T²: the listed classes, and all the others.

    `T² * KL(teacher || student)` where both distributions tell apart only the listed classes and
    one bucket with everything else. It is a divergence for any list: never negative, and exactly 0
    where the two agree. A list that is cut off or brought back to a sum of 1 instead has neither,
    and teaches that unlisted classes are impossible.

    At T = 1 it is exact, and a lower bound of `soft_target_kl` that rises as the list grows: what
    happens inside the bucket is not seen. The student may move mass between unlisted classes
    freely; their sum is held.

    At T > 1 one number has to be assumed. The student's bucket is always exact, but the teacher's
    softened one, the sum of p^(1/T) over its U classes, depends on how its mass R is spread. It is
    taken as evenly spread, U^(1 - 1/T) * R^(1/T). As x^(1/T) is concave, no spread gives more; and
    with c the smallest listed mass and none of the bucket's larger than that, none gives less than
    R * c^(1/T - 1), where as few classes as possible hold c each. So the bucket is at most
    (U * c / R)^(1 - 1/T) times too heavy before all k + 1 are normalised, and the value is 0 for
    a student whose own bucket has the assumed mass. (Below T = 1 the curve bends the other way,
    and the even spread gives the least.) A list of all classes is exact at any T: `soft_target_kl`
    then, with the same value and gradient.

    Args:
        student: logits; the gradient reaches only these. Half precision is computed in float32.
        ids: which classes are listed, -1 for none.
        log_mass: the teacher's log probability of each at T = 1, in nats; -inf where `ids` is -1.
        rest: log of the mass that is not listed; -inf where nothing is left. It is not read where
            all classes are listed.
        temperature: T; above 1 shows more of the teacher's small probabilities.

    Returns:
        One value per position. A position that says nothing at all (no class listed, and nothing
        left) has the value NaN.

    Raises:
        ValueError: T is not positive and finite, the shapes do not belong together, or a class is
            outside the student's.

    Paper:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2,
        for the divergence; that merging outcomes never raises one is the data processing
        inequality, Cover and Thomas 2006, "Elements of Information Theory", section 2.8.

    Example:
        >>> ids, log_mass = torch.tensor([[2, -1]]), torch.tensor([[0.5, 0.0]]).log()
        >>> rest = torch.tensor([0.5]).log()
        >>> outcome_kl(torch.zeros(1, 4), ids, log_mass, rest, temperature=1.0)
        tensor([0.1438])
    """
    check_temperature(temperature)
    _check_list(student, ids, log_mass)
    _check_shape("rest", rest, "student.shape[:1]", student.shape[:1])
    log_own = _log_outcomes(student, ids, temperature=temperature)
    dtype = torch.promote_types(log_own.dtype, log_mass.dtype)
    listed, bucket = log_mass.detach().to(dtype), rest.detach().to(dtype)
    unlisted = student.shape[1] - (ids >= 0).sum(dim=1)
    # Where all classes are listed, rounding may still have left the bucket a little mass.
    bucket = torch.where(unlisted > 0, bucket, -torch.inf) / temperature
    bucket = bucket + (1 - 1 / temperature) * unlisted.clamp_min(1).to(dtype).log()
    log_goal = torch.cat([listed / temperature, bucket.unsqueeze(1)], dim=1)
    return temperature**2 * _divergence(log_goal.log_softmax(dim=1), log_own.to(dtype))


def sampled_kl(
    student: Float[Tensor, " positions classes"],
    ids: Int64[Tensor, " positions k"],
    log_mass: Float[Tensor, " positions k"],
    entropy: Float[Tensor, " positions"],
) -> Float[Tensor, " positions"]:
    """Estimate of the whole divergence at T = 1 from classes drawn from the teacher, in nats.

    `-sum(w * log softmax(student)[ids]) - entropy`: where the expectation of the weights w is the
    teacher's distribution (say, n draws from it, and w the share of each class in them), the
    expectation of this value is `soft_target_kl` at T = 1, and so is that of its gradient. Unlike
    `outcome_kl` it is not blind to the classes that are not listed: another draw lists them. For
    this the single value is noisy, and may be negative.

    Args:
        student: logits; the gradient reaches only these. Half precision is computed in float32.
        ids: which classes were drawn, -1 for none.
        log_mass: log of the weight of each; -inf where `ids` is -1.
        entropy: of the teacher's whole distribution, in nats. It has no gradient: it makes the
            value a divergence.

    Returns:
        One value per position.

    Raises:
        ValueError: the shapes do not belong together, or a class is outside the student's.

    Paper:
        Anshumann et al. 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation in
        LLMs", ACL, the method it calls Random Sampling Knowledge Distillation.

    Example:
        >>> ids, log_mass = torch.tensor([[2, 0]]), torch.tensor([[0.75, 0.25]]).log()
        >>> sampled_kl(torch.zeros(1, 4), ids, log_mass, torch.tensor([0.5623]))
        tensor([0.8240])
    """
    _check_list(student, ids, log_mass)
    _check_shape("entropy", entropy, "student.shape[:1]", student.shape[:1])
    log_own = _log_outcomes(student, ids, temperature=1.0)[:, :-1]
    weight = log_mass.detach().to(torch.promote_types(log_own.dtype, log_mass.dtype)).exp()
    # Without the mask, 0 * -inf is NaN where nothing is listed.
    surprise = torch.where(weight != 0, -weight * log_own, 0.0)
    return surprise.sum(dim=1) - entropy.detach()


def check_temperature(temperature: float, *, name: str = "temperature") -> None:
    """Refuse a temperature that means nothing.

    Raises:
        ValueError: it is not positive and finite; the message says what it is called.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"`{name} > 0` must hold, but got {name}={temperature}: usual is 1 to 10, 4 where "
            "nothing is known"
        )


class _OutcomeLogits(torch.autograd.Function):
    """Logits `[positions, k + 1]` of the listed classes and of the bucket of all others.

    The bucket's is the logsumexp of its own classes, never 1 minus the others: it keeps its digits
    however small it is. All are relative to the position's largest logit, which the gradient
    takes for a constant; a softmax has to follow.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, ids: Tensor, temperature: float) -> Tensor:
        classes = student.shape[1]
        # Padding reads and writes the spare column behind the last class.
        spots = torch.where(ids < 0, classes, ids)
        logits = student.new_empty(len(ids), ids.shape[1] + 1, dtype=_precision(student))
        largest, total = logits.new_empty(2, len(ids), 1)
        for part, wide in _softened(student, temperature):
            logits[part, :-1] = wide.gather(1, spots[part])
            wide.scatter_(1, spots[part], -torch.inf)
            peak = wide.amax(dim=1, keepdim=True)
            largest[part] = peak.masked_fill(peak == -torch.inf, 0.0)
            total[part] = wide.sub_(largest[part]).exp_().sum(dim=1, keepdim=True)
        logits[:, -1:] = torch.where(total == 0, -torch.inf, largest)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        logits[:, -1:] += total.log()
        ctx.save_for_backward(student, spots, largest, total)
        ctx.temperature = temperature
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student, spots, largest, total = ctx.saved_tensors
        gradient = gradient / ctx.temperature
        # A bucket without mass has nothing to share out; 0 / 0 would be NaN.
        share = torch.where(total == 0, 0.0, gradient[:, -1:] / total)
        given = torch.empty_like(student)
        for part, wide in _softened(student, ctx.temperature):
            wide.sub_(largest[part]).exp_().mul_(share[part])
            wide.scatter_(1, spots[part], gradient[part, :-1])
            given[part] = wide[:, :-1]
        return given, None, None


def _softened(student: Tensor, temperature: float) -> Iterator[tuple[slice, Tensor]]:
    """Some positions at a time: their logits / T and a spare column of -inf, in one buffer."""
    positions, classes = student.shape
    count = max(1, WORKSPACE // (classes + 1))
    rows = min(count, positions)
    buffer = student.new_empty(rows, classes + 1, dtype=_precision(student))
    for start in range(0, positions, count):
        part = slice(start, min(start + count, positions))
        wide = buffer[: part.stop - start]
        wide[:, classes] = -torch.inf
        wide[:, :classes] = student[part]
        yield part, wide if temperature == 1 else wide.div_(temperature)


def _precision(student: Tensor) -> torch.dtype:
    return torch.promote_types(student.dtype, torch.float32)


def _log_outcomes(student: Tensor, ids: Tensor, *, temperature: float) -> Tensor:
    """The student's log probabilities, `[positions, k + 1]`; -inf where nothing is listed."""
    logits: Tensor = _OutcomeLogits.apply(student, ids, temperature)  # type: ignore[no-untyped-call]
    return logits.log_softmax(dim=1)


def _divergence(log_goal: Tensor, log_own: Tensor) -> Tensor:
    """`sum(p log(p / q) - p + q)`: as both sum to 1 the divergence, but no term is negative.

    So the rounding of a term is as small as the term, and near agreement the sum keeps its digits.
    """
    goal, own = log_goal.exp(), log_own.exp()
    ratio = torch.where(goal != 0, log_goal - log_own, 0.0)
    # Logarithms that differ by their own rounding agree.
    noise = 8 * torch.finfo(ratio.dtype).eps * (1 + log_goal.abs())
    ratio = torch.where(ratio.abs() <= noise, 0.0, ratio)
    near = ratio.clamp(-1.0, 1.0)
    bent = goal * (near + torch.expm1(-near))
    far = goal * ratio + (own - goal)
    close = (goal != 0) & (ratio.abs() < 1)
    return torch.where(close, bent, far).sum(dim=1)


def _check_list(student: Tensor, ids: Tensor, log_mass: Tensor) -> None:
    if student.ndim != 2 or student.shape[1] < 2:
        raise ValueError(
            "`student` must be [positions, classes] with `classes >= 2`, but got "
            f"{tuple(student.shape)}: join sequences end to end, one row per position"
        )
    if ids.ndim != 2 or len(ids) != len(student):
        raise ValueError(
            "`ids` must be [positions, k] with the student's positions, but got ids "
            f"{tuple(ids.shape)} and student {tuple(student.shape)}: give one list per position; "
            "nothing is broadcast"
        )
    _check_shape("log_mass", log_mass, "ids.shape", ids.shape)
    if ids.dtype != torch.int64:
        raise ValueError(
            f"`ids.dtype == torch.int64` must hold, but got {ids.dtype}: call `ids.long()`, "
            "with -1 where nothing is listed"
        )
    low, high = (int(end) for end in ids.aminmax()) if ids.numel() else (-1, -1)
    if not -1 <= low <= high < student.shape[1]:
        raise ValueError(
            f"`-1 <= ids < {student.shape[1]}` must hold, but got ids from {low} to {high} and "
            f"{student.shape[1]} classes: use labels of a teacher with the student's classes"
        )


def _check_shape(name: str, tensor: Tensor, law: str, wanted: tuple[int, ...]) -> None:
    if tensor.shape != wanted:
        raise ValueError(
            f"`{name}.shape == {law}` must hold, but got {tuple(tensor.shape)} and "
            f"{tuple(wanted)}: give one row per position; nothing is broadcast"
        )
