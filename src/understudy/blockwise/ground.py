"""What a blockwise run stands on: the teacher's network in a form with blocks, and its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.blockwise.assembling import Rows
from understudy.blockwise.partition import partition
from understudy.blockwise.recurrent import unrolled
from understudy.blockwise.rulers import Output
from understudy.blockwise.traced import as_chain
from understudy.blockwise.words import Partition
from understudy.data.loaders import MemoryLoader
from understudy.errors import DataError, ModelError
from understudy.models.deployable import Deployable
from understudy.pipeline.loaded import Loaded
from understudy.pipeline.prepare import chain_of_views, view_marks
from understudy.pipeline.work import Work
from understudy.recipe import BlockwiseSection, Latency
from understudy.tasks import Regression

Form = Literal["modules", "layers", "traced"]
# Of the rows to learn from, this share is held out, and no more than so many.
_HELD_OUT, _MOST_HELD_OUT = 8, 512
# Rows at a time where the teacher's preprocessing makes tensors of them.
_PORTION = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """One run's teacher and rows.

    Attributes:
        work: the run.
        section: how the student is put together.
        whole: the teacher with what is around it.
        loaded: the teacher as a stage.
    """

    work: Work
    section: BlockwiseSection
    whole: Deployable
    loaded: Loaded

    @classmethod
    def of(cls, work: Work, loaded: Loaded) -> "Ground":
        """For a run whose teacher is there.

        Raises:
            ModelError: the recipe says nothing of blocks, or its teacher is no PyTorch module.
        """
        section = work.recipe.student.blockwise
        if section is None:
            raise ModelError(
                "this recipe's student is not put together from blocks: write `student: "
                "{blockwise: {}}`, or use `understudy run`"
            )
        if loaded.module is None:
            raise ModelError("only a teacher that is one PyTorch `model` has blocks")
        return cls(work=work, section=section, whole=loaded.module.eval(), loaded=loaded)

    @property
    def latency(self) -> Latency:
        """How time is measured: as the budget says, where it does."""
        limit = self.work.recipe.budget.latency_ms
        if limit is None:
            return self.section.latency
        update = {"batch": limit.batch, "threads": limit.threads}
        return self.section.latency.model_copy(update=update)

    @property
    def output(self) -> Output:
        """What the network answers."""
        return "values" if self.work.material.task.output == "values" else "logits"

    def network(self, form: Form) -> nn.Module:
        """The teacher's network with its blocks as modules."""
        if form == "modules":
            return self.whole.network
        if form == "layers":
            return unrolled(self.whole.network).eval()
        return as_chain(self.whole.network, self.few()).eval()

    def divided(self) -> tuple[Form, Partition]:
        """The first form of the network that can be divided as the recipe says.

        Raises:
            ModelError: none can, with the reason of the plainest.
        """
        by, parts = self.section.partition.by, self.section.partition.parts
        forms: list[Form] = ["modules", "traced"]
        if _several_layers(self.whole.network):
            forms.insert(0, "layers")
        first: ModelError | None = None
        for form in forms:
            try:
                found = partition(self.network(form), self.few(), by=by, parts=parts, measure=False)
            except ModelError as error:
                first = first or error
            else:
                return form, found
        assert first is not None
        raise first

    def fed(self, positions: NDArray[np.int64]) -> Tensor:
        """What the network takes for these rows, as they are."""
        return self._fed([self.work.material.inputs[torch.from_numpy(positions)]])

    def few(self, count: int = 8) -> Tensor:
        """The first training rows."""
        return self.fed(self.work.material.splits.train[:count])

    def learned(self) -> tuple[Tensor, Rows]:
        """What candidates learn from, as the network takes it, and which row is for what.

        Raises:
            DataError: too few training rows.
        """
        work, local = self.work, self.section.local
        train = work.material.splits.train
        order = np.random.Generator(np.random.Philox(key=work.recipe.data.seed))
        chosen = np.sort(order.choice(train, min(local.rows, len(train)), replace=False))
        held = min(_MOST_HELD_OUT, max(2, len(chosen) // _HELD_OUT))
        if len(chosen) < held + 2:
            raise DataError(
                f"candidates need 4 training rows or more, but there are {len(chosen)}: raise "
                "`student.blockwise.local.rows`"
            )
        # Every so-maniest row, so that sorted data does not hold out one class.
        apart = np.zeros(len(chosen), bool)
        apart[np.linspace(0, len(chosen) - 1, held).round().astype(int)] = True
        learn, validation = chosen[~apart], chosen[apart]
        parts = [*self._shown(learn), work.material.inputs[torch.from_numpy(validation)]]
        fed = self._fed(parts)
        count = len(fed) - len(validation)
        rows = Rows(
            learn=np.arange(count),
            validation=np.arange(count, len(fed)),
            calibration=np.arange(min(self.section.candidates.rows, count)),
        )
        return fed, rows

    def marks(self) -> dict[str, object]:
        """Everything that the blocks' inputs are a function of."""
        local = self.section.local
        return {
            "teacher": self.loaded.summary["fingerprint"],
            "data": self.work.data_mark,
            "rows": [local.rows, local.views, self.work.recipe.data.seed],
            "views": view_marks(self.work),
        }

    def judged(self) -> tuple[NDArray[np.int64], Tensor, Tensor | None]:
        """Validation rows by which replacements are judged, what the network takes, and labels.

        Raises:
            DataError: there are fewer than two.
        """
        material = self.work.material
        positions = material.splits.validation[: self.section.scores.rows]
        if len(positions) < 2:
            raise DataError(
                f"replacements are judged on validation rows, but there are {len(positions)}: "
                "raise `data.validation`"
            )
        labels = material.all_labels[torch.from_numpy(positions)]
        task = material.task
        if isinstance(task, Regression):
            # The network answers in units of one.
            labels = (labels - torch.tensor(task.mean)) / torch.tensor(task.std)
        known = len(task.labelled_rows(labels.numpy()).nonzero()[0])
        return positions, self.fed(positions), labels if known >= 2 else None

    def _shown(self, positions: NDArray[np.int64]) -> list[Tensor]:
        """The rows in their views; without random views, as they are, once."""
        work, material = self.work, self.work.material
        views = chain_of_views(work, seed=work.recipe.data.seed)
        loader = MemoryLoader(
            inputs=material.inputs,
            labels=material.labels,
            ids=material.ids,
            positions=positions,
            batch_size=_PORTION,
            views=views,
            seed=work.recipe.data.seed,
        )
        if not work.recipe.data.views:
            return [loader.batch(positions).inputs]
        return [
            loader.batch(positions, np.full(len(positions), view)).inputs
            for view in range(1, self.section.local.views + 1)
        ]

    def _fed(self, parts: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            made = [
                self.whole.preprocess(portion)
                for part in parts
                for portion in torch.split(part, _PORTION)
            ]
        return torch.cat(made)


def _several_layers(network: nn.Module) -> bool:
    return any(isinstance(m, nn.RNNBase) and m.num_layers > 1 for m in network.modules())
