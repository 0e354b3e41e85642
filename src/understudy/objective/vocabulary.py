"""The objective of a language model: hard labels and divergences over the vocabulary in one pass.

The student is told by its states and its head, and no logits `[positions, vocabulary]` are made:
`losses.vocabulary` computes value and gradient piece by piece. What a term means is what it means
everywhere; only how it is computed differs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from understudy.contracts import STATES, Batch, Knowledge, Task
from understudy.errors import DivergedError, ModelError
from understudy.losses.vocabulary import HiddenLabels, LinearHead
from understudy.models.causal import CausalModel
from understudy.models.deployable import Deployable, inner
from understudy.objective.joined import Objective, Total
from understudy.objective.over_vocabulary import Flat, Sides, plan_of
from understudy.objective.terms import Term
from understudy.objective.weighed import Weighed


class VocabularyObjective(Weighed):
    """A weighted sum of terms over a vocabulary, and of terms that read layers beside them."""

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        task: Task,
        offers: frozenset[str],
        listed: frozenset[str] = frozenset(),
        head: LinearHead | None = None,
    ) -> None:
        """Join the terms, and refuse what cannot be had from this teacher.

        Args:
            terms: at least one; at most one of them reads hard labels.
            task: a language model's.
            offers: the knowledge that the teacher gives; empty without a teacher.
            listed: what of it is told by some of its outcomes only.
            head: the teacher's, where it tells its `states` instead of logits; it needs no room
                for logits then, and any divergence and temperature can be had.

        Raises:
            ModelError: a term that is not made for vocabularies, or that this teacher cannot serve.
        """
        super().__init__(terms, task=task)
        self._head = head
        self._plans = {t.name: plan_of(t) for t in terms if t.reads == task.output}
        beside = [term for term in terms if term.reads != task.output]
        self.beside = Objective(beside, task=task, offers=offers, listed=listed) if beside else None
        hard = [name for name, plan in self._plans.items() if plan.hard]
        if len(hard) > 1:
            raise ModelError(
                f"an objective over a vocabulary reads hard labels once, but {' and '.join(hard)} "
                "both do: leave one of them out"
            )
        for name, plan in self._plans.items():
            plan.refuse(name, told=self._told, offers=offers)

    @property
    def _told(self) -> str:
        return self._task.output if self._head is None else STATES

    @property
    def needs(self) -> frozenset[str]:
        """The teacher's knowledge that all terms together need."""
        soft = any(not plan.hard for plan in self._plans.values())
        layers = self.beside.needs if self.beside is not None else frozenset[str]()
        return layers | ({self._told} if soft else set())

    @property
    def adapters(self) -> nn.ModuleDict:
        """What the terms beside the vocabulary learn or remember."""
        return nn.ModuleDict() if self.beside is None else self.beside.adapters

    @property
    def spots(self) -> tuple[str, ...]:
        """The layers of the student that are read."""
        return () if self.beside is None else self.beside.spots

    @property
    def constrained(self) -> bool:
        """Whether a term reads the student's weights."""
        return self.beside is not None and self.beside.constrained

    def begin(self, student: nn.Module) -> None:
        """Remember the start that constraints measure from."""
        if self.beside is not None:
            self.beside.begin(student)

    def project(self, student: nn.Module, *, epoch: float, epochs: int) -> None:
        """Bring the student's weights back to where the constraints hold them, in place."""
        if self.beside is not None:
            self.beside.project(student, epoch=epoch, epochs=epochs)

    def forward(
        self,
        student: HiddenLabels,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
        features: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Total:
        """The loss of a batch at a fractional epoch of training.

        Args:
            student: its states `[batch, length, dim]` and head, as `spoken` gives them.
            teacher: what it knows of the batch.
            batch: with `positions` and labels `[batch, length]`.
            epoch: of training, fractional.
            epochs: of training, in all.
            features: the student's, by spot.
            weights: the student's that train, where a term is a constraint on them.

        Raises:
            DivergedError: a value that is not finite; its position is named.
            ModelError: labels do not fit the vocabulary or the positions.
        """
        now = {t.name: self.weight(t.name, epoch=epoch, epochs=epochs) for t in self.terms}
        flat = Flat.of(student, teacher, batch, name=self._told, head=self._head)
        loss, parts = self._fused(flat, now, epoch=epoch, epochs=epochs)
        for name, mean in self._beside(
            student, teacher, batch, epoch=epoch, epochs=epochs, features=features, weights=weights
        ).items():
            parts[name] = mean.detach()
            loss = loss + now[name] * mean if now[name] else loss
        if not bool(torch.isfinite(loss)):
            told = ", ".join(f"{name} = {float(value):.4g}" for name, value in parts.items())
            raise DivergedError(f"the loss must be finite, but got {float(loss.detach())} ({told})")
        return Total(loss=loss, parts=parts)

    def means(
        self,
        student: HiddenLabels,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
        features: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Per term its mean over the positions that count, each with a gradient of its own."""
        flat = Flat.of(student, teacher, batch, name=self._told, head=self._head)
        found = {}
        for name in self._plans:
            alone = {other: float(other == name) for other in self._plans}
            found[name] = self._fused(flat, alone, epoch=epoch, epochs=epochs)[0]
        return found | self._beside(
            student, teacher, batch, epoch=epoch, epochs=epochs, features=features, weights=weights
        )

    def _fused(
        self, flat: "Flat", now: Mapping[str, float], *, epoch: float, epochs: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms over the vocabulary, and each one's mean."""
        names = [n for n in self._plans if now[n]]
        hard = next((n for n in names if self._plans[n].hard), None)
        soft = [n for n in names if not self._plans[n].hard]
        parts = {n: flat.zero.detach() for n in self._plans}
        # Hard labels go along with the first divergence, where both count the same positions.
        along = bool(soft) and (flat.whole or hard is None)
        passes: list[tuple[str | None, str | None]] = [
            (name, hard if along and at == 0 else None) for at, name in enumerate(soft)
        ]
        if hard is not None and not along:
            passes.append((None, hard))
        loss = flat.zero
        for first, second in passes:
            plan = None if first is None else self._plans[first]
            sides = Sides(
                soft=0.0 if first is None else now[first],
                hard=0.0 if second is None else now[second],
                smoothing=0.0 if second is None else self._plans[second].smoothing,
                temperature=1.0 if plan is None else plan.at(epoch=epoch, epochs=epochs),
            )
            value, divergence, entropy = flat.look(plan, sides)
            loss = loss + value
            if first is not None:
                parts[first] = divergence
            if second is not None:
                parts[second] = entropy
        return loss, parts

    def _beside(
        self,
        student: HiddenLabels,
        teacher: Knowledge | None,
        batch: Batch,
        *,
        epoch: float,
        epochs: int,
        features: Mapping[str, Tensor] | None,
        weights: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        if self.beside is None:
            return {}
        told = None
        if teacher is not None:
            told = Knowledge(fields={name: teacher[name] for name in self.beside.needs})
        return self.beside.means(
            student.hidden,
            told,
            batch,
            epoch=epoch,
            epochs=epochs,
            features=features or {},
            weights=weights,
        )


def spoken(student: nn.Module, rows: Tensor) -> HiddenLabels:
    """A causal student's states `[batch, length, dim]` of these rows, and its head.

    Raises:
        ModelError: it is no causal model.
    """
    network = inner(student)
    if not isinstance(network, CausalModel):
        raise ModelError(
            "a language model must be a causal model, with `states` and a `head`, but "
            f"{type(network).__name__} is none: use `kind: gpt`, or a folder of Hugging Face as "
            "`kind: hf_causal`"
        )
    tokens = student.preprocess(rows) if isinstance(student, Deployable) else rows
    return HiddenLabels(hidden=network.states(tokens), head=network.head)
