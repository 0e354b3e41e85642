"""A label store as teacher: what a large model said once, said again by id and view."""

import torch

from understudy.contracts import Batch, Knowledge
from understudy.errors import StoreError
from understudy.labels.store import LabelStore


class CachedTeacher:
    """Answers from a store; the model itself need not exist any more."""

    def __init__(self, store: LabelStore) -> None:
        """Teach from `store`."""
        self._store = store

    @property
    def offers(self) -> frozenset[str]:
        """What was stored."""
        return self._store.offers

    @property
    def listed(self) -> frozenset[str]:
        """What is told by some of its outcomes only."""
        return self._store.listed

    def __call__(self, batch: Batch) -> Knowledge:
        """The stored knowledge of the batch's ids in its views.

        Raises:
            StoreError: rows without ids, rows or views that were never labelled.
        """
        if batch.ids is None:
            raise StoreError("a label store is read by example id, but these rows have none")
        ids = batch.ids.cpu().long()
        # Rows that say nothing of views are shown as they are, and that is view 0.
        views = torch.zeros_like(ids) if batch.views is None else batch.views.cpu().long()
        found = self._store.read(ids, views)
        device = batch.inputs.device
        if device.type == "cpu":
            return found
        return Knowledge(fields={name: value.to(device) for name, value in found.items()})
