"""What is asked of a model, and how its answers are scored."""

from understudy.tasks.classification import Classification
from understudy.tasks.embedding import Embedding
from understudy.tasks.language_model import LanguageModel
from understudy.tasks.per_token import PerToken
from understudy.tasks.regression import Regression
from understudy.tasks.token_classification import TokenClassification

AnyTask = Classification | Embedding | LanguageModel | Regression | TokenClassification

__all__ = [
    "AnyTask",
    "Classification",
    "Embedding",
    "LanguageModel",
    "PerToken",
    "Regression",
    "TokenClassification",
]
