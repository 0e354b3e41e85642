"""Losses: tensors in, one value per row out, and the one table that lists them by `kind`.

To add one: a function and a class in the file of what it matches, a row here, a test file, a row
in the manual.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from understudy.losses.catalogue import Row
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

CATALOGUE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "hard_label": Row(
            loss=HardLabel,
            needs=(),
            reads="logits",
            labels=True,
            family="logits",
            paper="smoothing: Szegedy et al. 2016, Rethinking the Inception Architecture, s. 7",
            usual_weight="1 alone; 0.1 to 0.5 beside soft_target",
            tasks=("classification",),
            whole=None,
        ),
        "soft_target": Row(
            loss=SoftTargetKL,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, s. 2",
            usual_weight="0.9 beside 0.1 on hard_label, at temperature 4",
            tasks=("classification",),
            whole=None,
        ),
        "logit_mse": Row(
            loss=LogitMSE,
            needs=("logits",),
            reads="logits",
            labels=False,
            family="logits",
            paper="Ba and Caruana 2014, Do Deep Nets Really Need to be Deep?, s. 2.2",
            usual_weight="0.1 to 1 beside hard_label",
            tasks=("classification",),
            whole="it compares bare logits, class by class; listed outcomes are log probabilities, "
            "which leave out most classes and the constant that a softmax cannot see",
        ),
        "hard_value": Row(
            loss=HardValue,
            needs=(),
            reads="values",
            labels=True,
            family="values",
            paper="none: the ordinary squared error",
            usual_weight="1 alone; 0.5 beside soft_value",
            tasks=("regression",),
            whole=None,
        ),
        "soft_value": Row(
            loss=SoftValue,
            needs=("values",),
            reads="values",
            labels=False,
            family="values",
            paper="Bucila, Caruana and Niculescu-Mizil 2006, Model Compression",
            usual_weight="0.5 beside 0.5 on hard_value; 1 where rows have no label",
            tasks=("regression",),
            whole="values are not a distribution: there are no outcomes to list",
        ),
    }
)
