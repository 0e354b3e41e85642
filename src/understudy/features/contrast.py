"""The adapter `contrast`: embeddings on a sphere, and a memory of every row's last ones."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.contracts import Batch
from understudy.errors import DataError, ModelError
from understudy.features.form import Adapted, Shape, check_least, check_pairs, pooled, width_of


class Contrast(nn.Module):
    """Both sides embedded, and for each row what is remembered of itself and of `negatives` others.

    Two banks remember the last embedding of every row, as a moving average on the sphere; while
    training they are brought up to date after they were read. The constants that bring the scores
    to the scale of a probability are fixed on the first batch that is trained on. All of it is in
    `state_dict`. Negatives are drawn from torch's global generator, each by itself: from the rows
    of other classes, or from all other rows where the row has no label.

    With several devices the banks are the first process's: rows that only others saw are remembered
    as they were at the start.

    Args:
        student: the shape of the student's layer, one row, in a list of one.
        teacher: the shape of the teacher's.
        ids: int64 `[rows]`, every row that will be trained on, in any order, each once.
        labels: int64 `[rows]`, their classes, -1 where one has none; None where none has.
        width: of the sphere's space.
        negatives: how many other rows each row is told from; each needs `width` numbers per side
            and row of the batch.
        momentum: the share of the old embedding in the new one.
        temperature: what similarities are divided by.

    Raises:
        ModelError: more than one pair of layers, or a constant out of range.
        DataError: ids that repeat, labels of another form, or a row without any negative.

    Paper:
        Tian, Krishnan and Isola 2020, "Contrastive Representation Distillation", sections 3.2 and
        4; the constants are theirs, and so is the memory (Wu et al. 2018).
    """

    ids: Tensor
    order: Tensor
    first: Tensor
    size: Tensor
    student_bank: Tensor
    teacher_bank: Tensor
    constants: Tensor

    def __init__(
        self,
        student: list[Shape],
        teacher: list[Shape],
        *,
        ids: Tensor,
        labels: Tensor | None = None,
        width: int = 128,
        negatives: int = 16384,
        momentum: float = 0.5,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        check_pairs(student, teacher)
        check_least("width", width)
        check_least("negatives", negatives)
        _check_constants(len(student), momentum, temperature)
        self.negatives = negatives
        self.momentum = momentum
        self.temperature = temperature
        self.own = nn.Linear(width_of(student[0]), width)
        self.goal = nn.Linear(width_of(teacher[0]), width)
        known, order, first, size = _groups(ids, labels)
        self.register_buffer("ids", known)
        self.register_buffer("order", order)
        self.register_buffer("first", first)
        self.register_buffer("size", size)
        # As long as an embedding on average, and in any direction.
        bound = math.sqrt(3 / width)
        for side in ("student_bank", "teacher_bank"):
            self.register_buffer(side, torch.empty(len(ids), width).uniform_(-bound, bound))
        self.register_buffer("constants", torch.zeros(2))

    def forward(self, student: list[Tensor], teacher: list[Tensor], batch: Batch) -> Adapted:
        """Both sides embedded, their candidates, and the scale of their scores.

        Raises:
            DataError: the batch has no ids, or one that the banks do not know.
        """
        own = _on_sphere(self.own(pooled(student[0], batch.real)))
        goal = _on_sphere(self.goal(pooled(teacher[0].detach(), batch.real)))
        places = self._places(batch.ids)
        # The row itself comes first.
        candidates = torch.cat([places.unsqueeze(1), self._others(places)], dim=1)
        own_bank, goal_bank = self.student_bank[candidates], self.teacher_bank[candidates]
        constants = self._scale(own, goal, own_bank, goal_bank)
        if self.training:
            self._remember(self.student_bank, places, own)
            self._remember(self.teacher_bank, places, goal)
        values = {
            "student_bank": own_bank,
            "teacher_bank": goal_bank,
            "student_constant": constants[0],
            "teacher_constant": constants[1],
            # Filled in place, as a copy to a device would wait for it; no half can hold `rows`.
            "rows": torch.full((), len(self.ids), dtype=torch.float32, device=own.device),
            "temperature": torch.full((), self.temperature, device=own.device),
        }
        return Adapted(
            student=[own], teacher=[goal], values={name: [v] for name, v in values.items()}
        )

    def _places(self, ids: Tensor | None) -> Tensor:
        if ids is None:
            raise DataError(
                "the adapter `contrast` must know which row is which, but the batch has no ids: "
                "give the data set ids, or choose another loss"
            )
        ids = ids.to(self.ids.device)
        places = torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        strange = ids[self.ids[places] != ids]
        if len(strange):
            raise DataError(
                f"the adapter `contrast` remembers {len(self.ids)} rows, but the batch has others, "
                f"such as id {int(strange[0])}: make it with the ids of every row that is trained "
                "on"
            )
        return places

    def _others(self, places: Tensor) -> Tensor:
        """Negatives of each place, `[batch, negatives]`: uniform, with repetition."""
        first, size = self.first[places].unsqueeze(1), self.size[places].unsqueeze(1)
        shape = len(places), self.negatives
        # A remainder of 62 bits: its bias is below 1e-9 for any data set.
        drawn = torch.randint(2**62, shape, device=places.device) % (len(self.ids) - size)
        # Rows are in the order of their groups: one's own is stepped over.
        return self.order[drawn + torch.where(drawn >= first, size, 0)]

    @torch.no_grad()
    def _scale(self, own: Tensor, goal: Tensor, own_bank: Tensor, goal_bank: Tensor) -> Tensor:
        if bool((self.constants > 0).all()):
            return self.constants
        if not len(own):
            return torch.ones_like(self.constants)
        means = [
            (bank @ anchors.to(bank.dtype).unsqueeze(2) / self.temperature).exp().mean()
            for anchors, bank in ((own, goal_bank), (goal, own_bank))
        ]
        scale = len(self.ids) * torch.stack(means)
        if self.training:
            self.constants.copy_(scale)
        return scale

    @torch.no_grad()
    def _remember(self, bank: Tensor, places: Tensor, embedded: Tensor) -> None:
        if not len(places):
            return
        # A row may come twice, in two views: all copies write the last one, so no order matters.
        number = torch.arange(len(places), device=places.device)
        same = places.unsqueeze(0) == places.unsqueeze(1)
        last = torch.where(same, number, -1).amax(dim=1)
        new = self.momentum * bank[places] + (1 - self.momentum) * embedded[last].to(bank.dtype)
        bank[places] = _on_sphere(new)


def _on_sphere(rows: Tensor) -> Tensor:
    # A guard that a row of zeros needs, and that leaves its gradient below 1e6.
    return F.normalize(rows, dim=1, eps=1e-6)


def _groups(ids: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted ids; places by group; and per place where its group begins there and its size."""
    if ids.ndim != 1 or ids.dtype != torch.int64 or len(torch.unique(ids)) != len(ids):
        raise DataError(
            f"`ids` must be int64 [rows], each once, but got {ids.dtype} {tuple(ids.shape)} with "
            f"{len(torch.unique(ids))} different ones"
        )
    known, by_id = ids.detach().clone().sort()
    alone = torch.arange(len(ids), device=ids.device)
    groups = alone
    if labels is not None:
        if labels.dtype != torch.int64 or labels.shape != ids.shape:
            raise DataError(
                f"`labels` must be int64 [rows] = {tuple(ids.shape)}, but got {labels.dtype} "
                f"{tuple(labels.shape)}: give one class per id, or None where there are none"
            )
        classes = labels.to(ids.device)[by_id]
        # A row without a label is a group of one.
        groups = torch.where(classes < 0, len(ids) + classes.amax().clamp(min=0) + alone, classes)
    _, group, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    begins = counts.cumsum(0) - counts
    size = counts[group]
    if len(ids) and int(size.max()) == len(ids):
        raise DataError(
            "each row must have rows of another class to be told from, but all "
            f"{len(ids)} are of one: give more rows, or no labels"
        )
    return known, group.argsort(stable=True), begins[group], size


def _check_constants(pairs: int, momentum: float, temperature: float) -> None:
    if pairs != 1:
        raise ModelError(
            f"the adapter `contrast` takes one pair of layers, but got {pairs}: name the last "
            "features before the head, or give each pair a term of its own"
        )
    if not 0 <= momentum < 1:
        raise ModelError(f"`0 <= momentum < 1` must hold, but got {momentum=}: usual is 0.5")
    if not 0.03 <= temperature < math.inf:
        raise ModelError(
            f"`temperature >= 0.03` must hold, but got {temperature=}: below it the exponential "
            "of a similarity leaves single precision; usual is 0.07"
        )
