"""A student that learns while it computes as its int8 file will."""

from understudy.students.quantized.aware import finish_aware, prepare_aware

__all__ = ["finish_aware", "prepare_aware"]
