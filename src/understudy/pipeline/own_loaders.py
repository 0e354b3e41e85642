"""Somebody's own loader, whatever it gives, as batches of ours."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from understudy.contracts import Batch
from understudy.errors import DataError


class Loader:
    """Somebody's loader as batches of ours; tells its sampler the epoch like Lightning would."""

    def __init__(self, loader: Iterable[Any], *, trains: bool = False) -> None:
        """Wrap a loader that can be iterated over again and again.

        Args:
            loader: somebody's.
            trains: a last batch of a single row is left out, as nothing relates it to others and
                no batch norm takes it. That can be known of PyTorch's `DataLoader` with a sampler
                only; of others a length has to be believed.
        """
        if isinstance(loader, Iterator):
            raise DataError(
                "a loader must be iterable once per epoch, but this is an iterator that is used up "
                "after one: pass the DataLoader itself"
            )
        self._loader = loader
        self._trains = trains
        self.batch_sampler = None

    @property
    def sampler(self) -> "Loader":
        """What Lightning calls `set_epoch` on."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to whoever wants to know."""
        for name in ("sampler", "dataset"):
            set_epoch = getattr(getattr(self._loader, name, None), "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._loader) - self._ends_alone()  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        return islice(self.every(), len(self)) if self._ends_alone() else self.every()

    def every(self) -> Iterator[Batch]:
        """All batches, also what is left out of training."""
        return map(to_batch, self._loader)

    def _ends_alone(self) -> bool:
        own = self._loader
        if not (self._trains and type(own) is DataLoader and own.batch_size and not own.drop_last):
            return False
        if isinstance(own.dataset, IterableDataset) or len(own) < 2:
            return False
        sampler = own.sampler
        return isinstance(sampler, Sized) and len(sampler) % own.batch_size == 1


def to_batch(item: Any) -> Batch:
    """A loader's item as a batch.

    Raises:
        DataError: it has another form.
    """
    if isinstance(item, Batch):
        return item
    if isinstance(item, Mapping):
        item = tuple(item.get(name) for name in ("inputs", "labels", "ids"))
    if isinstance(item, Tensor):
        item = (item, None)
    usable = isinstance(item, (tuple, list)) and len(item) in (2, 3) and isinstance(item[0], Tensor)
    if not usable:
        raise DataError(
            "a loader must give (inputs, labels), (inputs, labels, ids), a mapping with these "
            f"names or a Batch, but gave {type(item).__name__}: give it a `collate_fn`"
        )
    labels = item[1]
    if isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim == 1:
        labels = labels.unsqueeze(1)
    return Batch(inputs=item[0], labels=labels, ids=item[2] if len(item) == 3 else None)
