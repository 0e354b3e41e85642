"""Layers cut to low rank: one large product becomes two small ones."""

from understudy.students.low_rank.cutting import (
    LowRankPlan,
    cut_low_rank,
    frame_low_rank,
    plan_low_rank,
)

__all__ = ["LowRankPlan", "cut_low_rank", "frame_low_rank", "plan_low_rank"]
