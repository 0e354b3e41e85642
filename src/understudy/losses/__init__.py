"""Losses: tensors in, one value per row out, and the one table that lists them by `kind`.

To add one: a function and a class in the file of what it matches, a row in the table of its family,
a test file, a section in the manual.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue import Authors, Row
from understudy.losses.catalogue.logits import LOGITS
from understudy.losses.catalogue.values import VALUES
from understudy.losses.logits import (
    HardLabel,
    LogitMSE,
    SoftTargetKL,
    hard_label,
    logit_mse,
    soft_target_kl,
)
from understudy.losses.sparse import outcome_kl, sampled_kl
from understudy.losses.values import HardValue, SoftValue, hard_value, soft_value

__all__ = [
    "CATALOGUE",
    "Authors",
    "HardLabel",
    "HardValue",
    "LogitMSE",
    "Row",
    "SoftTargetKL",
    "SoftValue",
    "hard_label",
    "hard_value",
    "logit_mse",
    "outcome_kl",
    "sampled_kl",
    "soft_target_kl",
    "soft_value",
]

CATALOGUE: Final[Mapping[str, Row]] = MappingProxyType({**LOGITS, **VALUES})
