"""What is asked of a model, and how its answers are scored."""

from understudy.tasks.classification import Classification
from understudy.tasks.regression import Regression

AnyTask = Classification | Regression

__all__ = ["AnyTask", "Classification", "Regression"]
