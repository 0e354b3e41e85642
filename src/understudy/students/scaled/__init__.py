"""A fresh student of a family, scaled to a target by arithmetic."""

from understudy.students.scaled.family import ScaledPlan, of_config, plan_scaled

__all__ = ["ScaledPlan", "of_config", "plan_scaled"]
