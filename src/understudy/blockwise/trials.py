"""Trying candidates in a network without running again what stands before them."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from understudy.blockwise.form import Piece, placed
from understudy.blockwise.words import Partition
from understudy.errors import ModelError
from understudy.students.blocks.chain import answer_of
from understudy.students.blocks.surgery import same

MEMORY = 512 * 2**20


class Trials:
    """A network in which candidates stand in for blocks, for one portion of the rows at a time.

    A first pass of the portion keeps the stream behind every block. A trial then takes the stream
    before its first candidate from there, and runs that and what is behind alone. Layers outside
    the blocks run every time.

    Where the streams of two rows do not fit into the memory, or the network uses more of a block
    than its stream, every trial is a whole pass. Weights are never copied.

    Args:
        network: it is not changed.
        partition: of this network.
        rows: two or more that it takes as its one argument.
        memory: how many bytes the kept streams may take.
        batch_size: the most rows of a portion.

    Raises:
        ModelError: the network does not take the rows, or there are fewer than two.
    """

    def __init__(
        self,
        network: nn.Module,
        partition: Partition,
        rows: Tensor,
        *,
        memory: int = MEMORY,
        batch_size: int = 64,
    ) -> None:
        if len(rows) < 2:
            raise ModelError(f"two rows or more are needed to try candidates, but got {len(rows)}")
        self._network, self._partition, self._rows = network, partition, rows
        self._places = {block.name: place for place, block in enumerate(partition.blocks)}
        self._portion = rows[:0]
        stands = {
            block.name: _Stand(
                Piece(
                    [network.get_submodule(path) for path in block.paths],
                    bare=[path in block.bare for path in block.paths],
                ),
                place,
            )
            for place, block in enumerate(partition.blocks)
        }
        self._copy: nn.Module | None = placed(network, partition, stands, shared=_tensors(network))
        self._stands = _stands_of(self._copy)
        self.batch_size = self._fitting(memory, batch_size)

    @property
    def reuses(self) -> bool:
        """Whether what stands before a candidate is not run again."""
        return self._copy is not None

    def portions(self) -> Iterator[tuple[slice, Tensor]]:
        """Where each portion lies in the rows, and the network's own answers to it."""
        for start in range(0, len(self._rows), self.batch_size):
            here = slice(start, min(start + self.batch_size, len(self._rows)))
            yield here, self._base(self._rows[here])
        for stand in self._stands:
            stand.kept = None

    def answer(self, candidates: Mapping[str, nn.Module]) -> Tensor:
        """The first tensor of the answers to the portion with candidates in their blocks' place.

        Raises:
            ModelError: a candidate does not fit.
        """
        if self._copy is not None:
            return self._continued(self._copy, candidates)
        shared = _tensors(self._network, *candidates.values())
        stitched = placed(self._network, self._partition, candidates, shared=shared)
        return answer_of(stitched, self._portion)

    def _continued(self, network: nn.Module, candidates: Mapping[str, nn.Module]) -> Tensor:
        first = min(self._places[name] for name in candidates)
        for stand in self._stands:
            stand.recalls = stand.place < first
        for name, module in candidates.items():
            self._stands[self._places[name]].trial = module
        try:
            return answer_of(network, self._portion)
        finally:
            for stand in self._stands:
                stand.recalls, stand.trial = False, None

    def _base(self, portion: Tensor) -> Tensor:
        self._portion = portion
        if self._copy is None:
            return answer_of(self._network, portion)
        for stand in self._stands:
            stand.keeps = True
        try:
            return answer_of(self._copy, portion)
        finally:
            for stand in self._stands:
                stand.keeps = False

    def _fitting(self, memory: int, batch_size: int) -> int:
        """How many rows a portion has."""
        two = self._rows[:2]
        exact = same(self._base(two), answer_of(self._network, two))
        per_row = sum(s.kept.nbytes for s in self._stands if s.kept is not None) / 2
        fitting = int(min(batch_size, memory / max(per_row, 1)))
        if exact and fitting >= 2:
            return fitting
        self._copy, self._stands = None, []
        return batch_size


class _Stand(nn.Module):
    """In a block's place: the block, a candidate on trial, or the stream that was kept."""

    def __init__(self, own: nn.Module, place: int) -> None:
        super().__init__()
        self.own = own
        self.place = place
        self.trial: nn.Module | None = None
        self.keeps = self.recalls = False
        self.kept: Tensor | None = None

    def forward(self, stream: Tensor, *args: object, **kwargs: object) -> Tensor:
        if self.recalls and self.kept is not None:
            # A copy, as a later layer may write over what it is given.
            return self.kept.clone()
        module = self.own if self.trial is None else self.trial
        made: Tensor = module(stream, *args, **kwargs)
        if self.keeps:
            self.kept = made.detach().clone()
        return made


def _tensors(*modules: nn.Module) -> dict[int, Tensor]:
    """Weights and buffers by their id, which copies are to share."""
    return {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}


def _stands_of(network: nn.Module) -> list[_Stand]:
    found = [module for module in network.modules() if isinstance(module, _Stand)]
    return sorted(found, key=lambda stand: stand.place)
