"""Hugging Face's own `Trainer` with our objective: live teachers, stored labels, exact sums.

`distilled(Trainer, objective=..., teacher=...)` is a `Trainer` whose loss is the objective's. Every
other part of it stays: arguments, callbacks, checkpoints, several processes. The library itself is
not imported here; whoever has a `Trainer` has it.
"""

from understudy.integrations.transformers.collating import TokenCollator
from understudy.integrations.transformers.labelling import label_tokens
from understudy.integrations.transformers.objective import TokenObjective
from understudy.integrations.transformers.rows import StoredRows
from understudy.integrations.transformers.tokenizers import shared_tokens
from understudy.integrations.transformers.trainer import distilled
from understudy.losses.vocabulary import Blend, Forward, Reverse, Skew

__all__ = [
    "Blend",
    "Forward",
    "Reverse",
    "Skew",
    "StoredRows",
    "TokenCollator",
    "TokenObjective",
    "distilled",
    "label_tokens",
    "shared_tokens",
]
