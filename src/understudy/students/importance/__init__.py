"""How much each block of a network matters, and how strongly the kept ones must speak."""

from understudy.students.importance.measuring import Importance, importance
from understudy.students.importance.weighting import scales

__all__ = ["Importance", "importance", "scales"]
