"""Losses made for large vocabularies: from hidden states to value and gradient, piece by piece.

A `[tokens, vocabulary]` matrix of 512 tokens and 152k columns takes 300 MB, and plain PyTorch makes
seven of them. Here none is made: `vocabulary_loss` has the gradient of a linear head and of the
hidden states in closed form, and computes it where the value is computed.

Example:
    >>> import torch
    >>> head = LinearHead(weight=torch.eye(3))
    >>> told = vocabulary_loss(
    ...     torch.zeros(2, 3), head, labels=torch.tensor([0, -100]), hard_weight=1.0
    ... )
    >>> round(float(told.loss), 4), told.counted.tolist()
    (1.0986, [True, False])
"""

from understudy.losses.vocabulary.aligned import Alignment
from understudy.losses.vocabulary.loss import VocabularyLoss, vocabulary_loss
from understudy.losses.vocabulary.mapping import VocabularyMap, map_vocabularies
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
    "Alignment",
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
    "VocabularyMap",
    "map_vocabularies",
    "vocabulary_loss",
]
