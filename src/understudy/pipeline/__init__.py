"""One run: the stages in order, and the automatic choices inside it."""

from understudy.pipeline.distilling import distill
from understudy.pipeline.running import environment, run

__all__ = ["distill", "environment", "run"]
