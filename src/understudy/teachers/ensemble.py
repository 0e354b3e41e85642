"""Several teachers as one: the mean of what they say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.contracts import Batch, Knowledge, Teacher
from understudy.errors import ModelError


class EnsembleTeacher:
    """The mean of probabilities for logits, the plain mean for anything else that all offer.

    The answer is the logarithm of the mean probability, which is a logit like any other. A mean of
    logits would be the geometric mean of the distributions: it lets one member veto a class.

    Paper:
        Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 3 (the
        arithmetic mean); Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty
        Estimation using Deep Ensembles", section 2.4.
    """

    def __init__(
        self, members: Sequence[Teacher], *, weights: Sequence[float | int] | None = None
    ) -> None:
        """Join teachers.

        Args:
            members: at least one; what all of them offer is offered.
            weights: how much each counts, positive; equal where not given.

        Raises:
            ModelError: no member, nothing that all offer, or weights that fit no mean.
        """
        if not members:
            raise ModelError("an ensemble needs at least one member, but got none")
        self.members = tuple(members)
        self._offers = frozenset.intersection(*(member.offers for member in members))
        if not self._offers:
            offered = "; ".join(", ".join(sorted(member.offers)) for member in members)
            raise ModelError(
                f"the members of an ensemble must offer something in common, but offer {offered}"
            )
        given = [1.0] * len(members) if weights is None else [float(w) for w in weights]
        if len(given) != len(members) or not all(weight > 0 for weight in given):
            raise ModelError(
                f"an ensemble of {len(members)} needs as many positive weights, but got {given}"
            )
        self._shares = [weight / sum(given) for weight in given]

    @property
    def offers(self) -> frozenset[str]:
        """What all members offer."""
        return self._offers

    def __call__(self, batch: Batch) -> Knowledge:
        """The mean of the members' answers to the batch.

        Raises:
            ModelError: members that answer in different shapes.
        """
        told = [member(batch) for member in self.members]
        return Knowledge(fields={name: self._mean(name, told) for name in sorted(self._offers)})

    def _mean(self, name: str, told: Sequence[Knowledge]) -> Tensor:
        answers = [knowledge.tensor(name) for knowledge in told]
        shapes = {tuple(answer.shape) for answer in answers}
        if len(shapes) > 1:
            raise ModelError(
                f"the members of an ensemble must answer {name} in one shape, but answer "
                f"{' and '.join(str(list(shape)) for shape in sorted(shapes))}: they must know the "
                "same classes in the same order"
            )
        shares = torch.tensor(self._shares, device=answers[0].device)
        stacked = torch.stack([answer.float() for answer in answers])
        shape = (-1,) + (1,) * answers[0].ndim
        if name == "logits":
            # In logarithms: a probability that is 0 in float32 still has one.
            return (stacked.log_softmax(dim=-1) + shares.log().view(shape)).logsumexp(dim=0)
        return (stacked * shares.view(shape)).sum(dim=0)
