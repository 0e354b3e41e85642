"""The catalogue of losses: one literal table per family, `kind` to row."""

from understudy.losses.catalogue.row import Authors, Row

__all__ = ["Authors", "Row"]
