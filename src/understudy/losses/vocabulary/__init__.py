"""Losses made for large vocabularies: from hidden states to value and gradient, piece by piece.

A `[tokens, vocabulary]` matrix of 512 tokens and 152k columns takes 300 MB, and plain PyTorch makes
seven of them. Here none is made: `vocabulary_loss` has the gradient of a linear head and of the
hidden states in closed form, and computes it where the value is computed.
"""

from understudy.losses.vocabulary.loss import VocabularyLoss, vocabulary_loss
from understudy.losses.vocabulary.parts import (
    Blend,
    DenseLabels,
    Forward,
    HiddenLabels,
    LinearHead,
    ListedLabels,
    Pieces,
    Reverse,
    Skew,
)

__all__ = [
    "Blend",
    "DenseLabels",
    "Forward",
    "HiddenLabels",
    "LinearHead",
    "ListedLabels",
    "Pieces",
    "Reverse",
    "Skew",
    "VocabularyLoss",
    "vocabulary_loss",
]
