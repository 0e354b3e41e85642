"""A narrower copy of a network: channels, attention heads and hidden units are removed."""

from understudy.students.width.cutting import WidthPlan, cut_width, plan_width

__all__ = ["WidthPlan", "cut_width", "plan_width"]
