"""What a teacher says by a list of outcomes, softened and compared, all in `[tokens, k + 1]`."""

import torch
from torch import Tensor

from understudy.losses.vocabulary.kinds import measured, sloped
from understudy.losses.vocabulary.parts import Divergence, ListedLabels


def softened_list(
    labels: ListedLabels, temperature: float, vocabulary: int, like: Tensor
) -> Tensor:
    """The teacher's log probabilities of k + 1 outcomes at T, as `outcome_kl` has them."""
    unlisted = vocabulary - (labels.ids >= 0).sum(dim=1)
    listed, rest = labels.log_mass.to(like.dtype), labels.rest.to(like.dtype)
    # Where all are listed, rounding may still have left the bucket a little mass.
    bucket = torch.where(unlisted > 0, rest, -torch.inf) / temperature
    bucket = bucket + (1 - 1 / temperature) * unlisted.clamp_min(1).to(like.dtype).log()
    listed = listed.masked_fill(labels.ids < 0, -torch.inf) / temperature
    return torch.cat([listed, bucket.unsqueeze(1)], dim=1).log_softmax(dim=1)


def compared(
    kind: Divergence, log_goal: Tensor, logits: Tensor, bucket: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The student's logsumexp of all columns `[tokens, 1]`, the value and the slope of k + 1.

    Args:
        kind: which divergence.
        log_goal: the teacher's log probabilities of the k listed outcomes and of the bucket.
        logits: the student's of the listed ones, softened; -inf where fewer are listed.
        bucket: the logsumexp of all its others, `[tokens, 1]`.
    """
    own = torch.cat([logits, bucket], dim=1)
    every = own.logsumexp(dim=1, keepdim=True)
    log_own = own - every
    # An outcome that there is not has no mass on either side; -inf less -inf would be NaN.
    absent = log_own == -torch.inf
    log_own, log_goal = (x.masked_fill(absent, -1e4) for x in (log_own, log_goal))
    value, mean = measured(kind, log_goal, log_own)
    return every, value, sloped(kind, log_goal, log_own, mean)


def drawn_weights(labels: ListedLabels, like: Tensor) -> tuple[Tensor, Tensor]:
    """What sampled outcomes weigh, `[tokens, k]`, and the teacher's entropy, `[tokens]`."""
    weights = labels.log_mass.to(like.dtype).exp().masked_fill(labels.ids < 0, 0.0)
    entropy = labels.rest if labels.entropy is None else labels.entropy
    return weights, entropy.to(like.dtype)
